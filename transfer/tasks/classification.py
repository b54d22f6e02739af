"""Classification of images."""

from __future__ import annotations

from typing import Literal

from harness.errors import UserError
from transfer.tasks.base import TASKS
from transfer.tasks.scene import Scene


@TASKS.register("classification")
class Classification(Scene):
    """What an image shows, one of several classes, −1 where unknown: cross-entropy, accuracy.

    Args:
        focal: γ of the focal loss; 0 is cross-entropy.
        primary: the metric that stands for the task: accuracy, F1, or AUC where classes are of very unequal size.
    """

    def __init__(self, focal: float = 0.0, primary: Literal["accuracy", "F1", "AUC"] = "accuracy") -> None:
        super().__init__(focal)
        if primary not in ("accuracy", "F1", "AUC"):
            raise UserError(f"classification: primary '{primary}' is unknown: choose accuracy, F1 or AUC")
        self.primary = primary
