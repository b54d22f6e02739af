"""What every multi-task network returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Predictions of one batch.

    A named tuple, so that distributed wrappers, compilers and tree functions see the tensors in it.

    Args:
        predictions: for each main task ``[B, C, H, W]`` at the asked size, or ``[B, C]`` for an image task.
        intermediate: predictions made on the way, for deep supervision; each entry has some of the
            tasks (auxiliary ones are only here), resized like the predictions. The loss of each
            counts with the weight of its task. Networks that make them of main tasks do so in training
            mode, or when they are called with ``intermediate=True``.
    """

    predictions: dict[str, Tensor]
    intermediate: list[dict[str, Tensor]]

    def of(self, task: str) -> list[Tensor]:
        """What the loss of ``task`` is computed from: its prediction, then its intermediate ones."""
        return [maps[task] for maps in (self.predictions, *self.intermediate) if task in maps]
