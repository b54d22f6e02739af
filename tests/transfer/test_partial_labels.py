"""Training where each sample has labels of some tasks only, under every balance, schedule and partition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from uneven import make

from transfer.data.loading import collate
from transfer.strategies import balances, partitions, schedules

TASKS = ("semseg", "depth", "scene")
COMMON = ["{channels: [32, 32, 32, 32], norm_layer: groupnorm}", "--tasks", "[semseg, depth, scene]", "--optimizer.lr",
          "0.001"]
COOPERATIVE = ["--model.name", "cooperative", "--schedule.inner_steps", "1", "--schedule.kl_weight", "0.1",
               "--schedule.warmup", "1", "--schedule.samples", "2", "--optimizer.momentum", "0"]
AT_ONCE = ("equal", "uncertainty", "gradnorm", "mgda", "pcgrad", "mgda_ub", "graddrop", "famo", "nash_mtl")
CASES = [
    *(pytest.param(["--balance.name", name], id=name, marks=[] if name in AT_ONCE else pytest.mark.slow)
      for name in balances()),
    *(pytest.param(["--schedule.name", name, *(COOPERATIVE if name == "cooperative" else [])], id=name)
      for name in schedules() if name != "maxl"),  # which learns one image task and its own auxiliary one
    *(pytest.param(["--partition.name", name], id=name) for name in partitions() if name != "full"),
]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def batch(transfer, having: list[tuple[str, ...]]) -> dict:
    """Samples each of which has labels of the named tasks alone."""
    samples = [transfer.train_split[index] for index in (1, 2, 4, 5, 7, 8)]
    other = {"depth": np.full((36, 40), 2.0, np.float32), "scene": np.int64(1)}  # of those that have none
    return collate([{**sample, "targets": {name: sample["targets"].get(name, other.get(name)) for name in names}}
                    for sample, names in zip(samples, having, strict=True)], transfer.tasks)


@pytest.mark.parametrize("options", CASES)
def test_every_strategy_trains_on_partial_labels(options):
    """One task for each sample; a batch without any label of a task; one of a single task; one without any label."""
    transfer = make([*COMMON, *options])
    before = {name: value.clone() for name, value in transfer.model.named_parameters()}
    for having in ([(name,) for name in TASKS] * 2, [("semseg", "scene")] * 6, [("depth",)] * 6,
                   [(), ("semseg",), (), ("depth",), (), ("scene",)], [()] * 6, [(name,) for name in TASKS] * 2):
        transfer.train_step(batch(transfer, having))
        assert not transfer.trouble, transfer.trouble
        assert all(math.isfinite(float(value)) for value in transfer.losses.values())
        labelled = {name for names in having for name in names}
        assert all(float(transfer.losses[name]) == 0 for name in transfer.losses if name not in labelled)
    values = dict(transfer.model.named_parameters())
    assert all(bool(value.isfinite().all()) for value in values.values())
    assert any(not torch.equal(values[name], value) for name, value in before.items())
    assert all(math.isfinite(value) for key, value in transfer.log_values().items() if key.startswith("loss"))


@pytest.mark.parametrize("accumulation", ["1", "3"])
def test_the_loss_is_the_mean_over_labelled_samples_alone(accumulation):
    """Of a batch, whatever its parts: as if the samples without a label of a task were not there."""
    transfer = make([*COMMON, "--accumulation", accumulation])
    having = [("semseg",), ("depth", "scene"), ("semseg", "depth"), (), ("scene",), ("depth",)]
    data = batch(transfer, having)
    expected = {}
    with torch.no_grad():
        for name in TASKS:
            chosen = [index for index, names in enumerate(having) if name in names]
            output = transfer.model(transfer.network.normalise(data["image"][chosen]))
            target, task = data["targets"][name][chosen], transfer.tasks[name]
            expected[name] = float(task.loss(output.predictions[name], target, task.normalizer(target)))
    transfer.train_step(data)
    assert all(value > 0 for value in expected.values())
    for name, value in expected.items():
        assert float(transfer.losses[name]) == pytest.approx(value, rel=1e-4), name


def test_a_task_without_labels_moves_nothing_of_its_own():
    transfer = make([*COMMON, "--optimizer.weight_decay", "0"])
    own = [value.clone() for value in transfer.model.task_parameters("depth")]
    other = [value.clone() for value in transfer.model.task_parameters("semseg")]
    transfer.train_step(batch(transfer, [("semseg", "scene")] * 6))
    assert own and all(map(torch.equal, own, transfer.model.task_parameters("depth")))
    assert not all(map(torch.equal, other, transfer.model.task_parameters("semseg")))


def test_images_of_different_sizes_are_evaluated_at_their_own():
    found = {}
    for size in ("1", "5"):
        transfer = make([*COMMON, "--evaluation.batch_size", size])
        load = transfer.data.load

        def cut(split, load=load):
            samples = load(split)
            whole = type(samples).__getitem__

            class Cut(type(samples)):
                def __getitem__(self, index):
                    sample, rows = whole(self, index), 36 - 4 * (index % 2)
                    targets = {k: v[:rows] if v.ndim else v for k, v in sample["targets"].items()}
                    return {**sample, "image": sample["image"][:rows], "targets": targets}

            return Cut(samples.name, samples.count, samples.tasks)

        transfer.data.load = cut
        found[size] = transfer.evaluate("test")
    for name, metrics in found["1"].items():
        assert found["5"][name] == pytest.approx(metrics, rel=1e-5, nan_ok=True), name


def test_metrics_of_a_split_without_labels_of_a_task_are_undefined():
    transfer = make(COMMON)
    load = transfer.data.load

    def without(split):
        samples = load(split)
        whole = type(samples).__getitem__

        class Bare(type(samples)):
            def __getitem__(self, index):
                sample = whole(self, index)
                return {**sample, "targets": {k: v for k, v in sample["targets"].items() if k != "depth"}}

        return Bare(samples.name, samples.count, samples.tasks)

    transfer.data.load = without
    metrics = transfer.evaluate("test")
    assert all(math.isnan(value) for value in metrics["depth"].values())
    assert math.isfinite(metrics["semseg"]["mIoU"])
