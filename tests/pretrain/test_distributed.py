"""Two processes train as one does; run as a program, this file is one of the two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import pretrain.engine
from harness.config import load
from harness.errors import UserError
from harness.world import SharedFlag, main_first, start
from pretrain.config import PretrainConfig
from pretrain.engine import Pretraining
from pretrain.moco import gather
from pretrain.sources import Source
from pretrain.views import Views, collate

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ["--model.backbone_options", "{channels: [32, 32, 64, 64], norm_layer: groupnorm, output_stride: 8}"]
BATCHES = ["--model.backbone_options", "{channels: [8, 8, 16, 16], stem_width: 8, output_stride: 8}"]
COMMON = ["--model.backbone", "resnet18", "--model.embedding", "16", "--crops.global_size", "32",
          "--crops.local_size", "16", "--crops.local_crops", "2", "--queue.size", "21", "--neighbors.k", "3",
          "--momentum", "0.9", "--epochs", "2", "--batch_size", "8", "--workers", "0", "--threads", "1",
          "--augmentation.name", "none", "--loop.log_steps", "1", "--drop_last", "false", "--optimizer.lr",
          "0.03"]
# What the two processes do, and what one does to match it.
CASES = {
    "whole": ([*GROUPS], [*GROUPS]),
    "accumulated": ([*GROUPS, "--accumulation", "2"], [*GROUPS]),
    # With batch norm, each process is a part of the batch that is normalised apart, keys shuffled.
    "shuffled": ([*BATCHES], [*BATCHES, "--model.batch_norm_splits", "2"]),
}


class Noise(Source):
    """Random images in memory, smooth so that crops of them resemble each other."""

    def __init__(self, count: int = 20) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
        self.images = [np.asarray(Image.fromarray(image).resize((40, 40))) for image in coarse]

    def __len__(self) -> int:
        return len(self.images)

    def open(self, number: int) -> np.ndarray:
        return self.images[number]

    def fingerprint(self) -> str:
        return f"noise-{len(self)}"


@contextmanager
def double_precision() -> Iterator[None]:
    """What computes in single precision computes in double: rounding cannot pass for a difference, nor hide one."""
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = single
        torch.set_default_dtype(torch.float32)


@double_precision()
def train(options: list[str]) -> dict[str, object]:
    """Every epoch: 8 + 8 + 4 images."""
    config = load(PretrainConfig, [*COMMON, *options])
    world = start(threads=config.threads, cpu=True)
    pretraining = Pretraining(config, world, Noise())
    pretraining.moco.train()
    views = Views(pretraining.source, pretraining.crops, config.seed)
    log, images = [], []
    for indices in pretraining.batches:
        pretraining.train_step(collate([views[index] for index in indices]))
        log.append(pretraining.log_values())
        images.append(len(indices))
    state = pretraining.moco.state_dict()
    same = all(bool((rows == rows[:1]).all()) for rows in (gather(value[None]) for value in (
        pretraining.moco.queues.head, pretraining.moco.queues.backbone, pretraining.moco.queues.index,
        *pretraining.moco.query.parameters())))
    return {"log": log, "state": {name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
            "images": images, "pointer": pretraining.moco.queues.pointer, "same": same,
            "processes": world.num_processes}


def together() -> dict[str, object]:
    """What goes wrong on one process, and parameters that no loss reaches."""
    rank, flag, said = int(os.environ["RANK"]), SharedFlag(), {}

    def attempt(name: str, do: Callable[[], object]) -> object:
        result = None
        try:
            result = do()
        except UserError as error:
            said[name] = str(error)
        return result

    def build() -> int:
        if rank == 1:
            raise UserError("no such folder")
        return 7

    config = load(PretrainConfig, [*COMMON, *GROUPS])
    world = start(threads=config.threads, cpu=True)
    attempt("build", lambda: main_first(world, build))
    assert main_first(world, lambda: 7) == 7 and flag.gather(rank) == [0, 1]
    create = pretrain.engine.create_backbone

    def with_idle_part(*arguments: object) -> torch.nn.Module:
        backbone = create(*arguments)
        backbone.idle = torch.nn.Linear(2, 2)
        return backbone

    pretrain.engine.create_backbone = with_idle_part
    try:
        pretraining = Pretraining(config, world, Noise())
    finally:
        pretrain.engine.create_backbone = create
    pretraining.moco.train()
    views = Views(pretraining.source, pretraining.crops, config.seed)
    for indices in list(pretraining.batches)[:2]:
        pretraining.train_step(collate([views[index] for index in indices]))
    pretraining.unreadable = {f"{number} of {rank}": "damaged" for number in range(1)}
    pretraining.log_values()
    pooled = dict(pretraining.unreadable)
    pretraining.unreadable = {f"{number} of {rank}": "damaged" for number in range(2)}
    attempt("unreadable", pretraining._judge_unreadable)
    return {"said": flag.gather(said), "pooled": flag.gather(pooled)}


def worker(output: str) -> None:
    results = {name: train(options) for name, (options, _) in CASES.items()}
    results["together"] = together()
    if int(os.environ["RANK"]) == 0:
        torch.save(results, output)
    torch.distributed.destroy_process_group()


# -- two processes against one ------------------------------------------------------------------------


def start_pair(script: Path, *arguments: str) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    return [subprocess.Popen([sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True,
                             env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each case gave in two processes."""
    output = tmp_path_factory.mktemp("pair") / "results.pt"
    processes = start_pair(Path(__file__), str(output))
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return torch.load(output, weights_only=True)


@pytest.fixture
def alone():
    """Trains in this process; accelerate's singletons and threads as they were afterwards."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield train
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(pair, alone, case):
    two, one = pair[case], alone(CASES[case][1])
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["same"]  # queues and weights are equal on both
    assert two["images"] == [4, 4, 2, 4, 4, 2] and one["images"] == [8, 8, 4, 8, 8, 4]
    exact = 1e-12
    for mine, theirs in zip(one["log"], two["log"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "instance_loss", "neighbor_loss", "top1", "queue_age", "queue_filled"):
            assert theirs[name] == pytest.approx(mine[name], abs=exact, nan_ok=True), name
    assert one["pointer"] == two["pointer"] == 40 % 21
    assert torch.equal(one["state"]["queues.index"], two["state"]["queues.index"])
    for name, value in one["state"].items():
        if case == "shuffled" and ("running" in name or "tracked" in name):
            continue  # of its own part in each process, of both in one
        torch.testing.assert_close(two["state"][name], value, rtol=0, atol=exact, msg=name)


def test_what_goes_wrong_on_one_process_stops_all(pair):
    found = pair["together"]
    assert [said["build"] for said in found["said"]] == ["process 1 stopped: no such folder", "no such folder"]
    assert found["pooled"] == [{"0 of 0": "damaged", "0 of 1": "damaged"}] * 2
    assert len({said["unreadable"] for said in found["said"]}) == 1
    assert found["said"][0]["unreadable"].startswith("4 of the 16 images seen cannot be read, the first being 0 of 0 ")


# -- the program --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(24):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((64, 48)).save(folder / f"{number:02d}.jpg")
    return folder


def launch(photos: Path, folder: Path, *options: str):
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [str(accelerate), "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0",
               str(ROOT / "pretrain" / "main.py"), "--data.name", "folder", "--data.root", str(photos),
               "--output", str(folder), "--model.backbone", "resnet18",
               "--model.backbone_options", "{channels: [8, 8, 16, 16], stem_width: 8}", "--crops.global_size", "32",
               "--crops.local_size", "16", "--crops.local_crops", "1", "--queue.size", "12", "--neighbors.k", "2",
               "--batch_size", "8", "--epochs", "3", "--workers", "1", "--probe.every", "0", "--loop.log_steps", "1",
               "--optimizer.lr", "0.01", "--loop.trackers", "[]", *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder.parent, env=environment)


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_accelerate_launch_of_two_processes(photos, tmp_path):
    done = launch(photos, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 10))  # as in one: 3 × 24 / 8
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["processes"], results["images"], results["threads"]) == (2, 24, max(1, cores() // 2))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "checkpoints" / "backbone.safetensors").exists()
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_two_processes_resume(photos, tmp_path):
    whole = launch(photos, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    plugin = tmp_path / "stop.py"  # the main process dies at once after its second checkpoint
    plugin.write_text(
        "import os, signal\nfrom harness.checkpoint import CheckpointStore\nsave = CheckpointStore.save\n"
        "def deadly(self, state, **options):\n    save(self, state, **options)\n"
        "    if state['step'] == 6:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "CheckpointStore.save = deadly\n")
    killed = launch(photos, tmp_path / "cut", "--plugin", str(plugin))
    assert killed.returncode and not (tmp_path / "cut" / "results.json").exists()
    resumed = launch(photos, tmp_path / "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert "continues" in resumed.stdout and "step 6" in resumed.stdout
    first, second = (torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)
                     for name in ("whole", "cut"))
    for part in ("query", "key", "queues"):
        for name, value in first[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(second[part][name], value), name
    untimed = [[{key: value for key, value in line.items() if key != "time"} for line in metrics(tmp_path / name)]
               for name in ("whole", "cut")]
    assert untimed[0] == untimed[1]


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share(photos, tmp_path):
    done = launch(photos, tmp_path / "run", "--batch_size", "7")
    errors = [line for line in done.stderr.splitlines() if "error: batch_size 7 is over all processes" in line]
    assert done.returncode and errors


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    worker(sys.argv[1])
