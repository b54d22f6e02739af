"""The world of processes: the one that was asked for, or a clear error."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from harness.errors import UserError
from harness.world import SharedFlag, available_trackers, broadcast, start, sum_over_processes

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
             "MV2_COMM_WORLD_SIZE", "TASKLIFT_WORLD_SIZE", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "MASTER_ADDR",
             "MASTER_PORT", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU")
PROGRAM = """
from harness.program import run_program
def main():
    from harness.world import start
    world = start()
    print(f"process {world.process_index} of {world.num_processes}", flush=True)
run_program(main)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No launcher's words in the environment, accelerate's singletons and threads restored afterwards."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads, before = torch.get_num_threads(), dict(os.environ)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)
    for name in set(os.environ) - set(before):  # accelerate writes some of its own
        del os.environ[name]


def test_one_process_without_a_launcher():
    world = start(cpu=True, threads=1)
    assert (world.num_processes, world.process_index, world.device.type) == (1, 0, "cpu")
    assert torch.get_num_threads() == 1
    assert SharedFlag().largest(7) == 7
    value = torch.arange(3.0)
    assert sum_over_processes(value) is value
    broadcast([value])


@pytest.mark.parametrize("words", [
    {"SLURM_STEP_NUM_TASKS": "2"},  # srun -n 2 python pretrain/main.py
    {"SLURM_STEP_NUM_TASKS": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
    {"TASKLIFT_WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2"},  # nothing says who and where the others are
    {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},  # mpirun without a meeting point
    {"PMI_SIZE": "3", "PMI_RANK": "0"},
    {"WORLD_SIZE": "1", "PMI_SIZE": "2", "PMI_RANK": "0", "RANK": "0", "MASTER_ADDR": "127.0.0.1"},
    # accelerate launch --cpu --num_processes 2, or on a machine without GPUs --num_processes 2
    {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1",
     "MASTER_PORT": "29500"},
])
def test_several_worlds_of_one_are_an_error(monkeypatch, words):
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    if "PMI_SIZE" in words and "RANK" in words:
        monkeypatch.setenv("MASTER_PORT", str(free_port()))
    try:
        with pytest.raises(UserError, match="--multi_gpu --num_processes N") as error:
            start(cpu=True, threads=1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script of a job with four tasks runs once
    {"SLURM_STEP_NUM_TASKS": "1"},
    {"SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "1"},  # said to be apart
    {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"},  # the user's own, no accelerate launch
    {"ACCELERATE_MIXED_PRECISION": "no"},  # accelerate launch of one
    {"WORLD_SIZE": ""},
])
def test_one_process_that_is_meant(monkeypatch, words):
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    assert start(cpu=True, threads=1).num_processes == 1


def test_half_precision_that_the_machine_lacks():
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        start(cpu=True, mixed_precision="fp16")


def test_trackers_that_are_not_installed_are_left_out():
    assert available_trackers(["json", "no_such_tracker"]) == ["json"]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if key not in LAUNCHERS}
    return subprocess.run(command, env={**clean, "PYTHONPATH": str(ROOT), **environment}, capture_output=True,
                          text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "environment"), [
    (["--cpu", "--num_processes", "2"], {}),
    (["--num_processes", "2"], {"CUDA_VISIBLE_DEVICES": ""}),
    (["--cpu", "--num_machines", "2", "--num_processes", "2", "--machine_rank", "0", "--main_process_ip",
      "127.0.0.1", "--main_process_port", "29777"], {}),
    (["--cpu", "--num_processes", "1"], {"SLURM_STEP_NUM_TASKS": "2"}),
])
def test_launches_that_yield_worlds_of_one(tmp_path, options, environment):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run(accelerate(), "launch", *options, str(program), **environment)
    assert done.returncode
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "--multi_gpu --num_processes N" in errors[0]
    assert "process 0 of 1" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("options", "environment", "processes"), [
    (["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"], {"CUDA_VISIBLE_DEVICES": ""}, 2),
    (["--cpu"], {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, 1),
])
def test_launches_that_work(tmp_path, options, environment, processes):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run(accelerate(), "launch", *options, str(program), **environment)
    assert not done.returncode, done.stderr
    assert sorted(done.stdout.split("\n")[:-1]) == [f"process {i} of {processes}" for i in range(processes)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")
def test_mpirun(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    lost = run("mpirun", "-n", "2", sys.executable, str(program), CUDA_VISIBLE_DEVICES="")
    assert lost.returncode and "--multi_gpu --num_processes N" in lost.stderr
    met = run("mpirun", "-n", "2", sys.executable, str(program), CUDA_VISIBLE_DEVICES="", MASTER_ADDR="127.0.0.1",
              MASTER_PORT=str(free_port()))
    assert sorted(met.stdout.split("\n")[:-1]) == ["process 0 of 2", "process 1 of 2"], met.stderr


def accelerate() -> str:
    return str(Path(sys.executable).with_name("accelerate"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
