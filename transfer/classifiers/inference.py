"""Visual similarity of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.classifiers.base import SIMILARITIES, Classes, Similarity


@SIMILARITIES.register("inference")
class Inference(Similarity):
    """How well an output of the source network tells images of a target class: its F-score.

    sim(i, j) is the F-score of output j for discriminating class i on the training images of the task (Pascal 2021,
    section A.3.1). Output j says yes to the images that the source network takes for class j.
    """

    @torch.no_grad()
    def similarities(self, classes: Classes) -> Tensor:
        counts = None
        for images, labels in classes.batches():
            logits = classes.source(images)
            if counts is None:
                counts = torch.zeros(len(classes.target_names), logits.shape[1], dtype=torch.float64)
            known = labels >= 0
            pairs = labels[known].cpu(), logits.argmax(1)[known].cpu()
            counts.index_put_(pairs, torch.ones(len(pairs[0]), dtype=torch.float64), accumulate=True)
        if counts is None:  # no image for this process
            counts = torch.zeros(len(classes.target_names), len(classes.source.get_classifier().weight),
                                 dtype=torch.float64)
        device = next(classes.source.parameters()).device
        return f_scores(classes.pool(counts.to(device)).cpu())


def f_scores(counts: Tensor) -> Tensor:
    """F-scores ``[N, M]`` of "is taken for j" as a test for "is of class i".

    2·TP / (2·TP + FP + FN) = 2 n_ij / (n_i· + n_·j).

    Args:
        counts: n_ij ``[N, M]``, images of class i that are taken for j.
    """
    total = counts.sum(1, keepdim=True) + counts.sum(0, keepdim=True)
    return 2 * counts / total.clamp_min(1)
