"""One SLURM for all tests of this folder, and tiny runs that are launched on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PRETRAIN = ["--epochs=4", "--workers=1", "--loop.save_steps=3", "--data.count=60", "--drop_last=false"]
"""16 steps; a last partial batch, a data worker, saves that are not at the ends of epochs."""
PACE = """
# In its first life (or lives) the run waits at every step, so that a test has the time to disturb it, and where a test
# says so at one step for the signal, however long that takes.
import os, signal, time
from harness.interrupts import ORDERS, Interrupts
from pretrain.engine import Pretraining
step, handle, told = Pretraining.train_step, Interrupts._handle, []
def noted(self, number, frame):
    told.append(number)
    handle(self, number, frame)
def slow(self, batch):
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) < int(os.environ.get("TASKLIFT_TEST_LIVES", 1)):
        time.sleep(float(os.environ.get("TASKLIFT_TEST_PACE", 0.4)))
        while self.step == int(os.environ.get("TASKLIFT_TEST_HOLD", -1)) and not ORDERS.pending:
            if signal.SIGUSR2 in told:
                break
            time.sleep(0.05)
    step(self, batch)
Interrupts._handle, Pretraining.train_step = noted, slow
"""


def _cluster_module():
    spec = importlib.util.spec_from_file_location("tasklift_test_cluster", Path(__file__).with_name("cluster.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


cluster_module = _cluster_module()


@pytest.fixture(scope="session")
def cluster():
    """A SLURM with two nodes; skipped, saying so, where it is not installed. It leaves no process, port or file."""
    if missing := cluster_module.missing():
        pytest.skip(f"SLURM is not installed ({', '.join(missing)} missing): apt-get install slurmctld slurmd "
                    "slurm-client munge")
    folder = Path(tempfile.mkdtemp(prefix="tasklift-slurm-", dir="/tmp"))
    running = cluster_module.Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        left = [pid for pid in cluster_module.processes_of(folder) if cluster_module.alive(pid)]
        shutil.rmtree(folder)
        assert not left, f"processes of the cluster are left: {left}"
        assert not any(cluster_module.listens(port) for port in running.ports)


@dataclass
class Finished:
    """How a launch ended."""

    code: int
    out: str
    err: str

    @property
    def jobs(self) -> list[str]:
        """Ids of what was submitted."""
        lines = self.out.splitlines()
        return [line.split()[1].rstrip(":") for line, below in zip(lines, lines[1:], strict=False)
                if line.startswith("job ") and below.lstrip().startswith("writes ")]

    @property
    def error(self) -> str:
        """The one line that it printed for its error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 2 and len(lines) == 1 and "Traceback" not in self.err, (self.code, self.out, self.err)
        return lines[0].removeprefix("error: ")


class Launcher:
    """Calls ``python -m slurm.launch`` in a folder of the test's."""

    def __init__(self, folder: Path, cluster=None) -> None:
        self.folder, self.cluster = folder, cluster
        (folder / "pace.py").write_text(PACE)

    def __call__(self, *words: str, seconds: float = 800, **environment: str) -> Finished:
        """Call it, on a SLURM if there is one, and wait for it."""
        extra = {**(self.cluster.environment if self.cluster else {}), **environment}
        if self.cluster and not any(word.startswith("--time") for word in words):
            words = ("--time=30m", *words)
        done = subprocess.run(
            [sys.executable, "-m", "slurm.launch", *words], cwd=self.folder, capture_output=True, text=True,
            timeout=seconds, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **extra})
        return Finished(done.returncode, done.stdout, done.stderr)

    def submit(self, *words: str, **environment: str) -> str:
        """Call it, and return the id of the one job."""
        done = self(*words, **environment)
        assert done.code == 0, (done.out, done.err)
        (number,) = done.jobs
        return number

    def wait_for_step(self, run: str, step: int, logged_step, job: str, seconds: float = 300) -> None:
        """Wait until a run has logged a step."""
        until = time.monotonic() + seconds
        while logged_step(self.folder / run) < step:
            state = self.cluster.state(job)
            assert state not in ("FAILED", "COMPLETED", "CANCELLED") and time.monotonic() < until, self.log(run)
            time.sleep(0.05)

    def wait_for_words(self, run: str, words: str, seconds: float = 300) -> None:
        """Wait until a run has printed something."""
        until = time.monotonic() + seconds
        while words not in self.log(run):
            assert time.monotonic() < until, self.log(run)
            time.sleep(0.1)

    def wait(self, job: str, *states: str, run: str = "", seconds: float = 600) -> dict[str, str]:
        """Wait until a job is in one of ``states``."""
        try:
            return self.cluster.wait(job, *states, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(run)}") from None

    def log(self, run: str) -> str:
        """What the processes of a run printed."""
        files = sorted((self.folder / "slurm" / run).glob("*_log.out"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-4000:]}" for file in files)


@pytest.fixture
def launch(tmp_path, cluster):
    """A :class:`Launcher` on the cluster."""
    return Launcher(tmp_path, cluster)


@pytest.fixture
def launch_here(tmp_path):
    """A :class:`Launcher` on a machine without SLURM."""
    return Launcher(tmp_path)


def _options(room: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("tasklift_test_options", REPOSITORY / "tests" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.TINY[room]


@pytest.fixture(scope="session")
def tiny_pretraining():
    """A function that returns the words of a tiny pretraining into a folder."""

    def words(output: str, *more: str) -> list[str]:
        return ["pretrain/main.py", *_options("pretrain"), *PRETRAIN, f"--output={output}", *more]

    return words


@pytest.fixture(scope="session")
def tiny_transfer():
    """A function that returns the words of a tiny transfer run."""

    def words(*more: str) -> list[str]:
        return ["transfer/main.py", *_options("transfer"), *more]

    return words


@pytest.fixture(scope="session")
def whole(tmp_path_factory, tiny_pretraining, cache):
    """A function that returns the folder of the undisturbed run of so many processes, without SLURM."""
    folder = tmp_path_factory.mktemp("whole")
    here = Launcher(folder)

    def run(processes: int = 1) -> Path:
        output = folder / f"run-{processes}"
        if not output.exists():
            done = here("--cluster=local", f"--tasks_per_node={processes}", "--wait", "--",
                        *tiny_pretraining(output.name), PATH=without_slurm())
            assert done.code == 0, (done.out, done.err)
        return output

    return run


@pytest.fixture
def path_without_slurm():
    """A PATH on which SLURM is not installed."""
    return without_slurm()


def without_slurm() -> str:
    """A PATH on which SLURM is not installed."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "sbatch").exists())
