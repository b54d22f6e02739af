"""Semantic segment retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import UserError, closest
from harness.seeding import numpy_generator
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.dense import DenseFeatures, check_dense_options
from pretrain.evaluation.features import Features
from pretrain.evaluation.k_means import k_means
from pretrain.evaluation.labelled import Labelled, LabelledImages
from pretrain.evaluation.nearest import nearest
from pretrain.evaluation.segment_pictures import draw_neighbours, draw_segments
from pretrain.evaluation.segments import Segments, class_ious, majority
from pretrain.evaluation.spread import spread
from pretrain.neighbors import TorchSearch

PUBLISHED = ("aeroplane", "bottle", "bus", "car", "cat", "cow", "person")
"""The 7 classes of table 7.6."""
_PANELS, _QUERIES, _SHOWN = 4, 6, 5


@PROTOCOLS.register("segment_retrieval")
class SegmentRetrieval(Protocol):
    """Each segment takes the class of the most similar training segment (Vandenhende, 2022, table 7.6).

    Segments are the clusters of a k-means of the network's map of an image, interpolated bilinearly; they are compared
    by the cosine of the mean features of their pixels. A training segment is of the class that most of its labelled
    pixels have, and does not count when it has none.

    Args:
        clusters: K, segments of an image.
        layer: stage whose map is clustered: its module's name, or its place counted from the end.
        stride: pixels between two places of the interpolated map, of which each decides for a square of pixels; the
            published text says nothing, and 4 is finer than any map.
        resize: side that an image's shorter side is brought to for the network; 0 leaves it.
        output_stride: pixels between two places of the network's own last map, reached by dilation; as the network is
            when none.
        unit_length: give every pixel's features length 1 before they are clustered and averaged.
        iterations: of k-means, at most.
        subset: classes of the second figure; those of the published table when none, where the data has them.
        batch_size: images of one size at once.
    """

    needs = "mask"
    columns: Mapping[str, str] = {"miou": "Segments mIoU [%]", "miou_subset": "Segments mIoU, subset [%]"}
    descriptive = frozenset({"majority"})

    def __init__(self, clusters: int = 15, layer: str = "-1", stride: int = 4, resize: int = 0,
                 output_stride: int | None = None, unit_length: bool = False, iterations: int = 50,
                 subset: list[str] | None = None, batch_size: int = 16) -> None:
        for name, value, most in (("clusters", clusters, 255), ("stride", stride, None),
                                  ("iterations", iterations, None)):
            if value < 1 or most and value > most:
                raise UserError(f"segment_retrieval.{name} is {value}: set it to 1 or more"
                                f"{f', at most {most}' if most else ''}")
        check_dense_options("segment_retrieval", resize, output_stride, batch_size)
        self.clusters, self.stride, self.unit_length, self.iterations = clusters, stride, unit_length, iterations
        self.subset = subset
        self.dense = {"layer": layer, "resize": resize, "output_stride": output_stride, "batch_size": batch_size}

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        names = data.names["mask"]
        chosen = self._chosen(names)
        dense = DenseFeatures(features, **self.dense)
        learn, test = data.split(data.learn), data.split(data.test)
        known = self._segments(dense, learn, Segments(folder, len(names), labelled=True), (seed, data.learn))
        if not len(known):
            raise UserError(f"no pixel of the split '{data.learn}' has a class: there is nothing to retrieve")
        asked = self._segments(dense, test, Segments(folder, len(names)), (seed, data.test))
        labels, truth = majority(known.counts()), majority(asked.counts())
        if not (truth >= 0).any():
            raise UserError(f"no pixel of the split '{data.test}' has a class: there is nothing to measure by")
        _, found = nearest(TorchSearch(), asked.descriptors(), known.descriptors(), 1, features.device)
        predicted = labels[found[:, 0].numpy()]
        ious = class_ious(asked.counts(), predicted)
        own = class_ious(asked.counts(), np.maximum(truth, 0))
        metrics = {"miou": _mean(ious)}
        if chosen:
            metrics["miou_subset"] = _mean(ious[chosen])
        metrics["majority"] = _mean(own)
        missing = [name for name, iou in zip(names, ious, strict=True) if np.isnan(iou)]
        remarks = ["majority: mIoU if every segment were given the class that most of its own pixels have; "
                   f"{len(truth)} segments of {len(test)} images, {len(known)} of {len(learn)} to choose from."]
        if chosen:
            remarks.append(f"subset: {', '.join(names[index] for index in chosen)}.")
        if missing:
            remarks.append(f"neither in the masks nor predicted, and left out of the mean: {', '.join(missing)}.")
        rows = [(name, _percent(iou), _percent(best)) for name, iou, best in zip(names, ious, own, strict=True)]
        return Finding(metrics, self._figures(folder, seed, names, learn, test, known, asked, labels, truth, predicted,
                                              features), remarks=remarks,
                       tables={"IoU of each class": (("class", "IoU [%]", "by majority [%]"), rows)})

    def _chosen(self, names: tuple[str, ...]) -> list[int]:
        """Numbers of the classes in the subset."""
        if self.subset is None:
            return [names.index(name) for name in PUBLISHED] if set(PUBLISHED) <= set(names) else []
        for name in self.subset:
            if name not in names:
                raise UserError(f"segment_retrieval.subset: there is no class '{name}'{closest(name, names)}: the data "
                                f"has {', '.join(names)}")
        return [names.index(name) for name in self.subset]

    def _segments(self, dense: DenseFeatures, images: LabelledImages, found: Segments,
                  seeds: tuple[object, ...]) -> Segments:
        for seen in dense(images, found.classes):
            size = tuple(-(-side // self.stride) for side in seen.mask.shape)
            clusters = k_means(seen.features, size, self.clusters, numpy_generator("k-means", *seeds, seen.number),
                               self.iterations, self.unit_length)
            found.add(clusters.assignment.cpu().numpy(), seen.mask, clusters.means(seen.features))
        return found

    def _figures(self, folder: Path, seed: int, names: tuple[str, ...], learn: LabelledImages, test: LabelledImages,
                 known: Segments, asked: Segments, labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray,
                 features: Features) -> list[tuple[Path, str]]:
        members, of_known = asked.members(), known.members()
        panels = []
        for number in spread(len(test), _PANELS):
            segments = asked.map(number)
            given = predicted[members[:, 0] == number]
            panels.append((test.image(number), segments, given[segments].astype(np.uint8), test.mask(number)))
        queries = _one_of_each_class(truth, numpy_generator(seed, "retrieval grid"))
        rows = []
        _, similar = nearest(TorchSearch(), asked.descriptors()[queries], known.descriptors(),
                             min(_SHOWN, len(known)), features.device)
        for query, neighbours in zip(queries, similar.tolist(), strict=True):
            image, segment = members[query].tolist()
            row = [(test.image(image), asked.map(image) == segment, names[truth[query]], None)]
            for place in neighbours:
                image, segment = of_known[place].tolist()
                row.append((learn.image(image), known.map(image) == segment, names[labels[place]],
                            bool(labels[place] == truth[query])))
            rows.append(row)
        return [
            (draw_segments(panels, names, folder / "segments.png"),
             "Images of the test split, their segments, the class that each segment took from the most similar "
             "training segment, and the truth; white counts for nothing."),
            (draw_neighbours(rows, folder / "neighbours.png"),
             "Left: segments of the test split, drawn at random, each of another class; right: the most similar "
             "training segments, the most similar first. Above: the class that most of a segment's pixels have, green "
             "where it is the query's and red where not."),
        ]


def _one_of_each_class(truth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Segments drawn at random, each of another class, of at most so many classes as are shown."""
    classes = np.unique(truth[truth >= 0])
    drawn = np.sort(generator.permutation(classes)[:_QUERIES])
    return np.array([generator.choice(np.flatnonzero(truth == number)) for number in drawn], np.int64)


def _mean(ious: np.ndarray) -> float:
    return float(np.nanmean(ious) * 100) if not np.isnan(ious).all() else float("nan")


def _percent(iou: float) -> str:
    return "–" if np.isnan(iou) else f"{iou * 100:.1f}"
