"""Class activation maps of a linear classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.report import pyplot, save_figure
from harness.seeding import numpy_generator
from pretrain.evaluation.activation_maps import activation_maps, coverage, interpolate
from pretrain.evaluation.average_precision import average_precision
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.dense import DenseFeatures, check_dense_options
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import IGNORED, Labelled, LabelledImages
from pretrain.evaluation.linear_svm import svm_scores, train_svms

_SHOWN = 6


@dataclass
class _Pair:
    """A test image and a class that it shows: its map, and shares of the object in percent."""

    image: int
    place: int
    map: Tensor
    covered: float
    random: float
    middle: float
    possible: float


@PROTOCOLS.register("cam")
class ClassActivationMaps(Protocol):
    """Does the evidence for a class cover its whole object? (Vandenhende, 2022, figure 7.7)

    For each class a linear support vector machine, as those of the protocol voc_svm, learns from the mean of an image's
    map whether the class is anywhere in its mask. The machine's weights times the map are the class activation map;
    measured is the share of the class's pixels that lie under the map's highest pixels, averaged over all pairs of an
    image and a class that it shows.

    Args:
        top: share of an image's pixels that are the highest ones.
        pairs: true takes all classes that an image shows, predicted those of them that the machines find.
        most: classes that a larger share of the training images show are left out: there is nothing to tell them by.
        cost: C of the machines, the weight of the loss against the regularisation.
        layer: stage whose map it is: its module's name, or its place counted from the end.
        resize: side that an image's shorter side is brought to for the network; 0 leaves it.
        output_stride: pixels between two places of the network's last map, reached by dilation; as the network is when
            none.
        batch_size: images of one size at once.
    """

    needs = "mask"
    columns: Mapping[str, str] = {"covered": "CAM covers [%]"}
    descriptive = frozenset({"random", "middle", "possible", "pairs"})

    def __init__(self, top: float = 0.2, pairs: Literal["true", "predicted"] = "true", most: float = 0.9,
                 cost: float = 0.5, layer: str = "-1", resize: int = 0, output_stride: int | None = None,
                 batch_size: int = 16) -> None:
        for name, value, high in (("top", top, 1.0), ("most", most, 1.0), ("cost", cost, float("inf"))):
            if not 0 < value < high:
                between = "above 0" if high > 1 else "between 0 and 1"
                raise UserError(f"cam.{name} is {value}: set it {between}")
        if pairs not in ("true", "predicted"):
            raise UserError(f"cam.pairs is '{pairs}': choose true or predicted")
        check_dense_options("cam", resize, output_stride, batch_size)
        self.top, self.pairs, self.most, self.cost = top, pairs, most, cost
        self.dense = {"layer": layer, "resize": resize, "output_stride": output_stride, "batch_size": batch_size}

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        names = data.names["mask"]
        dense = DenseFeatures(features, **self.dense)
        learn, test = data.split(data.learn), data.split(data.test)
        means, shown = _read(dense, learn, len(names))
        share = shown.mean(0)
        kept = np.flatnonzero((share > 0) & (share <= self.most))
        if not len(kept):
            raise UserError(f"cam: no class is in some of the masks of '{data.learn}' and at most {self.most:.0%} of "
                            "them: give more images, or raise cam.most")
        shown = shown[:, kept]
        weight, bias = train_svms(means, shown, self.cost * np.where(shown, 2.0, 1.0), device=features.device)
        found, scores, truth = self._pairs(dense, test, len(names), kept, weight, bias, seed)
        if not found:
            raise UserError(f"cam: no image of '{data.test}' shows a class that "
                            f"{'is learnt' if self.pairs == 'true' else 'the machines find there'}: give more images")
        places = np.array([pair.place for pair in found])
        values = {name: np.array([getattr(pair, name) for pair in found])
                  for name in ("covered", "random", "middle", "possible")}
        precision = [average_precision(scores[:, place], truth[:, place])["area"] for place in range(len(kept))]
        metrics = {name: float(value.mean()) for name, value in values.items()} | {
            "classifier_map": float(100 * np.nanmean(precision)), "pairs": float(len(found))}
        left = [name for number, name in enumerate(names) if number not in kept]
        remarks = [
            f"covered: the highest {self.top:.0%} of the pixels of a map contain this share of the class's pixels, on "
            f"average over {len(found)} pairs of an image and a class. Those of a random map of the same size contain "
            f"{metrics['random']:.1f} % (interpolated maps are more extreme at their borders), as many "
            f"in the middle of the image {metrics['middle']:.1f} %, and no map could reach more than "
            f"{metrics['possible']:.1f} %, since large objects have more pixels.",
            f"classifier_map: mean average precision (area) of the classifiers on the {len(test)} test images.",
        ]
        if left:
            remarks.append(f"left out, since no training image or more than {self.most:.0%} of them show it: "
                           f"{', '.join(left)}.")
        rows = [(names[number], int((places == place).sum()), *(_percent(values[name][places == place]) for name in
                 ("covered", "middle", "possible")), f"{100 * precision[place]:.1f}")
                for place, number in enumerate(kept)]
        figure = self._draw(folder / "cam.png", found, names, kept, test, numpy_generator(seed, "cam pictures"))
        return Finding(metrics, [figure], remarks=remarks, tables={"coverage of each class": (
            ("class", "images", "covered [%]", "middle [%]", "possible [%]", "average precision [%]"), rows)})

    def _pairs(self, dense: DenseFeatures, test: LabelledImages, classes: int, kept: np.ndarray, weight: Tensor,
               bias: Tensor, seed: int) -> tuple[list[_Pair], np.ndarray, np.ndarray]:
        """The pairs, and of every image the machines' scores and whether the classes are there, ``[N, kept]``."""
        found, scores, truth = [], np.empty((len(test), len(kept))), np.zeros((len(test), len(kept)), bool)
        for seen in dense(test, classes):
            size, device = seen.mask.shape, seen.features.device
            mean = seen.features.double().mean((1, 2))[None].cpu().numpy()
            scores[seen.number] = svm_scores(mean, weight, bias)[0]
            truth[seen.number] = np.isin(kept, seen.mask)
            wanted = truth[seen.number] & ((scores[seen.number] > 0) | (self.pairs == "true"))
            places = np.flatnonzero(wanted)
            if not len(places):
                continue
            objects = torch.from_numpy(np.stack([seen.mask == kept[place] for place in places])).to(device)
            maps = activation_maps(seen.features, weight.T[torch.from_numpy(places)])
            noise = numpy_generator(seed, "random map", seen.number).standard_normal(maps.shape)
            middle = -sum(np.square(((np.arange(side) + 0.5) / side - 0.5)[tuple(
                slice(None) if axis == own else None for axis in range(2))]) for own, side in enumerate(size))
            shares = [coverage(each, objects, self.top).cpu().numpy() * 100 for each in (
                interpolate(maps, size), interpolate(torch.from_numpy(noise).to(device), size),
                torch.from_numpy(middle).to(device).expand(len(places), -1, -1))]
            room = max(1, round(self.top * seen.mask.size))
            possible = (room / objects.sum((1, 2)).double()).clamp(max=1).cpu().numpy() * 100
            found += [_Pair(seen.number, int(place), each.cpu(), *map(float, rest)) for place, each, *rest in
                      zip(places, maps, *shares, possible, strict=True)]
        return found, scores, truth

    def _draw(self, path: Path, found: list[_Pair], names: tuple[str, ...], kept: np.ndarray, test: LabelledImages,
              generator: np.random.Generator) -> tuple[Path, str]:
        plt = pyplot()
        chosen, classes = [], set()
        for index in generator.permutation(len(found)).tolist():
            if found[index].place not in classes:
                classes.add(found[index].place)
                chosen.append(found[index])
        chosen = sorted(chosen[:_SHOWN], key=lambda pair: pair.place)
        rows = -(-len(chosen) // 2)
        images = [test.image(pair.image) for pair in chosen]
        height = max(11 / 6 * image.shape[0] / image.shape[1] for image in images) + 0.3
        figure, axes = plt.subplots(rows, 6, figsize=(11, height * rows), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for pair, image, line in zip(chosen, images, axes.reshape(-1, 3), strict=False):
            mask = test.mask(pair.image)
            large = interpolate(pair.map[None], mask.shape)[0].numpy()
            border = np.partition(large.ravel(), -max(1, round(self.top * large.size)))[
                -max(1, round(self.top * large.size))]
            line[0].imshow(image)
            line[0].set_title(names[kept[pair.place]], fontsize=11, pad=3)
            line[1].imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            line[1].imshow(large, cmap="inferno", alpha=0.6)
            if large.max() > large.min():
                line[1].contour(large, [border], colors="white", linewidths=1.3, linestyles="solid")
            line[1].set_title(f"covers {pair.covered:.0f} %", fontsize=11, pad=3)
            line[2].imshow(np.where((mask == kept[pair.place])[..., None], image, 255 - (255 - image) // 5))
            line[2].set_title("the object", fontsize=11, pad=3)
        figure.tight_layout(pad=0.4)
        return save_figure(figure, path), (
            f"Test images drawn at random, each with another class: the image; the class activation map (bright: "
            f"evidence for the class), with a line round its highest {self.top:.0%}, and the share of the object that "
            "they cover; the pixels of the class.")


def _read(dense: DenseFeatures, images: LabelledImages, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each image's map, float32 ``[N, C]``, and which classes its mask has, bool ``[N, classes]``."""
    means, shown = [], np.zeros((len(images), classes), bool)
    for seen in dense(images, classes):
        means.append(seen.features.double().mean((1, 2)).float().cpu().numpy())
        there = np.unique(seen.mask)
        shown[seen.number, there[there != IGNORED]] = True
    return np.stack(means), shown


def _percent(values: np.ndarray) -> str:
    return f"{values.mean():.1f}" if len(values) else "–"
