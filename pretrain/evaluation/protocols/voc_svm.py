"""Linear support vector machines on frozen features, as on VOC 2007."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UserError
from harness.report import pyplot, save_figure
from pretrain.evaluation.average_precision import AVERAGES, average_precision
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled
from pretrain.evaluation.linear_svm import svm_scores, train_svms
from pretrain.evaluation.palette import PLAIN
from pretrain.evaluation.samples import Samples, read_samples


@PROTOCOLS.register("voc_svm")
class LinearSVMs(Protocol):
    """One linear support vector machine for each attribute (VOC: object class), measured by average precision.

    Squared hinge loss, L2 regularisation and L2-normalised features, trained to the optimum
    (:func:`pretrain.evaluation.linear_svm.train_svms`); Vandenhende (2022), table 7.4.

    Args:
        cost: C, the weight of the loss against the regularisation.
        positive_weight: times this for images that have the attribute.
        negative_weight: times this for the others.
        difficult: images whose only objects of a class are difficult to recognise; negative counts them as without, as
            the source's program does, ignore leaves them out of training and measuring, as VOC defines.
        average: the average precision that comes first; eleven_points is that of VOC 2007, area that of VOC from 2010.
    """

    needs = "attributes"

    def __init__(self, cost: float = 0.5, positive_weight: float = 2.0, negative_weight: float = 1.0,
                 difficult: Literal["negative", "ignore"] = "negative",
                 average: Literal["eleven_points", "area"] = "eleven_points") -> None:
        for name, value in (("cost", cost), ("positive_weight", positive_weight), ("negative_weight", negative_weight)):
            if not 0 < value < float("inf"):
                raise UserError(f"voc_svm.{name} is {value}: set it above 0")
        self.cost, self.positive_weight, self.negative_weight = cost, positive_weight, negative_weight
        self.difficult, self.average = difficult, average
        order = sorted(AVERAGES, key=lambda kind: kind != average)
        self.columns = {f"map_{kind}": f"SVM mAP, {AVERAGES[kind]} [%]" for kind in order}

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        learn, test = read_samples(features, data, self.needs)
        names = data.names[self.needs]
        positive, counted = self._labels(learn)
        weights = self.cost * counted * np.where(positive, self.positive_weight, self.negative_weight)
        weight, bias = train_svms(learn.features, positive, weights, device=features.device)
        scores = svm_scores(test.features, weight, bias)
        relevant, judged = self._labels(test)
        each = [average_precision(scores[judged[:, a], a], relevant[judged[:, a], a]) for a in range(len(names))]
        average = {kind: 100 * np.array([one[kind] for one in each]) for kind in AVERAGES}
        absent = [name for name, value in zip(names, average[self.average], strict=True) if np.isnan(value)]
        if len(absent) == len(names):
            raise UserError(f"voc_svm: no image of the split '{test.split}' has any of the {len(names)} attributes: "
                            "choose another split")
        found = Finding({metric: float(np.nanmean(average[metric.removeprefix("map_")])) for metric in self.columns})
        if absent:
            found.remarks.append(f"not in the mean, since no test image has it: {', '.join(absent)}")
        if difficult := int((learn.labels < 0).sum() + (test.labels < 0).sum()):
            treated = "count as negatives" if self.difficult == "negative" else "are left out"
            found.remarks.append(f"{difficult} labels are difficult and {treated}")
        share = 100 * (relevant & judged).sum(0) / np.maximum(judged.sum(0), 1)
        kinds = [metric.removeprefix("map_") for metric in self.columns]
        rows = [(name, *(f"{average[kind][a]:.1f}" for kind in kinds), f"{share[a]:.1f}",
                 int((positive & counted)[:, a].sum()), int((relevant & judged)[:, a].sum()))
                for a, name in enumerate(names)]
        found.tables = {"average precision": (
            ("attribute", *(f"AP, {AVERAGES[kind]} [%]" for kind in kinds), "share of the test images [%]",
             "training images", "test images"), rows)}
        found.figures.append(self._draw(folder / "average_precision.png", names, average[self.average], share))
        return found

    def _labels(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Which images have each attribute and which count for it, both bool ``[N, A]``."""
        counted = samples.labels >= 0 if self.difficult == "ignore" else np.ones(samples.labels.shape, bool)
        return samples.labels == 1, counted

    def _draw(self, path: Path, names: tuple[str, ...], average: np.ndarray, share: np.ndarray) -> tuple[Path, str]:
        plt = pyplot()
        order = np.argsort(np.where(np.isnan(average), np.inf, -average), kind="stable")[::-1]
        figure, axis = plt.subplots(figsize=(8.2, 0.29 * len(names) + 1.1))
        places = np.arange(len(names))
        axis.barh(places, np.nan_to_num(average[order]), color=PLAIN, height=0.72)
        axis.scatter(share[order], places, marker="|", s=110, color="black", linewidths=2, zorder=3, label="by chance")
        for place, number in enumerate(order):
            value = average[number]
            axis.text(101, place, f"{value:.1f}" if np.isfinite(value) else "–", va="center", fontsize=8)
        axis.set_yticks(places, [names[number].replace("_", " ") for number in order], fontsize=9)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_xlim(0, 100)
        axis.set_xlabel(f"average precision, {AVERAGES[self.average]} [%]")
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        return save_figure(figure, path), (
            f"Average precision ({AVERAGES[self.average]}) of each attribute; the black mark is what chance gives: the "
            "share of the test images that have it")
