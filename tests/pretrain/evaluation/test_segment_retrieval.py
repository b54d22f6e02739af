"""Segment retrieval beside a slow one over pixels, and its parts beside other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from harness.errors import UserError
from harness.seeding import numpy_generator
from pretrain.evaluation.base import PROTOCOLS
from pretrain.evaluation.dense import DenseFeatures
from pretrain.evaluation.features import FeatureConfig, Features
from pretrain.evaluation.k_means import k_means
from pretrain.evaluation.protocols import segment_retrieval
from pretrain.evaluation.segments import Segments, class_counts, class_ious, enlarge, majority
from pretrain.evaluation.subject import Subject

RETRIEVAL = PROTOCOLS.get("segment_retrieval")
NAMES = ("sky", "sea", "sand", "boat", "bird")
COLOURS = np.array([[240, 40, 40], [40, 240, 40], [40, 40, 240], [240, 240, 40], [40, 240, 240]])


def paint(size, seed, noise=0, unlabelled=True):
    """An image of rectangles that lie on squares of 4 pixels, each of a class."""
    generator = np.random.default_rng(seed)
    height, width = size
    mask = np.full(size, generator.integers(5), np.uint8)
    for _ in range(6):
        top, left = 4 * generator.integers(height // 4), 4 * generator.integers(width // 4)
        mask[top : top + 4 * generator.integers(1, 5), left : left + 4 * generator.integers(1, 5)] = (
            generator.integers(5))
    image = np.clip(COLOURS[mask] + noise * generator.normal(size=(*size, 3)), 0, 255).astype(np.uint8)
    if unlabelled:
        mask[:, : width // 4] = 255
    return image, mask


@pytest.fixture(scope="module")
def painted(painted_data):
    sizes = [(32, 24), (24, 32), (28, 28)]
    train, test = ([paint(sizes[i % 3], 10 * part + i, noise=60) for i in range(count)]
                   for part, count in ((1, 5), (2, 4)))
    train[2][1][:] = 255
    return painted_data(NAMES, train, test)


@pytest.fixture
def undrawn(monkeypatch):
    """Without pictures, which take most of the time."""
    for name in ("draw_segments", "draw_neighbours"):
        monkeypatch.setattr(segment_retrieval, name, lambda *given: given[-1])


@pytest.mark.parametrize("unit_length", [False, True])
def test_against_a_loop_over_pixels(painted, colour_features, request, tmp_path, unit_length):
    if unit_length:
        request.getfixturevalue("undrawn")
    options = {"clusters": 6, "stride": 2, "unit_length": unit_length, "batch_size": 2}
    found = RETRIEVAL(**options, subset=["sea", "bird"]).measure(colour_features, painted, tmp_path, 5)

    def segments(split, number, image, mask):
        """Of each segment: its pixels in the image, and its mean features."""
        size = tuple(side // 2 for side in mask.shape)
        maps = F.avg_pool2d(colour_features.normalise(image[None]), 4)
        clusters = k_means(maps[0], size, 6, numpy_generator("k-means", 5, split, number), 50, unit_length)
        pixels = F.interpolate(maps.double(), size=size, mode="bilinear")[0]
        pixels = F.normalize(pixels, dim=0) if unit_length else pixels
        for segment in range(clusters.assignment.max() + 1):
            small = (clusters.assignment == segment).numpy()
            yield np.kron(small, np.ones((2, 2))).astype(bool), pixels[:, torch.from_numpy(small)].mean(1)

    known = []
    for number, (image, mask) in enumerate(painted.parts["train"].pairs):
        for inside, vector in segments("train", number, image, mask):
            classes = mask[inside & (mask != 255)]
            if len(classes):
                known.append((vector, np.bincount(classes).argmax()))
    truth, predicted, oracle = [], [], []
    for number, (image, mask) in enumerate(painted.parts["test"].pairs):
        given, best = np.full(mask.shape, 9), np.zeros(mask.shape, int)
        for inside, vector in segments("test", number, image, mask):
            given[inside] = max(known, key=lambda pair: F.cosine_similarity(pair[0], vector, dim=0))[1]
            classes = mask[inside & (mask != 255)]
            best[inside] = np.bincount(classes).argmax() if len(classes) else 0
        assert given.max() < 5, "a pixel is in no segment"
        truth.append(mask.ravel()), predicted.append(given.ravel()), oracle.append(best.ravel())
    truth, predicted, oracle = (torch.from_numpy(np.concatenate(parts).astype(np.int64))
                                for parts in (truth, predicted, oracle))
    ious, oracle_ious = (100 * multiclass_jaccard_index(given, truth, 5, average="none", ignore_index=255)
                      for given in (predicted, oracle))
    assert found.metrics == pytest.approx({
        "miou": ious.mean().item(), "miou_subset": ious[[1, 4]].mean().item(),
        "majority": oracle_ious.mean().item()}, rel=1e-5)
    assert 5 < found.metrics["miou"] < 100 and 5 < found.metrics["majority"] < 100
    rows = found.tables["IoU of each class"][1]
    assert [row[0] for row in rows] == list(NAMES) and [float(row[1]) for row in rows] == pytest.approx(
        ious.tolist(), abs=0.06)
    assert len(found.figures) == 2 and (unit_length or all(file.stat().st_size > 5000 for file, _ in found.figures))


def test_pure_colours_are_found(painted_data, colour_features, undrawn, tmp_path):
    """Every segment is of one class where clusters are as many as colours, so that nothing is mistaken."""
    paintings = [paint((32, 32), seed, unlabelled=False) for seed in range(6)]
    data = painted_data(NAMES, paintings[:4], paintings[4:])
    shown = {int(number) for _, mask in paintings[4:] for number in np.unique(mask)}
    assert shown <= {int(number) for _, mask in paintings[:4] for number in np.unique(mask)} and len(shown) > 3
    found = RETRIEVAL(clusters=64, stride=4).measure(colour_features, data, tmp_path, 0)
    assert found.metrics == {"miou": 100, "majority": 100}
    assert ("left out of the mean" in found.remarks[-1]) == (len(shown) < 5)
    assert not list(tmp_path.iterdir()), "the file of descriptors is still there"


def test_the_published_subset(painted_data, colour_features, undrawn, tmp_path):
    voc = ("background", "aeroplane", "bicycle", "bottle", "bus", "car", "cat", "cow", "person")
    paintings = [paint((16, 16), seed) for seed in range(3)]
    found = RETRIEVAL(clusters=4).measure(colour_features, painted_data(voc, paintings[:2], paintings[2:]), tmp_path, 0)
    rows = {row[0]: row[1] for row in found.tables["IoU of each class"][1]}
    seven = [float(rows[name]) for name in ("aeroplane", "bottle", "bus", "car", "cat", "cow", "person")
             if rows[name] != "–"]
    assert found.metrics["miou_subset"] == pytest.approx(np.mean(seven), abs=0.06)
    with pytest.raises(UserError, match=r"no class 'bot' \(did you mean 'boat'\?\): the data has sky"):
        RETRIEVAL(subset=["bot"]).measure(colour_features, painted_data(NAMES, paintings, paintings), tmp_path, 0)


def test_counts_and_ious():
    generator = np.random.default_rng(0)
    segments, mask = generator.integers(7, size=(20, 30)), generator.integers(6, size=(20, 30)).astype(np.uint8)
    mask[mask == 5] = 255
    mask[segments == 3] = 255
    counts = class_counts(segments, mask, 8, 6)
    expected = [[int(((segments == segment) & (mask == number)).sum()) for number in range(6)] for segment in range(8)]
    assert counts.tolist() == expected
    found = majority(counts)
    assert found[3] == found[7] == -1 and all(
        counts[segment, found[segment]] == max(expected[segment]) for segment in (0, 1, 2, 4, 5, 6))
    assert majority(np.array([[2, 3, 3]])).tolist() == [1]
    predicted = generator.integers(4, size=8)
    ious = class_ious(counts, predicted)
    reference = multiclass_jaccard_index(torch.from_numpy(predicted[segments]), torch.from_numpy(mask.astype(int)), 6,
                                         average="none", ignore_index=255)
    assert np.isnan(ious[5]) and ious[:5] == pytest.approx(reference[:5].numpy())


@pytest.mark.parametrize("small, large", [((3, 4), (12, 16)), ((5, 7), (13, 9)), ((4, 4), (4, 4)), ((1, 2), (3, 5))])
def test_enlarging(small, large):
    values = np.arange(small[0] * small[1]).reshape(small)
    expected = F.interpolate(torch.from_numpy(values)[None, None].double(), size=large, mode="nearest-exact")[0, 0]
    assert np.array_equal(enlarge(values, large), expected.numpy())


def test_segments_are_kept(tmp_path):
    generator = np.random.default_rng(0)
    every, some = Segments(tmp_path, 3), Segments(tmp_path, 3, labelled=True)
    vectors, assignments = [], []
    for size in ((4, 6), (3, 3)):
        assignment = np.arange(size[0] * size[1]).reshape(size) % 5
        mask = generator.integers(3, size=(2 * size[0], 2 * size[1])).astype(np.uint8)
        mask[enlarge(assignment, mask.shape) == 2] = 255
        vectors.append(torch.from_numpy(generator.normal(size=(5, 8))))
        assignments.append(enlarge(assignment, mask.shape))
        for segments in (every, some):
            segments.add(assignment, mask, vectors[-1])
    for number, assignment in enumerate(assignments):
        assert np.array_equal(every.map(number), assignment) and np.array_equal(some.map(number), assignment)
    assert every.members().tolist() == [[image, segment] for image in (0, 1) for segment in range(5)]
    assert some.members().tolist() == [[image, segment] for image in (0, 1) for segment in (0, 1, 3, 4)]
    expected = F.normalize(torch.cat(vectors), dim=1).float().numpy()
    np.testing.assert_allclose(every.descriptors(), expected, rtol=1e-6)
    assert np.array_equal(some.descriptors(), every.descriptors()[[0, 1, 3, 4, 5, 6, 8, 9]])
    assert isinstance(every.descriptors(), np.memmap) and len(some) == 8 and not list(tmp_path.iterdir())


def test_sizes_and_strides_are_those_that_are_asked_for(painted_data, colour_features):
    """Of the network's view alone: masks stay as they are."""
    split = painted_data(NAMES, [paint((32, 24), 0)], []).split("train")
    network = Features(Subject("random:resnet10t"), FeatureConfig(), torch.device("cpu"))
    for dense, places in ((DenseFeatures(colour_features, resize=48), (16, 12)), (DenseFeatures(network), (1, 1)),
                          (DenseFeatures(network, output_stride=8), (4, 3)),
                          (DenseFeatures(network, "layer2", resize=64), (11, 8))):
        (seen,) = dense(split, 5)
        assert seen.features.shape[1:] == places and seen.mask.shape == (32, 24) and seen.pixels.shape == (32, 24, 3)


def test_any_batch_size(painted_data, undrawn, tmp_path):
    features = Features(Subject("random:test_resnet"), FeatureConfig(), torch.device("cpu"))
    paintings = [paint((64, 64), seed) for seed in range(7)]
    data = painted_data(NAMES, paintings[:4], paintings[4:])
    found = [RETRIEVAL(clusters=5, batch_size=size).measure(features, data, tmp_path, 0).metrics for size in (1, 3, 16)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("options, message", [
    ({"clusters": 0}, "segment_retrieval.clusters is 0: set it to 1 or more, at most 255"),
    ({"clusters": 256}, "segment_retrieval.clusters is 256"),
    ({"stride": 0}, "segment_retrieval.stride is 0: set it to 1 or more$"),
    ({"resize": -1}, "segment_retrieval.resize is -1: set it to 0 or more"),
    ({"output_stride": 0}, "segment_retrieval.output_stride is 0"),
])
def test_options(options, message):
    with pytest.raises(UserError, match=message):
        RETRIEVAL(**options)


def test_masks_that_do_not_fit(painted_data, colour_features, tmp_path):
    image, mask = paint((16, 16), 0)
    good = (image, mask)
    for bad, message in (((image, mask[:8]), r"painting 1: its mask is 8 × 16 pixels and the image 16 × 16"),
                         ((image, np.where(mask == 255, 255, 7).astype(np.uint8)),
                          r"painting 1: its mask has class 7, and there are 0 to 4")):
        with pytest.raises(UserError, match=message):
            RETRIEVAL().measure(colour_features, painted_data(NAMES, [good, bad], [good]), tmp_path, 0)
    with pytest.raises(UserError, match="no pixel of the split 'train' has a class"):
        nothing = (image, np.full_like(mask, 255))
        RETRIEVAL().measure(colour_features, painted_data(NAMES, [nothing], [good]), tmp_path, 0)
    with pytest.raises(UserError, match="no pixel of the split 'test' has a class"):
        RETRIEVAL().measure(colour_features, painted_data(NAMES, [good], [nothing]), tmp_path, 0)
    with pytest.raises(UserError, match="has no images"):
        RETRIEVAL().measure(colour_features, painted_data(NAMES, [], [good]), tmp_path, 0)


def test_networks_that_do_not_fit(painted_data, colour_features):
    flat = Features(Subject("random:test_mambaout"), FeatureConfig(), torch.device("cpu"))
    del flat.model.feature_info
    with pytest.raises(UserError, match="gives no maps of its stages"):
        DenseFeatures(flat)
    network = Features(Subject("random:test_resnet"), FeatureConfig(), torch.device("cpu"))
    with pytest.raises(UserError, match="has no layer 'layer9'"):
        DenseFeatures(network, "layer9")
    with pytest.raises(UserError, match="timm cannot build|output_stride"):
        DenseFeatures(network, output_stride=3)
    colour_features.maps = lambda model, images, place: torch.full((len(images), 2, 1, 1), float("nan"))
    with pytest.raises(UserError, match="its map of painting 0 is not finite"):
        next(DenseFeatures(colour_features)(painted_data(NAMES, [paint((8, 8), 0)], []).split("train"), 5))


def test_workers_raise_one_line(painted_data, colour_features, tmp_path):
    image, mask = paint((16, 16), 0)
    colour_features.workers = 1
    with pytest.raises(UserError) as caught:
        RETRIEVAL().measure(colour_features, painted_data(NAMES, [(image, mask[:4])], [(image, mask)]), tmp_path, 0)
    assert str(caught.value).startswith("painting 0: its mask") and "\n" not in str(caught.value)
