"""One sign for every component."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import UserError, closest
from transfer.strategies.base import JacobianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.weighing import check_range


@BALANCES.register("graddrop")
class GradDrop(JacobianBalance):
    """Σ_t m_t ∘ g_t, where the masks m_t keep the components of one sign.

    In each component the sign purity P = ½ (1 + Σ_t g_t / Σ_t |g_t|) is the chance that the positive values are
    kept, 1 − P that the negative ones are; one uniform number decides for all tasks (Chen et al. 2020, "Just
    Pick a Sign", equation 1 and algorithm 1, with f the identity). A task's leak ℓ lets that share of its gradient
    through: m_t becomes ℓ_t + (1 − ℓ_t) m_t.

    Its default level is the representation, as in the paper. There P and m_t are of the G_t = Σ_b sign(a_b) ∘ g_t,b,
    summed over the images b of the batch, whose activations are a: so a place (a channel at a position) has one mask
    for each task, which all images share. An activation that is 0 counts as positive. ``params`` applies it to the
    gradients of the shared parameters.

    Args:
        tasks: names of the tasks.
        leak: ℓ by task, between 0 and 1; 0 for those not named.
        per_image: at the representation, decide for each image by itself, without the sum over the batch.

    Raises:
        UserError: a leak for a task that is not trained, or out of its range.
    """

    level = "representation"
    componentwise = True

    def __init__(self, tasks: Sequence[str], leak: dict[str, float] | None = None, per_image: bool = False) -> None:
        super().__init__(tasks)
        self.sums_over_batch = not per_image
        leak = leak or {}
        for task, value in leak.items():
            if task not in self.tasks:
                raise UserError(f"balance.leak has a value for '{task}'{closest(task, self.tasks)}, and the tasks are "
                                f"{', '.join(self.tasks)}")
            check_range(f"leak of {task}", value, 0.0, 1.0)
        self.leaks = [float(leak.get(task, 0.0)) for task in self.tasks]

    def factors(self, sums: Tensor) -> Tensor:
        share = (sums.sum(0) / torch.linalg.vector_norm(sums, ord=1, dim=0)).nan_to_num_(0.0)
        positive = share.add_(1.0).mul_(0.5) > _uniform(sums)
        leaks = sums.new_tensor(self.leaks)[:, None]
        return leaks + (1.0 - leaks) * torch.where(positive, sums > 0, sums < 0)

    def direction(self, jacobian: Tensor) -> Tensor:
        total, size = jacobian.sum(0), torch.linalg.vector_norm(jacobian, ord=1, dim=0)
        share = (total / size).nan_to_num_(0.0)  # 0 / 0 where no task has a gradient
        if self.inputs is not None:
            share = torch.where(self.inputs < 0, -share, share)
        positive = share.add_(1.0).mul_(0.5) > _uniform(jacobian)
        if self.inputs is not None:  # back from signs of gradient times activation to those of the gradient
            positive ^= self.inputs < 0
        leaks = [self.leaks[row] for row in self.rows]
        if not any(leaks):
            return torch.where(positive, total + size, total - size).mul_(0.5)
        leaks = jacobian.new_tensor(leaks)
        rest = jacobian * (1.0 - leaks)[:, None]
        kept = torch.where(positive, rest.clamp(min=0).sum(0), rest.clamp(max=0).sum(0))
        return kept + leaks @ jacobian


def _uniform(jacobian: Tensor) -> Tensor:
    """One uniform number for each column, drawn on its device by a generator that the CPU's one seeds."""
    seed = int(torch.randint(2**62, ()))
    generator = torch.Generator(jacobian.device).manual_seed(seed)
    return torch.rand(jacobian.shape[1], dtype=jacobian.dtype, device=jacobian.device, generator=generator)
