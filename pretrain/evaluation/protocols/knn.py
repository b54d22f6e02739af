"""Weighted k-nearest-neighbour classification."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from harness.errors import UserError
from harness.seeding import numpy_generator
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.crops_of_images import CropsOfImages
from pretrain.evaluation.embedding_map import check_projection, draw_map, project
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled
from pretrain.evaluation.nearest import nearest
from pretrain.evaluation.neighbor_pictures import Neighbor, draw_neighbors
from pretrain.evaluation.samples import Samples, accuracies, read_samples
from pretrain.knn import weighted_votes
from pretrain.neighbors import NEIGHBORS

COLUMNS = 8
"""Neighbours in a row of the picture."""
CROPS = 4
"""Of an image."""


@PROTOCOLS.register("knn")
class KNearestNeighbors(Protocol):
    """Votes of the most similar training images, weighted by exp(cosine / τ) (Wu et al., 2018).

    Args:
        k: how many of them; a figure for each. All training images vote where there are fewer.
        temperature: τ.
        search: engine of the exact search, as in pretraining: torch or faiss.
        queries: how many are shown with their neighbours.
        crops: of so many test images four crops each are searched in for the nearest ones of each other, which shows
            whether features tell one image from another or classes; 0 leaves it.
        points: at most so many test images are in the map of the embedding; 0 draws none.
        projection: how the map is made; tsne needs scikit-learn.
    """

    needs = "class"

    def __init__(self, k: list[int] = (20, 200), temperature: float = 0.07, search: str = "torch", queries: int = 6,
                 crops: int = 24, points: int = 2000, projection: Literal["pca", "tsne"] = "pca") -> None:
        if not k or min(k) < 1:
            raise UserError(f"knn.k is {list(k)}: give numbers of neighbours, 1 or more")
        if temperature <= 0:
            raise UserError(f"knn.temperature is {temperature}: set it above 0")
        for name, value in (("queries", queries), ("crops", crops), ("points", points)):
            if value < 0:
                raise UserError(f"knn.{name} is {value}: set it to 0 (none) or more")
        check_projection(projection)
        self.k, self.temperature, self.search = sorted(set(k)), temperature, NEIGHBORS.get(search)()
        self.queries, self.crops, self.points, self.projection = queries, crops, points, projection
        self.columns = {name: heading for number in self.k for name, heading in (
            (f"mean_per_class_k{number}", f"kNN {number} class mean [%]"), (f"top1_k{number}", f"kNN {number} [%]"))}

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        learn, test = read_samples(features, data, self.needs)
        names = data.names[self.needs]
        depth = max(self.k[-1], COLUMNS if self.queries else 1)
        similarity, index = nearest(self.search, test.features, learn.features, min(depth, len(learn)), features.device)
        found = Finding({})
        for k in self.k:
            predicted = self.predict(similarity, index, learn.labels, len(names), k)
            each = accuracies(predicted, test.labels, len(names))
            if data.mean_per_class:
                found.metrics[f"mean_per_class_k{k}"] = 100 * float(np.nanmean(each))
            found.metrics[f"top1_k{k}"] = 100 * float((predicted == test.labels).mean())
            if k > len(learn):
                found.remarks.append(f"k {k} is more than the {len(learn)} training images: all of them vote")
        if self.queries:
            found.figures.append(self._picture(learn, test, names, similarity, index, folder, seed))
        if self.crops > 1 and len(test) > 1:
            self._search_crops(features, data, test, names, found, folder, seed)
        if self.points and len(test) > 2:
            found.figures.append(self._map(test, names, folder, seed))
        return found

    def predict(self, similarity: torch.Tensor, index: torch.Tensor, labels: np.ndarray, classes: int,
                k: int) -> np.ndarray:
        """The class with the most votes of the first k neighbours.

        Args:
            similarity: ``[M, K]``, the most similar first.
            index: int64 ``[M, K]``, of the neighbours.
            labels: of what is known, int64 ``[N]``.
            classes: number of classes.
            k: at most K neighbours vote.

        Returns:
            int64 ``[M]``.
        """
        known, found = torch.from_numpy(np.ascontiguousarray(labels)), []
        for start in range(0, len(index), 4096):  # votes of all queries at once would be large for many classes
            some = slice(start, start + 4096)
            votes = weighted_votes(similarity[some, :k], known[index[some, :k]], classes, self.temperature)
            found.append(votes.argmax(1))
        return torch.cat(found).numpy()

    def _picture(self, learn: Samples, test: Samples, names: tuple[str, ...], similarity: torch.Tensor,
                 index: torch.Tensor, folder: Path, seed: int) -> tuple[Path, str]:
        """Queries with their nearest neighbours."""
        chosen = _of_all_classes(test.labels, self.queries, numpy_generator(seed, "knn", "queries"))
        predicted = self.predict(similarity[chosen], index[chosen], learn.labels, len(names), self.k[0])
        rows, repeated = [], False
        for query, guess in zip(chosen, predicted, strict=True):
            truth = test.labels[query]
            neighbors = []
            for near, number in zip(similarity[query, :COLUMNS].tolist(), index[query, :COLUMNS].tolist(), strict=True):
                label = learn.labels[number]
                same = learn.images.name(number) == test.images.name(int(query))
                repeated |= same
                neighbors.append(Neighbor(learn.images.image(number), f"{_short(names[label])} {near:.2f}",
                                          label == truth, same))
            title = _short(names[truth], 20)
            title += " ✓" if guess == truth else f"\nvoted: {_short(names[guess], 16)}"
            rows.append((test.images.image(int(query)), title, neighbors))
        marked = "; dashed violet: the query's own image, which is in both splits" if repeated else ""
        return draw_neighbors(folder / "neighbors.png", rows), (
            f"Test images (left) and their nearest training images by cosine. Green: the query's class; grey: another"
            f"{marked}. Beside a query: its class, ✓ where its {min(self.k[0], len(learn))} neighbours vote for it")

    def _search_crops(self, features: Features, data: Labelled, test: Samples, names: tuple[str, ...], found: Finding,
                      folder: Path, seed: int) -> None:
        """Neighbours of crops among crops, which are of the same image or of another."""
        chosen = np.sort(numpy_generator(seed, "knn", "crops").permutation(len(test))[: self.crops])
        side = data.crop or min(test.images.image(0).shape[:2])
        crops = CropsOfImages(test.images, chosen, CROPS, side, seed)
        vectors, source = features.pooled(crops, None, None), np.arange(len(crops)) // CROPS
        similarity, index = (part.numpy() for part in nearest(
            self.search, vectors, vectors, min(COLUMNS + 1, len(crops)), features.device))
        # without the crop itself, which is not the first where another one is the same
        others = index != np.arange(len(crops))[:, None]
        others &= others.cumsum(1) < index.shape[1]
        similarity, index = (part[others].reshape(len(crops), -1) for part in (similarity, index))
        share = 100 * float((source[index[:, 0]] == source).mean())
        found.metrics["crops_nearest_of_same_image"] = share
        labels, rows = crops.classes(), []
        for query in CROPS * _of_all_classes(test.labels[chosen], self.queries, numpy_generator(seed, "knn", "shown")):
            neighbors = [Neighbor(crops.image(int(number)), f"{_short(names[labels[number]])} {near:.2f}",
                                  bool(labels[number] == labels[query]), bool(source[number] == source[query]))
                         for near, number in zip(similarity[query], index[query], strict=True)]
            rows.append((crops.image(int(query)), _short(names[labels[query]], 20), neighbors))
        if rows:
            found.figures.append((draw_neighbors(folder / "crops.png", rows), (
                f"Crops of test images (left) and the nearest among {len(crops)} crops, {CROPS} of each of "
                f"{len(chosen)} images. Dashed violet: of the query's own image; green: of another image of its class; "
                f"grey: of another class. The nearest crop is of the same image for {share:.0f} % of all crops (by "
                f"chance: {100 * (CROPS - 1) / (len(crops) - 1):.0f} %)")))

    def _map(self, test: Samples, names: tuple[str, ...], folder: Path, seed: int) -> tuple[Path, str]:
        some = np.sort(numpy_generator(seed, "knn", "map").permutation(len(test))[: self.points])
        points, made = project(test.features[some], self.projection, seed)
        return draw_map(folder / "map.png", points, test.labels[some], names), (
            f"Map of the embedding: {len(some)} of {len(test)} test images, {made} of L2-normalised features, coloured "
            "by class")


def _of_all_classes(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Which images to show: drawn by chance, all classes before any comes a second time."""
    order = generator.permutation(len(labels))
    turn = np.zeros(len(labels), np.int64)  # how many of its class come before an image in this order
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[order] == label)
        turn[of_class] = np.arange(len(of_class))
    return order[np.argsort(turn, kind="stable")][:count]


def _short(name: str, length: int = 13) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= length else name[: length - 1] + "…"
