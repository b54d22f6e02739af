"""A map of an embedding: one point for each image."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from harness.errors import UserError
from harness.report import pyplot, save_figure
from harness.seeding import derive_seed
from pretrain.evaluation.colours import class_colours
from pretrain.evaluation.samples import unit_rows

MOST = 20
"""Classes that have a colour of their own."""


def project(features: np.ndarray, projection: str, seed: int) -> tuple[np.ndarray, str]:
    """L2-normalised features in two dimensions.

    Args:
        features: ``[N, C]``.
        projection: ``pca``, or ``tsne`` by scikit-learn, started from the two principal components.
        seed: of what is random in it.

    Returns:
        float ``[N, 2]``, and how it was made, in words.
    """
    rows = unit_rows(features)
    rows -= rows.mean(0)
    ranks = min(8, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "embedding map"))
        _, sizes, axes = torch.pca_lowrank(rows, q=ranks, center=False, niter=8)
    axes = axes[:, :2]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # which is left and up must not be chance
    points = torch.nn.functional.pad(rows @ axes, (0, 2 - axes.shape[1])).numpy()
    if projection == "tsne":
        return _tsne(rows.numpy(), points, seed), "t-SNE"
    share = float(sizes[:2].square().sum() / rows.square().sum().clamp_min(1e-30))
    return points, f"first two principal components ({100 * share:.0f} % of the variance)"


def check_projection(projection: str) -> None:
    """Refuse a projection whose library is not there.

    Raises:
        UserError: it is not.
    """
    if projection == "tsne" and find_spec("sklearn") is None:
        raise UserError("knn.projection is 'tsne', but scikit-learn is not installed: install it, or set "
                        "knn.projection to pca")


def _tsne(rows: np.ndarray, start: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    return TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init=start.astype(np.float32),
                random_state=derive_seed(seed, "t-SNE") % 2**32).fit_transform(rows)


def draw_map(path: Path, points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Path:
    """Draw points coloured by class; beyond 20 classes the most frequent ones, and the others grey.

    Args:
        path: of the picture.
        points: ``[N, 2]``.
        labels: int ``[N]``.
        names: of the classes.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9.5, 6.2))
    count = np.bincount(labels, minlength=len(names))
    shown = np.sort(np.argsort(-count, kind="stable")[:MOST])
    size = float(np.clip(6000 / len(points), 6, 28))
    rest = ~np.isin(labels, shown)
    if rest.any():
        axis.scatter(*points[rest].T, s=size / 2, color="#d0d0d0", linewidths=0, label="other classes")
    colours = class_colours(len(names)) / 255
    for number in shown:
        if count[number]:
            axis.scatter(*points[labels == number].T, s=size, color=colours[number], alpha=0.8, linewidths=0,
                         label=names[number].replace("_", " "))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, markerscale=1.6,
                ncols=2 if len(shown) > 14 else 1)
    return save_figure(figure, path)
