"""Two processes fine-tune and evaluate as one does; run as a program, this file is one of the two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from harness.config import load
from harness.world import start, sum_over_processes
from transfer.config import TransferConfig
from transfer.data.base import DATASETS, DataSet, Label, Split
from transfer.data.loading import Augmented, collate
from transfer.engine import Transfer

ROOT = Path(__file__).resolve().parents[2]
GROUPS = "{channels: [32, 32, 64, 64], norm_layer: groupnorm}"
COMMON = ["--data.name", "uneven", "--tasks", "[semseg, depth, normals, saliency, scene]", "--model.name", "baseline",
          "--model.backbone", "resnet18", "--model.head", "linear", "--model.output_stride", "8", "--epochs", "2",
          "--augmentation.size", "32", "--batch_size", "6", "--workers", "0", "--threads", "1", "--baseline", "none",
          "--optimizer.name", "sgd", "--optimizer.lr", "0.01", "--evaluation.batch_size", "2",
          "--model.backbone_options"]
CASES = {
    "whole": ([GROUPS], [GROUPS]),
    "accumulated": ([GROUPS, "--accumulation", "2"], [GROUPS]),
    "fixed": ([GROUPS, "--balance.name", "fixed", "--balance.weights", "{depth: 3}"],) * 2,
    "one task after another": ([GROUPS, "--model.name", "progressive", "--tasks", "[depth, normals]", "--epochs", "1"],
                               ) * 2,
}


if "uneven" not in DATASETS.names():

    @DATASETS.register("uneven")
    class Uneven(DataSet):
        """Random labels, many of them missing, and more in some samples than in others."""

        splits = ("train", "val", "test")

        @property
        def labels(self) -> dict[str, Label]:
            classes = ("a", "b", "c", "d")
            return {"semseg": Label("semseg", classes), "depth": Label("depth"), "normals": Label("normals"),
                    "saliency": Label("saliency"), "scene": Label("scene", classes)}

        def load(self, split: str) -> Split:
            return UnevenSplit(split, 16 if split == "train" else 5, tuple(self.tasks))

        def fingerprint(self) -> str:
            return "uneven"


class UnevenSplit(Split):
    def __init__(self, name: str, count: int, tasks: tuple[str, ...]) -> None:
        self.name, self.count, self.tasks = name, count, tasks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        draw = np.random.default_rng((index, len(self.name)))
        normals = draw.normal(size=(36, 40, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        missing = draw.random((36, 40)) < index / self.count  # ever fewer labels
        semseg = np.where(missing, 255, draw.integers(0, 4, (36, 40))).astype(np.uint8)
        depth = np.where(missing, 0, draw.uniform(1, 5, (36, 40))).astype(np.float32)
        targets = {"semseg": semseg, "depth": depth, "normals": np.where(missing[..., None], 0, normals),
                   "saliency": np.where(missing, 255, draw.integers(0, 2, (36, 40))).astype(np.uint8),
                   "scene": np.int64(draw.integers(0, 4))}
        left_out = {"depth": index % 3 == 0, "scene": index % 2 == 1, "saliency": index > 9}
        return {"image": draw.integers(0, 256, (36, 40, 3), dtype=np.uint8), "id": f"{self.name}/{index}",
                "targets": {name: targets[name] for name in self.tasks if not left_out.get(name)}}


def make(options: list[str]) -> Transfer:
    config = load(TransferConfig, [*COMMON, *options])
    transfer = Transfer(config, start(threads=config.threads, cpu=True))
    transfer.model.train()
    return transfer


def train(options: list[str]) -> dict[str, object]:
    """Every epoch: 6 + 6 + 4 samples."""
    transfer = make(options)
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    log, seen, exchanged = [], [], []
    if transfer.world.num_processes > 1:
        transfer.forward.register_forward_hook(lambda module, *_: exchanged.append(module.require_backward_grad_sync))
    for indices in transfer.batches:
        transfer.train_step(collate([samples[index] for index in indices], transfer.tasks))
        log.append(transfer.log_values())
        seen.append(len(indices))
    state = {name: value for name, value in transfer.model.state_dict().items()}
    return {"log": log, "seen": seen, "state": state, "metrics": transfer.evaluate("test"), "exchanged": exchanged}


def batch_norm() -> dict[str, object]:
    """Statistics differ between processes; what is evaluated must be what is saved, the main one's."""
    transfer = make(["{channels: [16, 16, 16, 16]}"])
    with torch.no_grad():
        for buffer in transfer.model.buffers():
            buffer.add_(int(os.environ.get("RANK", 0)))
    return {"metrics": transfer.evaluate("test")}


def worker(output: str) -> None:
    results = {name: train(options) for name, (options, _) in CASES.items()}
    results["batch norm"] = batch_norm()
    agree = sum_over_processes(torch.tensor([list(results["whole"]["metrics"]["depth"].values())]))
    results["agree"] = (agree / 2).flatten().tolist()
    if int(os.environ["RANK"]) == 0:
        torch.save(results, output)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each case gave in two processes."""
    output = tmp_path_factory.mktemp("pair") / "results.pt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    processes = [subprocess.Popen([sys.executable, __file__, str(output)], stderr=subprocess.PIPE, text=True,
                                  env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return torch.load(output, weights_only=True)


@pytest.fixture(autouse=True)
def fresh():
    """Accelerate's singletons and the number of threads as they were."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(pair, case):
    two, one = pair[case], train(CASES[case][1])
    assert one["seen"] == [6, 6, 4] * 2 and two["seen"] == [3, 3, 2] * 2
    for mine, theirs in zip(one["log"], two["log"], strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5)
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=0, atol=1e-5, msg=name)
    assert one["metrics"].keys() == two["metrics"].keys()
    for task, metrics in one["metrics"].items():
        assert two["metrics"][task] == pytest.approx(metrics, rel=1e-4, abs=1e-4, nan_ok=True), task


def test_gradients_are_exchanged_once_for_a_batch(pair):
    assert pair["accumulated"]["exchanged"][:4] == [False, True] * 2
    assert set(pair["whole"]["exchanged"]) == {True}


def test_all_processes_report_the_same_metrics(pair):
    assert pair["agree"] == pytest.approx(list(pair["whole"]["metrics"]["depth"].values()), rel=1e-5)


def test_evaluation_uses_the_statistics_that_are_saved(pair):
    alone = batch_norm()["metrics"]
    for task, metrics in alone.items():
        assert pair["batch norm"]["metrics"][task] == pytest.approx(metrics, rel=1e-4, abs=1e-4, nan_ok=True), task


@pytest.mark.parametrize("options", [["--accumulation", "2"], ["--accumulation", "5"], ["--channels_last", "true"]])
def test_accumulation_and_layout_change_nothing(options):
    plain = train([GROUPS])
    AcceleratorState._reset_state(True)
    other = train([GROUPS, *options])
    for mine, theirs in zip(plain["log"], other["log"], strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5)
    for task, metrics in plain["metrics"].items():
        assert other["metrics"][task] == pytest.approx(metrics, rel=1e-3, abs=1e-3, nan_ok=True), task


def test_evaluation_does_not_depend_on_its_batch_size():
    transfer = make([GROUPS])
    metrics = [transfer.evaluate("test")]
    for size in (1, 5):
        transfer.config.evaluation.batch_size = size
        metrics.append(transfer.evaluate("test"))
    for other in metrics[1:]:
        for task, values in metrics[0].items():
            assert other[task] == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True), task
    assert transfer.model.training


if __name__ == "__main__":
    worker(sys.argv[1])
