"""What tests of several rooms share: a cache of their own, and the programs with tiny configurations."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_BACKBONE = ["--model.backbone=resnet18", "--model.backbone_options={channels: [8, 8, 16, 16]}"]
QUIET = ["--threads=1", "--loop.trackers=[]"]
TINY = {
    "pretrain": [
        "--data.name=scenes", "--data.count=64", "--data.size=48", "--crops.global_size=32", "--crops.local_size=16",
        "--crops.local_crops=2", "--model.embedding=16", "--queue.size=40", "--neighbors.k=3", "--epochs=2",
        "--batch_size=16", "--probe.every=0", "--loop.log_steps=1", "--workers=0", *TINY_BACKBONE, *QUIET,
    ],
    "transfer": [
        "--data.name=scenes", "--data.train_count=12", "--data.val_count=6", "--data.test_count=6", "--data.size=48",
        "--augmentation.size=32", "--epochs=2", "--batch_size=4", "--loop.log_steps=1", "--workers=0",
        "--evaluation.panels=2", "--baseline=none", *TINY_BACKBONE, *QUIET,
    ],
}
"""Options of the smallest runs; later ones win, so tests append theirs."""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Scenes are rendered once for all tests, and never into the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("TASKLIFT_CACHE", str(folder))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        patch.delenv(name, raising=False)
    yield folder
    patch.undo()


@dataclass
class Finished:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it printed for its error."""
        lines = [line for line in self.err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
        assert self.code == 2 and len(lines) == 1 and "Traceback" not in self.err, (self.code, self.err)
        assert self.err.rstrip().endswith(lines[0]), "the error is not the last thing printed"
        return lines[0].removeprefix("error: ")


class Programs:
    """Runs the two mains, in this process or in one of their own, in a folder of the test's."""

    def __init__(self, folder: Path, monkeypatch, capfd) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        self._started: list[subprocess.Popen] = []
        monkeypatch.chdir(folder)

    def main(self, room: str, *options: str, tiny: bool = True) -> Finished:
        """``<room>/main.py`` in this process, with the tiny configuration and ``options``."""
        return self.call(f"{room}.main", *self.options(room, *options, tiny=tiny))

    @staticmethod
    def options(room: str, *options: str, tiny: bool = True) -> list[str]:
        """The tiny configuration with ``options``; without those of its data set when another one is chosen."""
        other = any(option.startswith("--data.name=") for option in options)
        kept = [option for option in TINY[room] if not (other and option.startswith("--data."))] if tiny else []
        return [*kept, *options]

    def call(self, module: str, *argv: str) -> Finished:
        """The ``main`` of a module in this process."""
        import torch
        from accelerate.state import AcceleratorState, GradientState

        from harness.program import run_program

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        threads, pipe = torch.get_num_threads(), signal.getsignal(signal.SIGPIPE)
        self._monkeypatch.setattr(sys, "argv", [module, *argv])
        path = list(sys.path)
        self._capfd.readouterr()
        try:
            run_program(importlib.import_module(module).main)
        except SystemExit as end:
            code = end.code or 0
        finally:
            torch.set_num_threads(threads)
            signal.signal(signal.SIGPIPE, pipe)
            sys.path[:] = path
        return Finished(code, *self._capfd.readouterr())

    def start(self, room: str, *options: str) -> subprocess.Popen:
        """``<room>/main.py`` in a process of its own."""
        command = [sys.executable, str(REPOSITORY / room / "main.py"), *self.options(room, *options)]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, start_new_session=True)
        self._started.append(process)
        return process

    def clean_up(self) -> None:
        """End what still runs, workers included."""
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            process.stdout.close()


@pytest.fixture
def programs(tmp_path, monkeypatch, capfd):
    """The mains; see :class:`Programs`. One thread: networks this small only wait for each other with more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = Programs(tmp_path, monkeypatch, capfd)
    yield started
    started.clean_up()
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_accelerator():
    """Accelerate's singletons and the number of threads as they were."""
    import torch
    from accelerate.state import AcceleratorState

    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)


@pytest.fixture(name="logged_step")
def logged_step_fixture():
    """The function :func:`logged_step`."""
    return logged_step


def logged_step(folder: Path) -> int:
    """The last step in a run's log, 0 before there is one."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except json.JSONDecodeError:  # still being written
            continue
    return 0


@pytest.fixture
def wait_for_step():
    """A function that waits until a run has logged a step."""

    def wait(process: subprocess.Popen, folder: Path, step: int, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while logged_step(folder) < step:
            if process.poll() is not None:
                pytest.fail(f"ended with {process.returncode} before step {step}: {process.stdout.read()[-2000:]}")
            assert time.monotonic() < end, f"no step {step} in {seconds} s"
            time.sleep(0.002)

    return wait


def same(a: Any, b: Any, where: str = "") -> None:
    """Fail unless two nests of tensors and plain data are equal to the bit."""
    import torch

    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{number}]")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} is not {b}"


@pytest.fixture
def same_runs():
    """A function that fails unless two run folders hold the same weights, states and logs, times apart."""

    def compare(a: Path, b: Path) -> None:
        from safetensors.torch import load_file as load_safetensors

        from harness.checkpoint import load_file
        from harness.run import read_metrics

        names = sorted(path.name for path in (a / "checkpoints").iterdir())
        assert names == sorted(path.name for path in (b / "checkpoints").iterdir())
        for name in names:
            if name.endswith(".pt"):
                states = [load_file(folder / "checkpoints" / name) for folder in (a, b)]
                for state in states:
                    del state["seconds"]
                same(*states, name)
            else:
                same(*(load_safetensors(folder / "checkpoints" / name) for folder in (a, b)), name)
        logs = [[{key: value for key, value in line.items() if key != "time"} for line in read_metrics(folder)]
                for folder in (a, b)]
        same(*logs, "metrics.jsonl")
        results = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (a, b)]
        for metrics in results:
            metrics.pop("time", None)
        same(*results, "results.json")

    return compare
