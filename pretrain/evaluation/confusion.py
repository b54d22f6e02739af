"""What is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.report import pyplot, save_figure


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class (rows) are predicted to be of each (columns), int64 ``[classes, classes]``."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def draw_confusion(path: Path, counts: np.ndarray, names: Sequence[str]) -> Path:
    """Draw the percentage of each class that is predicted to be of each.

    Args:
        path: of the picture.
        counts: from :func:`confusion_matrix`.
        names: of the classes.
    """
    plt = pyplot()
    classes = len(names)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.52 * classes, 4, 11))
    figure, axis = plt.subplots(figsize=(side + 1.2, side))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    labels = [name.replace("_", " ") for name in names]
    size = 9 if classes <= 20 else 7
    axis.set_xticks(range(classes), labels, rotation=45 if classes <= 12 else 90, fontsize=size,
                    ha="right" if classes <= 12 else "center", rotation_mode="anchor" if classes <= 12 else "default")
    axis.set_yticks(range(classes), labels, fontsize=size)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true class")
    for row, column in zip(*np.nonzero(counts), strict=True):
        if share[row, column] >= 0.5:
            axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=size - 1,
                      color="white" if share[row, column] > 55 else "#333333")
    figure.colorbar(image, ax=axis, label="% of the true class", fraction=0.046, pad=0.03)
    return save_figure(figure, path)


def most_confused(counts: np.ndarray, names: Sequence[str], most: int = 15) -> list[tuple[object, ...]]:
    """The most frequent mistakes: class, taken for, how many of it, percent of the class."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(number, wrong.shape) for number in order]
    return [(names[row], names[column], int(wrong[row, column]), f"{100 * wrong[row, column] / counts[row].sum():.1f}")
            for row, column in pairs if wrong[row, column]]
