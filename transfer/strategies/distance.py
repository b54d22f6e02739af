"""How far training goes through the space of the shared parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class CoveredDistance:
    """Covered distance and shortest path (Pascal 2021, section 4.3.4 and table 4.4).

    The covered distance is Σ_k ‖w_k − w_{k−1}‖ over all update steps, several of them on one batch where a schedule
    takes the tasks apart; the shortest path is ‖w_K − w_0‖. Their ratio says how much a schedule explores on its
    way. Two copies of the parameters are held; the device is waited for in :meth:`log_values` alone.

    Args:
        parameters: the shared parameters; those that are frozen from the beginning are left out.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = [value for value in parameters if value.requires_grad]
        self.start = [value.detach().clone() for value in self.parameters]
        self._before = [torch.empty_like(value) for value in self.start]
        device = self.start[0].device if self.start else torch.device("cpu")
        # A sum of very many small terms; not every device knows float64.
        self.covered = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one update step."""
        if not self.parameters:
            yield
            return
        values = [value.detach() for value in self.parameters]
        torch._foreach_copy_(self._before, values)
        yield
        torch._foreach_sub_(self._before, values)
        self.covered += _norm(self._before).to(self.covered)

    def log_values(self) -> dict[str, float]:
        """``covered_distance``, ``shortest_path`` and ``distance_ratio``; nothing where no parameter is shared."""
        if not self.parameters:
            return {}
        shortest = _norm(torch._foreach_sub([value.detach() for value in self.parameters], self.start))
        covered, shortest = torch.stack([self.covered, shortest.to(self.covered)]).tolist()
        ratio = covered / shortest if shortest else math.nan
        return {"covered_distance": covered, "shortest_path": shortest, "distance_ratio": ratio}

    def state_dict(self) -> dict[str, Any]:
        """Where it began, and what was covered."""
        return {"start": list(self.start), "covered": self.covered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: it is of other parameters.
        """
        shapes = [list(value.shape) for value in state["start"]]
        if shapes != [list(value.shape) for value in self.start]:
            raise ValueError("the covered distance is that of other shared parameters")
        for mine, value in zip(self.start, state["start"], strict=True):
            mine.copy_(value)
        self.covered.copy_(state["covered"])


def _norm(values: Sequence[Tensor]) -> Tensor:
    """Frobenius norm of all of them together."""
    return torch.stack([norm.float() for norm in torch._foreach_norm(values)]).norm()
