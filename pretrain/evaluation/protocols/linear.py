"""Linear classification of frozen features."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from safetensors.torch import save

from harness.errors import UserError
from harness.files import write_atomically
from harness.report import pyplot, save_figure
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.confusion import confusion_matrix, draw_confusion, most_confused
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled
from pretrain.evaluation.linear_grid import hold_out, score_heads, train_heads
from pretrain.evaluation.samples import Samples, accuracies, read_samples

MOST_CLASSES = 40
"""A confusion matrix of more would not be legible."""


@PROTOCOLS.register("linear")
class LinearClassifier(Protocol):
    """Logistic regression on frozen pooled features, without augmentation.

    A grid of learning rates and weight decays is trained at once in one pass over the features. The point that is
    best on images held out of the training split is then trained again on all of that split; the test split is only
    measured.
    Features are standardised, and the optimiser is SGD with momentum .9 and half a cosine
    (:func:`pretrain.evaluation.linear_grid.train_heads`).

    Args:
        learning_rate: those of the grid.
        weight_decay: those of the grid.
        epochs: passes over the features.
        batch_size: images of a step.
        holdout: share of the training split, alike in every class, that the grid's point is chosen on.
    """

    needs = "class"
    columns = {"mean_per_class": "linear class mean [%]", "top1": "linear [%]", "top5": "linear top 5 [%]"}

    def __init__(self, learning_rate: list[float] = (0.001, 0.003, 0.01, 0.03, 0.1),
                 weight_decay: list[float] = (0.0, 1e-3, 1e-2, 1e-1), epochs: int = 100, batch_size: int = 256,
                 holdout: float = 0.1) -> None:
        if not learning_rate or min(learning_rate) <= 0:
            raise UserError(f"linear.learning_rate is {list(learning_rate)}: give numbers above 0")
        if not weight_decay or min(weight_decay) < 0:
            raise UserError(f"linear.weight_decay is {list(weight_decay)}: give numbers of 0 or more")
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"linear.{name} is {value}: set it to 1 or more")
        if not 0 < holdout < 1:
            raise UserError(f"linear.holdout is {holdout}: set it between 0 and 1")
        self.learning_rate, self.weight_decay = sorted(set(learning_rate)), sorted(set(weight_decay))
        self.epochs, self.batch_size, self.holdout = epochs, batch_size, holdout

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        learn, test = read_samples(features, data, self.needs)
        names = data.names[self.needs]
        options = {"epochs": self.epochs, "batch_size": self.batch_size, "seed": seed, "device": features.device}
        grid = list(itertools.product(self.learning_rate, self.weight_decay))
        found = Finding({})
        chosen = 0
        if len(grid) > 1:
            right = self._try(learn, grid, data.mean_per_class, len(names), found, options)
            chosen = int(np.nanargmax(right))
            right = right.reshape(len(self.learning_rate), len(self.weight_decay))
            found.figures.append(self._draw_grid(folder / "grid.png", 100 * right, data.mean_per_class))
            found.remarks += self._edges(*np.unravel_index(chosen, right.shape))
        rate, decay = grid[chosen]
        found.remarks.insert(0, f"learning rate {rate:g}, weight decay {decay:g}")
        heads = train_heads(learn.features, learn.labels, len(names), [grid[chosen]], **options, label="linear")
        best, loss, finite = score_heads(heads, test.features, test.labels)
        if not finite[0]:
            raise UserError(f"linear: the training with learning rate {rate:g} diverged: give smaller ones in "
                            "linear.learning_rate")
        predicted = best[:, 0, 0]
        each = accuracies(predicted, test.labels, len(names))
        if data.mean_per_class:
            found.metrics["mean_per_class"] = 100 * float(np.nanmean(each))
        found.metrics["top1"] = 100 * float((predicted == test.labels).mean())
        if len(names) > 5:
            found.metrics["top5"] = 100 * float((best[:, 0] == test.labels[:, None]).any(1).mean())
        found.metrics |= {"cross_entropy": float(loss[0]), "learning_rate": rate, "weight_decay": decay}
        weight, bias = heads.folded()
        file = folder / "linear.safetensors"
        write_atomically(file, lambda to: to.write(save({"weight": weight.cpu(), "bias": bias.cpu()})))
        found.files.append((file, "weight [classes, channels] and bias of the classifier, for features as they are"))
        counts = confusion_matrix(predicted, test.labels, len(names))
        if len(names) <= MOST_CLASSES:
            found.figures.append((draw_confusion(folder / "confusion.png", counts, names), (
                f"What the {len(test)} test images are taken for, in percent of each true class (row)")))
        if mistakes := most_confused(counts, names):
            found.tables = {"most frequent mistakes": (("class", "taken for", "images", "% of the class"), mistakes)}
        return found

    def _try(self, learn: Samples, grid: list[tuple[float, float]], mean_per_class: bool, classes: int,
             found: Finding, options: dict[str, object]) -> np.ndarray:
        """Accuracy of each point of the grid on the hold-out, ``[G]``; NaN where training diverged.

        Of points that are equally accurate the one with the smaller cross-entropy is made the best by a hair.
        """
        kept, held = hold_out(learn.labels, self.holdout, int(options["seed"]))
        if len(held) < 2 or len(kept) < 2:
            raise UserError(f"linear: a hold-out of {len(held)} of the {len(learn)} training images is too small to "
                            "choose of a grid: use more images, or one learning_rate and one weight_decay, which need "
                            "none")
        heads = train_heads(learn.features, learn.labels, classes, grid, rows=kept, **options,
                            label=f"linear, {len(grid)} heads")
        best, loss, finite = score_heads(heads, learn.features, learn.labels, held, most=1)
        if not finite.any():
            raise UserError(f"linear: the training diverged with every learning rate from {grid[0][0]:g} to "
                            f"{grid[-1][0]:g}: give smaller ones in linear.learning_rate")
        right = best[..., 0] == learn.labels[held][:, None]
        if mean_per_class:
            right = np.stack([right[learn.labels[held] == label].mean(0) for label in np.unique(learn.labels[held])])
        right = np.where(finite, right.mean(0), np.nan)
        found.remarks.append(f"chosen of {len(grid)} points of a grid on {len(held)} images held out of the "
                             f"{len(learn)} training images, then trained on all of these")
        if not finite.all():
            found.remarks.append(f"{int((~finite).sum())} points of the grid diverged")
        return right - 1e-9 * np.argsort(np.argsort(np.where(finite, loss, np.inf)))

    def _edges(self, rate: int, decay: int) -> list[str]:
        """A remark where a wider grid may be better."""
        beyond = []
        if len(self.learning_rate) > 1 and rate in (0, len(self.learning_rate) - 1):
            beyond.append("learning rate")
        if len(self.weight_decay) > 1 and decay == len(self.weight_decay) - 1:
            beyond.append("weight decay")
        return [f"the chosen {what} is at the edge of the grid: one beyond it may be better" for what in beyond]

    def _draw_grid(self, path: Path, right: np.ndarray, mean_per_class: bool) -> tuple[Path, str]:
        plt = pyplot()
        figure, axis = plt.subplots(figsize=(1.05 * len(self.weight_decay) + 2.6, 0.55 * len(self.learning_rate) + 1.4))
        image = axis.imshow(right, cmap="viridis", aspect="auto")
        axis.set_facecolor("#dddddd")
        axis.set_xticks(range(len(self.weight_decay)), [f"{value:g}" for value in self.weight_decay])
        axis.set_yticks(range(len(self.learning_rate)), [f"{value:g}" for value in self.learning_rate])
        axis.set_xlabel("weight decay")
        axis.set_ylabel("learning rate")
        top, low = np.nanmax(right), np.nanmin(right)
        for row, column in np.ndindex(right.shape):
            value = right[row, column]
            dark = np.isfinite(value) and value < low + 0.6 * (top - low)
            text = f"{max(round(value, 4), 0):.1f}" if np.isfinite(value) else "diverged"
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
        row, column = np.unravel_index(np.nanargmax(right), right.shape)
        axis.add_patch(plt.Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="#d7301f",
                                     linewidth=2.5))
        figure.colorbar(image, ax=axis, label="%")
        kind = "class mean accuracy" if mean_per_class else "accuracy"
        return save_figure(figure, path), (f"{kind[0].upper()}{kind[1:]} on the hold-out over the grid; framed: the "
                                           "choice")
