"""Maximum roaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.seeding import numpy_generator
from mtl_heads.model import MultiTaskModel
from transfer.strategies.filter_masks import FilterMasks
from transfer.strategies.filters import FilterLayer
from transfer.strategies.registry import PARTITIONS

Selection = Literal["uniform", "cosine", "diverse"]
# For (filters used, of them those that may be left, those never visited): the one to leave, the one to visit.
Choice = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[int, int]]


@PARTITIONS.register("maximum_roaming")
def maximum_roaming(model: nn.Module, *, seed: int, p: float = 0.8, delta: float = 0.1, completion: float = 1.0,
                    selection: Selection = "uniform") -> nn.Module:
    """A task uses a part of the filters of each shared layer, and roams until it has used all of them.

    Pascal (2021), chapter 3; see :class:`MaximumRoaming`.

    Args:
        p: sharing ratio: the share of the filters of a layer that a task uses at a time; more than 0.
        delta: epochs between two updates, or a fraction of one; at most one update is made after a step.
        completion: share r of the filters that a task does not begin with, after which it stops roaming.
        selection: which filters a task leaves and visits: uniform draws them; cosine leaves the filter least like
            the others in use and visits the one most like them (the equations of section 3.4.3); diverse is
            the contrary, which the text there describes: it leaves the most redundant and visits the least.

    Raises:
        UserError: an option is out of bounds, or the network has no convolutional encoder that all tasks share.
    """
    return MaximumRoaming(model, seed, p, delta, completion, selection).into(model)


class MaximumRoaming(FilterMasks):
    """Masks that change: at update c + 1 every task swaps one filter of each layer for one it never visited.

    With A_t(c) the filters that task t uses and B_t(c) all those that it has ever used (definition 1),

        A_t(c + 1) = A_t(c) \\ {i₋} ∪ {i₊},    i₋ ∈ A_t(c),    i₊ ∉ B_t(c),

    drawn uniformly, until B_t holds all S filters of the layer. So the number of filters in use is constant,
    and a layer is done after S − |A_t(0)| updates (lemma 1); the overlap of tasks is constant on average
    (lemma 2). No filter is left without a task (equation 3.3): i₋ is drawn from those that another task
    uses as well. Tasks move one after another, in an order drawn for each update; one that has no such
    filter waits for the others' moves, and if that does not help for the next update.

    Everything is drawn from the seed, the layer and the number of the update, and an update is due as a
    function of the step: all processes, and resumed runs, do the same.

    Attributes:
        visited: ``[T, N]``, bool: which task has ever used which filter; laid out as :attr:`masks`.
    """

    visited: Tensor

    def __init__(self, model: MultiTaskModel, seed: int, p: float, delta: float, completion: float,
                 selection: Selection) -> None:
        if p == 0:
            raise UserError("partition.p is 0, and so every filter has a single task, which could never leave it: give "
                            "maximum_roaming more than 0")
        if not delta > 0:
            raise UserError(f"partition.delta is {delta}: give the epochs between two updates, or a fraction of one")
        if not 0 <= completion <= 1:
            raise UserError(f"partition.completion is {completion}: give a share from 0 to 1")
        if selection not in ("uniform", "cosine", "diverse"):
            raise UserError(f"partition.selection is {selection!r}: give uniform, cosine or diverse")
        super().__init__(model, seed, p)
        self.seed, self.delta, self.completion, self.selection = seed, delta, completion, selection
        self.register_buffer("visited", self.masks.clone())
        self._on_host: tuple[np.ndarray, np.ndarray] | None = None

    def after_step(self, step: int, steps_per_epoch: int) -> None:
        interval = max(Fraction(1), Fraction(str(self.delta)) * steps_per_epoch)
        number = step // interval
        if number > (step - 1) // interval:
            self.update(number)

    @torch.no_grad()
    def update(self, number: int) -> None:
        """One update of all layers.

        Args:
            number: of the update; different ones draw differently.
        """
        if self._on_host is None:  # then kept, so that nothing is fetched from the device again
            self._on_host = tuple(np.array(value.cpu()) for value in (self.masks, self.visited))
        masks, visited = self._on_host
        if visited.all():
            return
        for layer, span in zip(self.layers, self.spans, strict=True):
            if not visited[:, span].all():
                generator = numpy_generator(self.seed, "roaming", layer.name, number)
                order = generator.permutation(len(self.tasks))
                roam(masks[:, span], visited[:, span], self._choice(layer, generator), order, self.completion)
        self.masks.copy_(torch.from_numpy(masks))
        self.visited.copy_(torch.from_numpy(visited))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._on_host = None

    def log_values(self) -> dict[str, Any]:
        """``visited``: the share of the filters that a task has used so far, its mean over the tasks."""
        return {"visited": float(self.visited.float().mean())}

    def _choice(self, layer: FilterLayer, generator: np.random.Generator) -> Choice:
        if self.selection == "uniform":
            return lambda used, leaving, unseen: (int(generator.choice(leaving)), int(generator.choice(unseen)))
        sign = 1.0 if self.selection == "cosine" else -1.0
        kernels = nn.functional.normalize(layer.kernels(), dim=1)
        cosines = sign * (kernels @ kernels.T).numpy()

        def choose(used: np.ndarray, leaving: np.ndarray, unseen: np.ndarray) -> tuple[int, int]:
            likeness = cosines[:, used].sum(1)
            others = likeness - cosines.diagonal()  # a filter in use is not compared with itself
            return int(leaving[others[leaving].argmin()]), int(unseen[likeness[unseen].argmax()])

        return choose


def roam(masks: np.ndarray, visited: np.ndarray, choose: Choice, order: Iterable[int], completion: float = 1.0) -> None:
    """One update of one layer, in place; see :class:`MaximumRoaming`.

    Args:
        masks: ``[T, S]``, bool.
        visited: ``[T, S]``, bool.
        choose: which filters a task leaves and visits.
        order: of the tasks.
        completion: share of the filters not used at first after which a task stops.
    """
    filters = masks.shape[1]
    waiting = []
    for task in order:
        used = int(masks[task].sum())
        if visited[task].sum() - used < int(completion * (filters - used) + 1e-9):
            waiting.append(task)
    while waiting:
        stuck = []
        for task in waiting:
            leaving = np.flatnonzero(masks[task] & (masks.sum(0) > 1))
            if not len(leaving):
                stuck.append(task)
                continue
            left, new = choose(np.flatnonzero(masks[task]), leaving, np.flatnonzero(~visited[task]))
            masks[task, left], masks[task, new], visited[task, new] = False, True, True
        if stuck == waiting:
            return
        waiting = stuck
