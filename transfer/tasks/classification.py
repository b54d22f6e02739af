"""Classification of images."""

from __future__ import annotations

from transfer.tasks.base import TASKS
from transfer.tasks.scene import Scene


@TASKS.register("classification")
class Classification(Scene):
    """What an image shows, one of several classes, −1 where unknown: cross-entropy, accuracy.

    Args:
        focal: γ of the focal loss; 0 is cross-entropy.
    """
