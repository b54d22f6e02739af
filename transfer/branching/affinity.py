"""How alike tasks are: by their networks' representations, and by the examples that are difficult for them."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def task_affinity(dissimilarity: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the representation dissimilarities of any two tasks, at each location.

    Source: Vandenhende 2022, section 4.3.1.

    Args:
        dissimilarity: ``[N, D, pairs]``, of each task and location, for each pair of images.

    Returns:
        ``[D, N, N]``, symmetric, with ones on the diagonal. A task whose network tells no two images apart has
        affinity 0 to all others.
    """
    tasks, locations, _ = dissimilarity.shape
    affinity = np.empty((locations, tasks, tasks))
    for location in range(locations):
        ranks = rankdata(dissimilarity[:, location], axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        length = np.linalg.norm(ranks, axis=-1, keepdims=True)
        ranks /= np.where(length > 0, length, 1)
        affinity[location] = np.clip(ranks @ ranks.T, -1, 1)
        np.fill_diagonal(affinity[location], 1)
    return (affinity + affinity.transpose(0, 2, 1)) / 2


def difficulty_affinity(errors: np.ndarray) -> np.ndarray:
    """Share of the examples that are difficult for both of two tasks, or easy for both.

    An example is difficult for a task when its error is at least the task's mean error (Lu et al.,
    "Fully-adaptive feature sharing in multi-task networks", 2017).

    Args:
        errors: ``[N, K]``, of each task on each example; not a number where it has no label.

    Returns:
        ``[N, N]``, symmetric, with ones on the diagonal; one half where no example has both labels.
    """
    known = np.isfinite(errors)
    means = np.where(known, errors, 0).sum(1) / np.maximum(known.sum(1), 1)
    difficult = known & (np.nan_to_num(errors) >= means[:, None])
    both, hard, easy = (values.astype(float) @ values.T for values in (known, difficult, known & ~difficult))
    affinity = np.where(both > 0, (hard + easy) / np.maximum(both, 1), 0.5)
    np.fill_diagonal(affinity, 1)
    return affinity


def as_dissimilarity(affinity: np.ndarray) -> np.ndarray:
    """1 − affinity: what the clustering cost is made of."""
    return 1 - affinity
