"""Two processes fine-tune and evaluate as one does; run as a program, this file is one of the two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from uneven import GROUPS, make

from harness.world import sum_over_processes
from transfer.data.loading import Augmented, collate

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "whole": ([GROUPS], [GROUPS]),
    "accumulated": ([GROUPS, "--accumulation", "2"], [GROUPS]),
    "fixed": ([GROUPS, "--balance.name", "fixed", "--balance.weights", "{depth: 3}"],) * 2,
    "mgda": ([GROUPS, "--balance.name", "mgda"],) * 2,
    "pcgrad lean": ([GROUPS, "--balance.name", "pcgrad", "--balance.mode", "lean"],) * 2,
    "cagrad, accumulated": ([GROUPS, "--balance.name", "cagrad", "--accumulation", "2"],
                            [GROUPS, "--balance.name", "cagrad"]),
    "mgda_ub, accumulated": ([GROUPS, "--balance.name", "mgda_ub", "--accumulation", "2"],
                             [GROUPS, "--balance.name", "mgda_ub"]),
    "gradnorm": ([GROUPS, "--balance.name", "gradnorm"],) * 2,
    "graddrop": ([GROUPS, "--balance.name", "graddrop", "--balance.level", "params"],) * 2,
    "uncertainty": ([GROUPS, "--balance.name", "uncertainty"],) * 2,
    "individual": ([GROUPS, "--schedule.name", "individual", "--balance.name", "uncertainty"],) * 2,
    "individual optimizers": ([GROUPS, "--schedule.name", "individual_optimizers"],) * 2,
    "roaming": ([GROUPS, "--partition.name", "maximum_roaming"],) * 2,
    "maxl": ([GROUPS, "--tasks", "[scene]", "--schedule.name", "maxl", "--schedule.batches", "train",
              "--schedule.generator_lr", "0.1", "--schedule.generator_l1", "0"],) * 2,  # |x| at 0 turns on noise
    "one task after another": ([GROUPS, "--model.name", "progressive", "--tasks", "[depth, normals]", "--epochs", "1"],
                               ) * 2,
}


def train(options: list[str]) -> dict[str, object]:
    """Every epoch: 6 + 6 + 4 samples."""
    transfer = make(options)
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    log, seen, exchanged = [], [], []
    if transfer.wrapped is not transfer.model:
        transfer.wrapped.register_forward_hook(lambda module, *_: exchanged.append(module.require_backward_grad_sync))
    for indices in transfer.batches:
        transfer.train_step(collate([samples[index] for index in indices], transfer.tasks))
        log.append(transfer.log_values())
        seen.append(len(indices))
    state = {name: value for name, value in transfer.model.state_dict().items()}
    return {"log": log, "seen": seen, "state": state, "metrics": transfer.evaluate("test"), "exchanged": exchanged}


def flat(line: dict[str, object], prefix: str = "") -> dict[str, float]:
    """A line of the log without dictionaries in it."""
    found = {}
    for key, value in line.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


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
        assert flat(theirs) == pytest.approx(flat(mine), abs=1e-5)
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
        assert flat(theirs) == pytest.approx(flat(mine), abs=1e-5)
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
