"""The Jacobian of T losses with respect to parameters, collected parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transfer.gradients.buckets import LIMIT, pooled
from transfer.gradients.products import Formed, Products, full


class Jacobian:
    """Rows are losses, columns the values of parameters; what is held of it, and its Gramian.

    The Gramian is that of the whole batch's mean gradients: where a batch has several parts or
    processes, its gradients are added up first, since a sum of Gramians is not the Gramian of the sum.

    Args:
        tasks: T.
        keep: hold the products after their Gramian is known.
        pool: adds a tensor up over the processes, in place of what it is given; None when there is one.
        parts: how many parts of the batch follow one another.
        counted: ids of the parameters that the Gramian is of; None: all.
    """

    def __init__(self, tasks: int, *, keep: bool, pool: Callable[[Tensor], Tensor] | None = None, parts: int = 1,
                 counted: set[int] | None = None) -> None:
        self.tasks, self.keep, self.pool, self.parts, self.counted = tasks, keep, pool, parts, counted
        self.held: dict[Tensor, Products] = {}
        self._gramian: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []  # parameters, and products that are still to be exchanged

    @property
    def may_factor(self) -> bool:
        """Whether products need not be formed."""
        return self.pool is None and self.parts == 1

    @torch.no_grad()
    def add(self, parameter: Tensor, products: Products) -> None:
        """Take a part's products for a parameter."""
        if self.parts > 1:
            known = self.held.get(parameter)
            self.held[parameter] = products if known is None else Formed(known.values + products.values)
            return
        self._finish(parameter, products)

    def close(self) -> None:
        """After the last part."""
        if self.parts > 1:
            for parameter, products in list(self.held.items()):
                self._finish(parameter, products)
        self._exchange()

    def _finish(self, parameter: Tensor, products: Products) -> None:
        """Of the whole batch, on this process."""
        if self.pool is None:
            self._count(parameter, products)
            return
        self._waiting.append((parameter, products.values))
        if sum(values.nbytes for _, values in self._waiting) >= LIMIT:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        if self._waiting:
            parameters, values = zip(*self._waiting, strict=True)
            self._waiting = []
            for parameter, total in zip(parameters, pooled(values, self.pool), strict=True):
                self._count(parameter, Formed(total))

    def _count(self, parameter: Tensor, products: Products) -> None:
        """Of the whole batch."""
        if self.counted is None or id(parameter) in self.counted:
            found = products.gramian()
            self._gramian = found if self._gramian is None else self._gramian.add_(found)
        if self.keep:
            self.held[parameter] = products

    def gramian(self) -> Tensor | None:
        """``[T, T]``, on the device; None where no loss reaches any parameter."""
        return self._gramian

    def rows(self, parameters: Sequence[Tensor]) -> Tensor:
        """``[T, P]``, with the parameters in this order; 0 for those not reached."""
        return torch.cat([full(self.held[value].rows()) if value in self.held
                          else torch.zeros(self.tasks, value.numel(), device=value.device)
                          for value in parameters], dim=1)


@torch.no_grad()
def crossed(first: Jacobian, second: Jacobian, shares: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Inner products ``[T, T]`` of the rows of two parts of a batch, each as if it were the whole.

    Args:
        first: of a part; its rows are sums over labels, divided by the labels of the whole batch.
        second: of the other.
        shares: ``[2, T]``, of each task's labels that each part has; where it has none, its row is 0.

    Returns:
        These products, which are no Gramian; and the Gramian of the whole batch's rows, the sums of both parts'. None
        where no loss reaches any parameter.
    """
    total: Tensor | None = None
    for parameter, products in first.held.items():
        other = second.held.get(parameter)
        counted = first.counted is None or id(parameter) in first.counted
        if other is not None and counted:
            found = full(products.rows()) @ full(other.rows()).T
            total = found if total is None else total + found
    terms = [first.gramian(), second.gramian(), total, None if total is None else total.T]
    whole = [term for term in terms if term is not None]
    gramian = torch.stack(whole).sum(0) if whole else None
    if total is None:
        return None, gramian
    scales = torch.where(shares > 0, 1 / shares, 0).to(total)
    return scales[0][:, None] * total * scales[1], gramian


def add_to(parameter: Tensor, gradient: Tensor) -> None:
    """Accumulate into ``.grad``."""
    gradient = gradient.view_as(parameter).to(parameter.dtype)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
