"""Weighted kNN: the vote written out, any chunks and both engines, and what the protocol says of its data."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from pretrain.evaluation.crops_of_images import CropsOfImages
from pretrain.evaluation.embedding_map import project
from pretrain.evaluation.nearest import nearest
from pretrain.evaluation.protocols.knn import KNearestNeighbors
from pretrain.evaluation.samples import unit_rows
from pretrain.knn import knn_votes
from pretrain.neighbors import NEIGHBORS, TorchSearch, search_scored


def literal_votes(known, labels, query, classes, k, temperature):
    """Wu et al.: sort all by cosine, sum exp(s / τ) of the first k by class."""
    cosine = [sum(a * b for a, b in zip(row, query, strict=True))
              / math.sqrt(sum(a * a for a in row) * sum(b * b for b in query)) for row in known]
    votes = [0.0] * classes
    for number in sorted(range(len(known)), key=lambda i: -cosine[i])[:k]:
        votes[labels[number]] += math.exp(cosine[number] / temperature)
    return votes


@pytest.fixture(scope="module")
def data(array_data, clusters):
    return array_data(clusters(90, 5, noise=1.5), clusters(40, 5, noise=1.5, seed=1), "abcde")


@pytest.mark.parametrize("search", NEIGHBORS.names())
def test_accuracy_is_that_of_the_votes_written_out(data, array_features, tmp_path, search):
    learn, test = data.parts["train"], data.parts["test"]
    protocol = KNearestNeighbors(k=[3, 20], search=search, queries=0, crops=0, points=0)
    found = protocol.measure(array_features, data, tmp_path, 0)
    for k in (3, 20):
        right = 0
        for vector, truth in zip(test.vectors.astype(float), test.labels, strict=True):
            votes = literal_votes(learn.vectors.astype(float), learn.labels, vector, 5, k, 0.07)
            right += votes.index(max(votes)) == truth
        assert found.metrics[f"top1_k{k}"] == pytest.approx(100 * right / len(test))
    assert 20 < found.metrics["top1_k20"] < 100  # else every rule would give the same


def test_votes_are_those_of_the_definition(clusters):
    known, labels = clusters(50, 4)
    queries, _ = clusters(7, 4, seed=2)
    votes = knn_votes(unit_rows(known), torch.from_numpy(labels), unit_rows(queries), 4, 9).numpy()
    for query, found in zip(queries.astype(float), votes, strict=True):
        expected = np.array(literal_votes(known.astype(float), labels, query, 4, 9, 0.07))
        np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-4)


def test_votes_do_not_overflow_with_a_small_temperature(clusters):
    known, labels = clusters(50, 4)
    votes = knn_votes(unit_rows(known), torch.from_numpy(labels), unit_rows(known[:9]), 4, 9, temperature=1e-3)
    assert votes.isfinite().all() and (votes.argmax(1) == torch.from_numpy(labels[:9])).all()


@pytest.mark.parametrize("chunk_bytes", [1, 700, 5000, 1 << 20])
def test_chunks_of_any_size_give_the_same_neighbours(clusters, chunk_bytes):
    known, _ = clusters(61, 4)
    queries, _ = clusters(13, 4, seed=3)
    cosine = torch.nn.functional.normalize(torch.tensor(queries).double(), dim=1) @ torch.nn.functional.normalize(
        torch.tensor(known).double(), dim=1).T
    expected = cosine.sort(dim=1, descending=True)
    similarity, index = nearest(TorchSearch(rows=5), queries, known, 17, chunk_bytes=chunk_bytes)
    assert torch.equal(index, expected.indices[:, :17])
    torch.testing.assert_close(similarity.double(), expected.values[:, :17], rtol=0, atol=1e-6)


def test_an_engine_without_similarities_is_enough():
    """One of a user's own only has to give indices."""
    query, queue = unit_rows(np.random.default_rng(0).normal(size=(5, 8))), unit_rows(np.eye(8))
    ours, theirs = search_scored(TorchSearch(), query, queue, 3), search_scored(TorchSearch().__call__, query, queue, 3)
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0])


def test_engines_give_the_similarities_of_their_indices(clusters):
    known, queries = (unit_rows(clusters(n, 4, seed=n)[0]) for n in (40, 6))
    for name in NEIGHBORS.names():
        similarity, index = NEIGHBORS.get(name)().scored(queries, known, 7)
        torch.testing.assert_close(similarity, (queries @ known.T).gather(1, index))


def test_class_mean_where_it_is_the_convention(array_data, array_features, tmp_path):
    """Nine of class a all right, one of class b wrong: 90 % of the images, 50 % of the classes that are there."""
    a, b, c = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    data = array_data(([a, b, c], [0, 1, 2]), ([a] * 10, [0] * 9 + [1]), "abc", mean_per_class=True)
    protocol = KNearestNeighbors(k=[1], queries=0, crops=0, points=0)
    assert protocol.measure(array_features, data, tmp_path, 0).metrics == {"mean_per_class_k1": 50.0, "top1_k1": 90.0}
    data.mean_per_class = False
    assert protocol.measure(array_features, data, tmp_path, 0).metrics == {"top1_k1": 90.0}


def test_pictures_and_a_k_beyond_the_training_set(data, array_features, tmp_path):
    found = KNearestNeighbors(k=[200, 5], queries=1, crops=8).measure(array_features, data, tmp_path, 0)
    assert list(found.metrics) == ["top1_k5", "top1_k200", "crops_nearest_of_same_image"]
    assert found.metrics["crops_nearest_of_same_image"] == 100, "crops of an image have one colour, so one direction"
    assert found.remarks == ["k 200 is more than the 90 training images: all of them vote"]
    assert [file.name for file, _ in found.figures] == ["neighbors.png", "crops.png", "map.png"]
    assert all(file.stat().st_size > 1000 for file, _ in found.figures)
    assert "violet" not in found.figures[0][1]


def test_neighbours_from_the_same_image_are_marked(array_data, array_features, clusters, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pretrain.evaluation.protocols.knn.draw_neighbors",
                        lambda path, rows: seen.extend(rows) or path)
    both = array_data(clusters(40, 5), clusters(40, 5), "abcde")  # each test image is a training image too
    for part in both.parts.values():
        monkeypatch.setattr(part, "name", lambda number: f"image {number}")
    found = KNearestNeighbors(k=[5], crops=0, points=0).measure(array_features, both, tmp_path, 0)
    assert [[neighbor.same for neighbor in row] for _, _, row in seen] == [[True] + [False] * 7] * 6
    assert "violet" in found.figures[0][1]
    assert len({title.split()[0] for _, title, _ in seen[:5]}) == 5, "queries are of all classes before any is twice"


def test_crops_never_find_themselves(array_data, array_features, clusters, tmp_path, monkeypatch):
    """With all crops alike, which of them comes first is chance; the crop itself never may."""
    seen = []
    monkeypatch.setattr("pretrain.evaluation.protocols.knn.draw_neighbors",
                        lambda path, rows: seen.extend(rows) or path)
    data = array_data(clusters(30, 3), clusters(20, 3), "abc")
    alike = SimpleNamespace(**{**vars(array_features), "pooled": lambda images, resize, crop: getattr(
        images, "vectors", np.ones((len(images), 2), np.float32))})
    monkeypatch.setattr(CropsOfImages, "image", lambda self, number: number)
    KNearestNeighbors(crops=3, points=0).measure(alike, data, tmp_path, 0)
    rows = [(query, [neighbor.image for neighbor in found]) for query, _, found in seen[6:]]
    assert len(rows) == 3 and all(len(set(found)) == 8 and query not in found for query, found in rows)


def test_crops_lie_in_their_image_and_stay_the_same(array_data):
    class Gradient(type(array_data(([[0]], [0]), ([[0]], [0]), "a").parts["test"])):
        def image(self, number):
            return np.dstack([*np.meshgrid(np.arange(60), np.arange(40)), np.full((40, 60), number)]).astype(np.uint8)

    images = Gradient("test", np.zeros((5, 1)), np.arange(5))
    crops = CropsOfImages(images, np.array([1, 4]), 3, 16, seed=0)
    assert len(crops) == 6 and [crops.source(n) for n in range(6)] == [1, 1, 1, 4, 4, 4]
    assert crops.classes().tolist() == [1, 1, 1, 4, 4, 4] and crops.name(4) == images.name(4)
    places = set()
    for number in range(6):
        pixels = crops.image(number)
        assert pixels.shape == (16, 16, 3) and (pixels[..., 2] == crops.source(number)).all()
        width, height = (np.ptp(pixels[..., axis].astype(int)) + 1 for axis in (0, 1))
        assert 40 * 0.3 <= width <= 40 * 0.7 and abs(width - height) <= 2
        places.add((int(pixels[0, 0, 0]), int(pixels[0, 0, 1]), int(width)))
        np.testing.assert_array_equal(pixels, crops.image(number))
    assert len(places) == 6
    others = [CropsOfImages(images, np.array([1, 4]), 3, 16, seed=1), CropsOfImages(images, np.array([1, 3]), 3, 16, 0)]
    assert len({crops.fingerprint(), *(other.fingerprint() for other in others)}) == 3


def test_map_is_that_of_the_principal_components(clusters):
    vectors, _ = clusters(80, 5)
    points, made = project(vectors, "pca", 0)
    rows = unit_rows(vectors).double()
    rows -= rows.mean(0)
    _, sizes, axes = torch.linalg.svd(rows, full_matrices=False)
    expected = (rows @ axes[:2].T).numpy()
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
    share = 100 * (sizes[:2].square().sum() / sizes.square().sum()).item()
    assert f"({share:.0f} % of the variance)" in made
    np.testing.assert_array_equal(points, project(vectors, "pca", 0)[0])


def test_map_of_features_with_one_channel():
    points, _ = project(np.array([[1.0], [-1.0], [1.0]]), "pca", 0)
    assert points.shape == (3, 2) and np.isfinite(points).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"k": [0]}, "knn.k is [0]"), ({"k": []}, "knn.k is []"), ({"temperature": 0}, "knn.temperature is 0"),
    ({"search": "fais"}, "did you mean 'faiss'"), ({"queries": -1}, "knn.queries is -1"),
])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError) as error:
        KNearestNeighbors(**options)
    assert message in str(error.value)


def test_a_map_by_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setattr("pretrain.evaluation.embedding_map.find_spec", lambda name: None)
    with pytest.raises(UserError, match="scikit-learn is not installed"):
        KNearestNeighbors(projection="tsne")


def test_data_that_cannot_be_measured(array_data, array_features, clusters, tmp_path):
    train, test = clusters(20, 4), clusters(10, 4, seed=1)
    broken = train[0].copy()
    broken[7, 3] = np.nan
    few = train[1] < 2
    for data, message in (
        (array_data((broken, train[1]), test, "abcd"), "arrays: its features of train image 7 are not finite"),
        (array_data((train[0][few], train[1][few]), test, "abcd"),
         "'c' and 1 more of the 4 classes is in the split 'test' and not in 'train'"),
        (array_data(train, (test[0][:0], test[1][:0]), "abcd"), "the split 'test' of ArrayData has no images"),
    ):
        with pytest.raises(UserError, match=message):
            KNearestNeighbors().measure(array_features, data, tmp_path, 0)
