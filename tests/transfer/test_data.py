"""Data sets, augmented samples and batches with missing labels."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from harness.errors import UserError
from transfer.config import TransferConfig
from transfer.data import DATASETS, DataSet, Label, Split
from transfer.data.loading import Augmented, Evaluated, collate, evaluation_batches
from transfer.transforms import Augmentation

H, W = 20, 24


class Tiny(DataSet):
    """Random arrays; every sample lacks some labels."""

    splits = ("train", "val")
    labels = {
        "semseg": Label("semseg", ("wall", "floor", "chair")),
        "parts": Label("parts", ("none", "leg")),
        "depth": Label("depth"),
        "normals": Label("normals"),
        "edge": Label("edge"),
        "saliency": Label("saliency"),
        "scene": Label("scene", ("kitchen", "bedroom")),
        "attributes": Label("attributes", ("red", "round", "big")),
    }

    def load(self, split: str) -> Split:
        return TinySplit(split, tuple(self.tasks))

    def fingerprint(self) -> str:
        return "tiny"


class TinySplit(Split):
    def __init__(self, name: str, tasks: tuple[str, ...]) -> None:
        self.name, self.tasks = name, tasks

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        g = np.random.default_rng(index)
        targets = {
            "semseg": g.integers(0, 3, (H, W)).astype(np.uint8),
            "parts": g.integers(0, 2, (H, W)).astype(np.uint8),
            "depth": g.random((H, W)).astype(np.float32) + 1,
            "normals": g.normal(size=(H, W, 3)).astype(np.float32),
            "edge": g.integers(0, 2, (H, W)).astype(np.uint8),
            "saliency": g.integers(0, 2, (H, W)).astype(np.uint8),
            "scene": np.int64(index % 2),
            "attributes": g.integers(0, 2, 3).astype(np.uint8),
        }
        lacking = {name for i, name in enumerate(targets) if (i + index) % 4 == 0}
        return {
            "image": g.integers(0, 256, (H, W, 3)).astype(np.uint8),
            "id": f"{self.name}/{index}",
            "targets": {name: targets[name] for name in self.tasks if name not in lacking},
        }


def test_a_batch_with_missing_labels():
    data_set = Tiny()
    tasks, split = data_set.tasks, data_set.split("train")
    samples = [split[i] for i in range(6)]
    batch = collate(samples, tasks)
    assert batch["image"].shape == (6, 3, H, W) and batch["image"].dtype == torch.uint8
    assert batch["ids"] == [f"train/{i}" for i in range(6)] and list(batch["targets"]) == list(tasks)
    shapes = {"normals": (6, 3, H, W), "scene": (6,), "attributes": (6, 3)}
    for name, task in tasks.items():
        target = batch["targets"][name]
        assert target.shape == shapes.get(name, (6, H, W))
        missing = [i for i, sample in enumerate(samples) if name not in sample["targets"]]
        assert missing and (target[missing] == task.ignored).all()
        normalizer = task.normalizer(target)
        torch.testing.assert_close(task.normalizer(target[missing]), torch.zeros_like(normalizer))
        assert normalizer.sum() > 0
        for i, sample in enumerate(samples):
            if name in sample["targets"]:
                truth = np.asarray(sample["targets"][name])
                expected = truth.transpose(2, 0, 1) if truth.ndim == 3 else truth
                np.testing.assert_array_equal(target[i].numpy(), expected)


def test_every_task_trains_and_is_measured_on_a_collated_batch():
    data_set = Tiny()
    split = data_set.split("train")
    batch = collate([split[i] for i in range(6)], data_set.tasks)
    for name, task in data_set.tasks.items():
        target = batch["targets"][name]
        shape = (6, task.channels, H // 2, W // 2) if task.dense else (6, task.channels)
        metric = task.metric()
        task.update(metric, torch.randn(shape), target)  # half resolution: resized to the labels
        assert np.isfinite(metric.compute()[task.primary])
        prediction = torch.randn(6, task.channels, *((H, W) if task.dense else ()), requires_grad=True)
        task.loss(prediction, target, task.normalizer(target)).backward()
        assert torch.isfinite(prediction.grad).all() and prediction.grad.any()


def test_chosen_tasks_only_are_read():
    data_set = Tiny()
    tasks = data_set.choose(["normals", "scene"], {"normals": {"loss": "cosine"}})
    assert list(tasks) == list(data_set.tasks) == ["normals", "scene"] and tasks["normals"].cosine
    assert set(data_set.split("val")[1]["targets"]) <= {"normals", "scene"}
    assert tasks["scene"].classes == ("kitchen", "bedroom") and tasks["scene"].name == "scene"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.choose(["deph"]), "did you mean 'depth'"),
        (lambda d: d.choose([]), "no task chosen"),
        (lambda d: d.choose(["depth", "depth"]), "named twice"),
        (lambda d: d.choose(["depth"], {"depht": {}}), "did you mean 'depth'"),
        (lambda d: d.split("test"), "it has train, val"),
        (lambda d: DATASETS.get("scene"), "did you mean 'scenes'"),
        (lambda d: DATASETS.get("scenes")(train_count=0), "train_count is 0"),
        (lambda d: DATASETS.get("scenes")(size=3), "size 3"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call(Tiny())


def augmented(seed: int = 0) -> tuple[Augmented, dict]:
    data_set = Tiny()
    augmentation = Augmentation(rotation=15, scale=(0.8, 1.2), size=16, jitter=0.2)
    return Augmented(data_set.split("train"), data_set.tasks, augmentation, seed), data_set.tasks


def test_augmentation_depends_on_seed_epoch_and_sample_alone():
    (first, _), (again, _), (other, _) = augmented(), augmented(), augmented(1)
    pictures = {key: first[key]["image"].tobytes() for key in [(0, 1), (1, 1), (0, 2)]}
    assert len(set(pictures.values())) == 3
    assert again[1, 1]["image"].tobytes() == pictures[1, 1] != other[1, 1]["image"].tobytes()
    assert len(first) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(workers):
    data, tasks = augmented()
    loader = DataLoader(
        data,
        batch_sampler=[[(3, 0), (3, 4), (3, 2)], [(3, 1), (3, 5), (3, 3)]],
        num_workers=workers,
        collate_fn=functools.partial(collate, tasks=tasks),
    )
    batches = list(loader)
    expected = collate([data[3, i] for i in (0, 4, 2)], tasks)
    assert batches[0]["image"].shape == (3, 3, 16, 16)
    assert torch.equal(batches[0]["image"], expected["image"])
    for name in tasks:
        assert torch.equal(batches[0]["targets"][name], expected["targets"][name])


def test_evaluation_keeps_labels_at_their_resolution():
    data_set = Tiny()
    split = data_set.split("val")
    sample = Evaluated(split, 32)[1]
    assert sample["image"].shape == (32, 32, 3)
    batch = collate([sample, Evaluated(split, 32)[2]], data_set.tasks)
    assert batch["image"].shape == (2, 3, 32, 32) and batch["targets"]["edge"].shape == (2, H, W)
    np.testing.assert_array_equal(Evaluated(split)[1]["image"], split[1]["image"])


def test_labels_of_different_sizes_stay_apart():
    tasks = Tiny().choose(["semseg", "scene"])
    samples = [
        {
            "image": np.zeros((8, 8, 3), np.uint8),
            "id": str(i),
            "targets": {"semseg": np.full((4 + i, 6), i, np.uint8)},
        }
        for i in range(2)
    ]
    batch = collate(samples, tasks)
    assert [target.shape for target in batch["targets"]["semseg"]] == [(4, 6), (5, 6)]
    assert batch["targets"]["scene"].tolist() == [-1, -1]
    metric = tasks["semseg"].metric()
    tasks["semseg"].update(metric, torch.randn(2, 3, 8, 8), batch["targets"]["semseg"])
    assert metric.confmat.sum() == 4 * 6 + 5 * 6
    samples[1]["image"] = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(UserError, match="different sizes"):
        collate(samples, tasks)


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_batches_images_of_one_size(size, workers):
    tasks = Tiny().choose(["semseg", "scene"])

    class Uneven(TinySplit):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "image": sample["image"][: H - index % 3], "targets": {"scene": np.int64(index % 2)}}

    config = TransferConfig(workers=workers)
    config.evaluation.batch_size = size
    batches = list(evaluation_batches(Evaluated(Uneven("val", ("scene",))), tasks, config))
    assert len(batches) == {1: 6, 2: 6, 6: 3}[size]
    assert sorted(name for batch in batches for name in batch["ids"]) == [f"val/{index}" for index in range(6)]
    for batch in batches:
        numbers = [int(name[-1]) for name in batch["ids"]]
        assert {H - number % 3 for number in numbers} == {batch["image"].shape[2]}
        assert batch["targets"]["scene"].tolist() == [number % 2 for number in numbers]
        assert batch["targets"]["semseg"].shape == (len(numbers), batch["image"].shape[2], W)


def test_collate_pickles():
    data, tasks = augmented()
    pickle.loads(pickle.dumps((data, functools.partial(collate, tasks=tasks))))
