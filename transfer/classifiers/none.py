"""No similarity."""

from __future__ import annotations

from torch import Tensor

from transfer.classifiers.base import SIMILARITIES, Classes, Similarity


@SIMILARITIES.register("none")
class NoSimilarity(Similarity):
    """Heads begin from random weights."""

    def similarities(self, classes: Classes) -> Tensor:
        raise NotImplementedError("nothing is compared")
