"""Metrics against slow references, whatever the batch size and the number of processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.metrics.normals import angles
from transfer.tasks import TASKS, build_task
from transfer.tasks.localization import gaussian_map

CLASSES = {
    "semseg": tuple("abcdefg"),
    "parts": tuple("abcd"),
    "scene": tuple("abcdefgh"),
    "classification": tuple("abcdefgh"),
    "scene_distribution": tuple("abcdefgh"),
    "attributes": tuple("abcde"),
}
N, H, W = 9, 12, 10


def make(kind: str, images: int = N, seed: int = 0):
    """A task with random predictions and labels: ignored pixels, absent classes, unlabelled images."""
    task = build_task(kind, kind, CLASSES.get(kind, ()))
    g = torch.Generator().manual_seed(seed)
    shape = (images, task.channels, H, W) if task.dense else (images, task.channels)
    prediction = torch.randn(shape, generator=g)
    place = (images, H, W)
    if kind in ("semseg", "parts"):
        target = torch.randint(0, len(task.classes) - 1, place, generator=g).to(
            torch.uint8
        )  # last class absent
        prediction[:, -1] -= 100 if kind == "parts" else 0
        target[torch.rand(place, generator=g) < 0.2] = 255
        if kind == "parts" and images > 1:
            target[images - 1][target[images - 1] != 255] = 0  # an image without parts
    elif kind in ("depth", "disparity", "inverse_depth"):
        target = torch.rand(place, generator=g) * 5 + 0.5
        prediction = prediction * 0.8 + target[:, None]
        target[torch.rand(place, generator=g) < 0.2] = 0
    elif kind == "normals":
        target = torch.nn.functional.normalize(torch.randn(images, 3, H, W, generator=g), dim=1)
        prediction = prediction * 0.4 + target
        target[(torch.rand(place, generator=g) < 0.2)[:, None].expand_as(target)] = 0
    elif kind == "instance_center":
        target = torch.randn(images, 2, H, W, generator=g) * 3
        prediction = prediction + target
        target[(torch.rand(place, generator=g) < 0.2)[:, None].expand_as(target)] = 0
    elif kind in ("keypoints", "heat_map"):
        target = torch.rand(place, generator=g)
        prediction = prediction * 0.3 + target[:, None]
        target[torch.rand(place, generator=g) < 0.2] = -1
    elif kind == "localization":
        points = torch.rand(images, 2, generator=g).tolist()
        target = torch.stack([torch.from_numpy(gaussian_map(W * x, H * y, H, W, 1.5)) for x, y in points])
        prediction = prediction * 0.1 + target[:, None]
    elif kind in ("edge", "saliency", "binary_segmentation"):
        target = (torch.rand(place, generator=g) < 0.3).to(torch.uint8)
        prediction += target[:, None]
        target[torch.rand(place, generator=g) < 0.2] = 255
        if images > 4:
            target[2][target[2] == 1] = 0  # nothing salient
            prediction[2] = -9.0 if seed else prediction[2]
    elif kind == "scene_distribution":
        target = (2 * torch.randn(images, len(task.classes), generator=g)).softmax(1)
    elif kind in ("scene", "classification"):
        target = torch.randint(-1, len(task.classes), (images,), generator=g)
    else:
        target = (torch.rand(images, task.channels, generator=g) < 0.4).to(torch.uint8)
        target[torch.rand(target.shape, generator=g) < 0.2] = 255
        target[:, 3][target[:, 3] == 1] = 0  # an attribute that never occurs,
        prediction[:, 3] = -1.0  # nor is it ever predicted
    if images > 4:
        target[4] = torch.as_tensor(task.ignored).to(target.dtype)  # an image without a label
    return task, prediction, target


def measure(task, prediction, target, batch: int) -> dict[str, float]:
    metric = task.metric()
    for start in range(0, len(target), batch):
        task.update(metric, prediction[start : start + batch], target[start : start + batch])
    return metric.compute()


def scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Overlap measures of two binary arrays, from sets; a missing denominator counts 0."""
    t, f = set(np.flatnonzero(truth)), set(np.flatnonzero(found))
    both = len(t & f)
    precision, recall = both / max(len(f), 1), both / max(len(t), 1)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"iou": both / max(len(t | f), 1), "F1": f1, "precision": precision, "recall": recall}


def confusion_reference(prediction, target):
    keep = target != 255
    truth, found = target[keep].numpy(), prediction.argmax(1)[keep].numpy()
    iou = [scores(truth == c, found == c)["iou"] for c in set(truth.tolist()) | set(found.tolist())]
    recall = [scores(truth == c, found == c)["recall"] for c in set(truth.tolist())]
    return 100 * np.mean(iou), 100 * np.mean(truth == found), 100 * np.mean(recall)


def reference_semseg(prediction, target):
    iou, accuracy, mean_accuracy = confusion_reference(prediction, target)
    return {"mIoU": iou, "pixel_accuracy": accuracy, "mean_accuracy": mean_accuracy}


def reference_parts(prediction, target):
    with_parts = [i for i in range(len(target)) if bool(((target[i] != 0) & (target[i] != 255)).any())]
    return {"mIoU": confusion_reference(prediction[with_parts], target[with_parts])[0]}


def reference_depth(prediction, target):
    pairs = [
        (p, t) for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True) if t > 0
    ]
    n = len(pairs)
    ratios = [max(max(p, 1e-9) / t, t / max(p, 1e-9)) for p, t in pairs]
    return {
        "RMSE": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "abs": sum(abs(p - t) for p, t in pairs) / n,
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        **{f"d{k}": 100 * sum(r < 1.25**k for r in ratios) / n for k in (1, 2, 3)},
    }


def reference_normals(prediction, target):
    p = prediction.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    t = target.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    p, t = p[(t != 0).any(1)], t[(t != 0).any(1)]
    cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return {
        "mean_angle": angle.mean(),
        "median_angle": np.median(angle),
        **{f"within_{a:g}": 100 * (angle < a).mean() for a in (11.25, 22.5, 30)},
    }


def reference_edge(prediction, target):
    probability, f = prediction[:, 0].sigmoid(), []
    keep = target != 255
    for threshold in torch.linspace(0, 1, 101)[1:-1]:
        found = probability[keep] >= threshold
        f.append(100 * scores(target[keep].numpy(), found.numpy())["F1"])
    return {"odsF_quick": max(f), "odsF": tolerant_reference(prediction, target, 0.0075)}


def tolerant_reference(prediction, target, tolerance):
    """Thin, pair and count, one pixel at a time."""
    f = []
    for threshold in torch.linspace(0, 1, 101)[1:-1].logit():
        pairs = found = true = 0
        for p, t in zip(prediction[:, 0].numpy(), target.numpy(), strict=True):
            if (t == 255).all():
                continue
            lines = slow_thin(p >= threshold.item()) & (t <= 1)
            reach = tolerance * math.hypot(*t.shape)
            pairs += slow_pairs(np.argwhere(lines), np.argwhere(t == 1), reach)
            found, true = found + int(lines.sum()), true + int((t == 1).sum())
        f.append(100 * 2 * pairs / (found + true) if found + true else 0.0)
    return max(f)


def slow_thin(mask):
    """Guo and Hall 1989 as Lam et al. 1992 state it: both passes over all pixels until none goes."""
    mask = np.pad(mask, 1)
    height, width = mask.shape
    while True:
        before = mask.copy()
        for second in (False, True):
            gone = []
            for y in range(1, height - 1):
                for x in range(1, width - 1):
                    if not mask[y, x]:
                        continue
                    around = [bool(mask[y + dy, x + dx]) for dy, dx in
                              ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))]
                    x1, x2, x3, x4, x5, x6, x7, x8 = around
                    crossings = (not x1 and (x2 or x3)) + (not x3 and (x4 or x5)) + (not x5 and (x6 or x7)) + (
                        not x7 and (x8 or x1))
                    n1 = (x1 or x2) + (x3 or x4) + (x5 or x6) + (x7 or x8)
                    n2 = (x2 or x3) + (x4 or x5) + (x6 or x7) + (x8 or x1)
                    side = (x6 or x7 or not x4) and x5 if second else (x2 or x3 or not x8) and x1
                    if crossings == 1 and 2 <= min(n1, n2) <= 3 and not side:
                        gone.append((y, x))
            for y, x in gone:
                mask[y, x] = False
        if (mask == before).all():
            return mask[1:-1, 1:-1]


def slow_pairs(found, true, reach):
    """Size of a maximum matching, by augmenting paths (Kuhn 1955)."""
    near = [[j for j, b in enumerate(true.tolist()) if math.dist(a, b) <= reach] for a in found.tolist()]
    partner: dict[int, int] = {}

    def augment(i, seen):
        for j in near[i]:
            if j not in seen:
                seen.add(j)
                if j not in partner or augment(partner[j], seen):
                    partner[j] = i
                    return True
        return False

    return sum(augment(i, set()) for i in range(len(found)))


def reference_disparity(prediction, target):
    keep = target > 0
    p, t = prediction[:, 0][keep].double(), target[keep].double()
    return {"px_error": (p - t).abs().mean().item(), "rel": ((p - t).abs() / t).mean().item(),
            "RMSE": (p - t).square().mean().sqrt().item()}


def reference_inverse_depth(prediction, target):
    values = reference_disparity(prediction, target)
    return {"abs": values.pop("px_error"), **values}


def reference_instance_center(prediction, target):
    errors = [(p - t).tolist() for p, t in zip(prediction.permute(0, 2, 3, 1).reshape(-1, 2),
                                               target.permute(0, 2, 3, 1).reshape(-1, 2), strict=True) if t.any()]
    return {"px_error": np.mean([(abs(x) + abs(y)) / 2 for x, y in errors]),
            "distance": np.mean([math.hypot(x, y) for x, y in errors])}


def reference_keypoints(prediction, target):
    errors = [(abs(p - t), t) for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True)
              if t >= 0]
    return {"L1": np.mean([e for e, _ in errors]), "L1_peaks": np.mean([e for e, t in errors if t > 0.5])}


def reference_localization(prediction, target):
    def centre(values):
        values = np.maximum(values, 0).astype(float)
        y, x = np.mgrid[:H, :W] + 0.5
        return np.array([(values * x).sum(), (values * y).sum()]) / values.sum()

    return {"distance": np.mean([np.linalg.norm(centre(p) - centre(t)) for p, t in
                                 zip(prediction[:, 0].numpy(), target.numpy(), strict=True) if t.max() > 0])}


def reference_binary_segmentation(prediction, target):
    keep = target != 255
    truth, found = target[keep].numpy() == 1, prediction[:, 0][keep].numpy() > 0
    value, images = scores(truth, found), []
    for p, t in zip(prediction[:, 0], target, strict=True):
        labelled = t != 255
        if labelled.any():
            a, b = (t[labelled] == 1).numpy(), (p[labelled] > 0).numpy()
            images.append(scores(a, b)["F1"] if a.any() or b.any() else 1.0)
    return {"IoU": 100 * value["iou"], "Dice": 100 * value["F1"], "F1": 100 * value["F1"],
            "pixel_accuracy": 100 * np.mean(truth == found), "image_Dice": 100 * np.mean(images)}


def reference_scene_distribution(prediction, target):
    rows = [(p, t) for p, t in zip(prediction.tolist(), target.tolist(), strict=True) if any(t)]
    best = [[sorted(range(8), key=lambda c: -row[c])[:5] for row in pair] for pair in rows]
    return {"top5_overlap": 100 * np.mean([len(set(p) & set(t)) / 5 for p, t in best]),
            "accuracy": 100 * np.mean([p[0] == t[0] for p, t in best])}


def reference_saliency(prediction, target):
    means = []
    for threshold in torch.linspace(0.2, 0.9, 15):
        rows = []
        for p, t in zip(prediction[:, 0].sigmoid(), target, strict=True):
            keep = t != 255
            if not bool(keep.any()):
                continue
            found = set(map(tuple, torch.nonzero((p >= threshold) & keep).tolist()))
            truth = set(map(tuple, torch.nonzero((t == 1) & keep).tolist()))
            empty = float(not found and not truth)
            both = len(found & truth)
            rows.append(
                [
                    both / len(found | truth) if found | truth else empty,
                    both / len(found) if found else empty,
                    both / len(truth) if truth else empty,
                ]
            )
        means.append(np.mean(rows, axis=0) * 100)
    f = [2 * p * r / (p + r) if p + r else 0 for _, p, r in means]
    return {"max_mIoU": max(m[0] for m in means), "maxF": max(f)}


def reference_scene(prediction, target):
    ranks = [
        sorted(range(len(p)), key=lambda c: -p[c]).index(t)
        for p, t in zip(prediction.tolist(), target.tolist(), strict=True)
        if t >= 0
    ]
    keep = target >= 0
    scored, truth = prediction[keep].tolist(), target[keep].tolist()
    found = [int(np.argmax(row)) for row in scored]
    shares = prediction[keep].double().softmax(1).tolist()
    f, area, sensitivity, specificity = [], [], [], []
    for c in [1] if prediction.shape[1] == 2 else range(prediction.shape[1]):
        t, p = [x == c for x in truth], [x == c for x in found]
        if any(t) or any(p):
            f.append(scores(np.array(t), np.array(p))["F1"])
        if any(t):
            sensitivity.append(np.mean([b for a, b in zip(t, p, strict=True) if a]))
        if not all(t):
            specificity.append(np.mean([not b for a, b in zip(t, p, strict=True) if not a]))
        if any(t) and not all(t):
            pairs = [(a[c] > b[c]) + (a[c] == b[c]) / 2 for a, x in zip(shares, t, strict=True) if x
                     for b, y in zip(shares, t, strict=True) if not y]
            area.append(np.mean(pairs))  # the share of pairs of a positive and a negative in the right order
    averages = {"F1": f, "AUC": area, "sensitivity": sensitivity, "specificity": specificity}
    return {"accuracy": 100 * np.mean([r == 0 for r in ranks]), "top5": 100 * np.mean([r < 5 for r in ranks]),
            **{name: 100 * np.mean(values) if values else math.nan for name, values in averages.items()}}


def reference_attributes(prediction, target):
    accuracy, rest = [], []
    for a in range(target.shape[1]):
        keep = target[:, a] != 255
        if not bool(keep.any()):
            continue
        truth, found = target[keep, a].numpy(), (prediction[keep, a] > 0).numpy()
        accuracy.append(np.mean(truth == found))
        if truth.any() or found.any():
            rest.append(scores(truth, found))
    means = {name: np.mean([row[name] for row in rest]) for name in ("F1", "precision", "recall")}
    return {name: 100 * value for name, value in {"mean_accuracy": np.mean(accuracy), **means}.items()}


REFERENCES = {
    name[10:]: function for name, function in list(globals().items()) if name.startswith("reference_")
}
REFERENCES["classification"] = REFERENCES["scene"]  # the same measure of other classes
REFERENCES["heat_map"] = REFERENCES["keypoints"]


def test_every_task_has_a_reference():
    assert set(TASKS.names()) <= set(REFERENCES)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("images", [1, N])
@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_metric_equals_reference(kind, images, seed):
    task, prediction, target = make(kind, images, seed)
    if kind in ("scene", "classification") and images == 1:
        target[:] = 3
    expected = REFERENCES[kind](prediction, target)
    got = measure(task, prediction, target, batch=4)
    assert got.keys() == expected.keys()
    assert task.primary in got
    for name, value in expected.items():
        tolerance = 0.005 if name == "median_angle" else 1e-4
        assert got[name] == pytest.approx(value, abs=tolerance, nan_ok=True), name
        assert isinstance(got[name], float)


def test_median_angle_on_many_pixels():
    task = build_task("normals", "normals")
    g = torch.Generator().manual_seed(3)
    target = torch.nn.functional.normalize(torch.randn(4, 3, 64, 64, generator=g), dim=1)
    prediction = target + 0.5 * torch.randn(target.shape, generator=g)
    got = measure(task, prediction, target, 2)["median_angle"]
    assert got == pytest.approx(reference_normals(prediction, target)["median_angle"], abs=0.005)


@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_batch_size_does_not_matter(kind):
    task, prediction, target = make(kind)
    whole = measure(task, prediction, target, len(target))
    for batch in (1, 7):
        assert measure(task, prediction, target, batch) == pytest.approx(whole, rel=1e-12)
    assert all(math.isfinite(value) for value in whole.values())


@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_states_are_sums(kind):
    task, prediction, target = make(kind)
    halves = [task.metric(), task.metric()]
    task.update(halves[0], prediction[:2], target[:2])
    task.update(halves[1], prediction[2:], target[2:])
    for name in halves[0]._defaults:
        setattr(halves[0], name, getattr(halves[0], name) + getattr(halves[1], name))
    assert halves[0].compute() == pytest.approx(measure(task, prediction, target, 9), rel=1e-12)
    assert all(reduce is not None for reduce in halves[0]._reductions.values())


@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_a_set_without_labels_is_nan(kind):
    task, prediction, target = make(kind)
    target[...] = torch.as_tensor(task.ignored).to(target.dtype)
    assert all(math.isnan(value) for value in measure(task, prediction, target, 4).values())


@pytest.mark.parametrize("kind", ["semseg", "normals", "saliency"])
def test_half_precision_predictions_and_other_resolutions(kind):
    task, prediction, target = make(kind)
    large = target.repeat_interleave(2, -1).repeat_interleave(2, -2)
    whole = measure(task, prediction.bfloat16(), large, 4)
    # the same through a list of labels of different sizes, as evaluation at the original resolution has
    metric = task.metric()
    task.update(metric, prediction.bfloat16(), list(large))
    assert metric.compute() == pytest.approx(whole, rel=1e-12)
    assert all(math.isfinite(value) for value in whole.values())


def _worker(rank: int, world: int, address: str, kinds: list[str], queue) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    results = {}
    for kind in kinds:
        for images in (N, 1):  # of one image the second process has none
            task, prediction, target = make(kind, images)
            results[kind, images] = measure(task, prediction[rank::world], target[rank::world], 2)
    torch.distributed.destroy_process_group()
    queue.put((rank, results))


def test_two_processes_agree_with_one(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    queue, kinds = context.SimpleQueue(), sorted(REFERENCES)
    address = f"file://{tmp_path}/rendezvous"
    workers = [context.Process(target=_worker, args=(rank, 2, address, kinds, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    results = dict(queue.get() for _ in workers)
    for kind in kinds:
        for images in (N, 1):
            expected = measure(*make(kind, images), 9)
            assert results[0][kind, images] == pytest.approx(expected, rel=1e-12, nan_ok=True)
            assert results[1][kind, images] == pytest.approx(results[0][kind, images], rel=0, nan_ok=True)


def test_angles_are_exact_at_the_ends():
    x = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]).view(1, 1, 1, 5)
    y = torch.tensor([0.0, 1e-5, 0.0, 0.0, 1.0]).view(1, 1, 1, 5)
    prediction = torch.cat([x * 3, y * 3, torch.zeros_like(x)], 1)
    target = torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0]).view(1, 1, 1, 5)
    target = torch.cat([target, torch.zeros_like(target), torch.zeros_like(target)], 1)
    expected = [0.0, math.degrees(1e-5), 180.0, 90.0, 45.0]
    assert angles(prediction, target).flatten().tolist() == pytest.approx(expected, rel=1e-5)
