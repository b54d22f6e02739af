"""Two processes fine-tune and evaluate as one does; run as a program, this file is the two."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from uneven import GROUPS, make

from harness.sampling import Batches
from harness.world import sum_over_processes
from transfer.data.loading import Augmented, collate

ROOT = Path(__file__).resolve().parents[2]
#: Options in two processes, and in one. All but the first make the three steps of one epoch.
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
    "graddrop, accumulated": ([GROUPS, "--balance.name", "graddrop", "--accumulation", "2"],
                              [GROUPS, "--balance.name", "graddrop"]),
    "graddrop on parameters": ([GROUPS, "--balance.name", "graddrop", "--balance.level", "params"],) * 2,
    "uncertainty": ([GROUPS, "--balance.name", "uncertainty"],) * 2,
    "uncertainty, accumulated": ([GROUPS, "--balance.name", "uncertainty", "--accumulation", "2"],
                                 [GROUPS, "--balance.name", "uncertainty"]),
    "individual": ([GROUPS, "--schedule.name", "individual", "--balance.name", "uncertainty"],) * 2,
    "individual optimizers": ([GROUPS, "--schedule.name", "individual_optimizers"],) * 2,
    "roaming": ([GROUPS, "--partition.name", "maximum_roaming"],) * 2,
    "maxl": ([GROUPS, "--tasks", "[scene]", "--schedule.name", "maxl", "--schedule.batches", "train",
              "--schedule.generator_lr", "0.1", "--schedule.generator_l1", "0"],) * 2,  # |x| at 0 turns on noise
    "one task after another": ([GROUPS, "--model.name", "progressive", "--tasks", "[depth, normals]", "--epochs", "1"],
                               ) * 2,
}


#: Samples of the first two batches that the second process has: without labels in the cases below.
APART = {"unlabelled process": {1: (0,)}, "unlabelled process, individual": {1: (0,)},
         "unlabelled process, mgda": {1: (0,)}, "unlabelled batch": {0: (1,), 1: (1,)}}
for _name, _options in {"unlabelled process": [], "unlabelled process, individual": ["--schedule.name", "individual"],
                        "unlabelled process, mgda": ["--balance.name", "mgda", "--balance.mode", "kept"],
                        "unlabelled batch": ["--optimizer.name", "adam", "--balance.name", "uncertainty",
                                             "--accumulation", "2"]}.items():
    CASES[_name] = ([GROUPS, *_options],) * 2
#: These only repeat, in other words, what others show.
SLOW = {"fixed", "uncertainty", "gradnorm", "graddrop on parameters", "individual optimizers", "cagrad, accumulated",
        "unlabelled process, individual", "uncertainty, accumulated", "graddrop, accumulated",
        "unlabelled process, mgda"}


def options_of(case: str, several: bool) -> list[str]:
    options = CASES[case][0 if several else 1]
    return options if case == "whole" or "--epochs" in options else [*options, "--epochs", "1"]


def unlabelled(case: str, transfer) -> set[tuple[int, int]]:
    """Indices of the samples that lose their labels: those of some batches in some of two processes."""
    found = set()
    for rank, numbers in APART.get(case, {}).items():
        batches = list(Batches(len(transfer.train_split), transfer.config.batch_size, transfer.phases.epochs,
                               seed=transfer.config.seed, rank=rank, world=2))
        found |= {tuple(index) for number in numbers for index in batches[number]}
    return found


def train(options: list[str], case: str = "") -> dict[str, object]:
    """Every epoch: 6 + 6 + 4 samples."""
    transfer = make(options)
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    blank = unlabelled(case, transfer)
    log, seen, exchanged = [], [], []
    if transfer.wrapped is not transfer.model:
        transfer.wrapped.register_forward_hook(lambda module, *_: exchanged.append(module.require_backward_grad_sync))
    for indices in transfer.batches:
        batch = collate([samples[index] for index in indices], transfer.tasks)
        for row, index in enumerate(indices):
            for name, target in batch["targets"].items():
                target[row] = transfer.tasks[name].ignored if tuple(index) in blank else target[row]
        transfer.train_step(batch)
        log.append(transfer.log_values())
        seen.append(len(indices))
    state = {name: value for name, value in transfer.model.state_dict().items()}
    return {"log": log, "seen": seen, "state": state, "metrics": transfer.evaluate("test"), "exchanged": exchanged}


@functools.cache
def alone() -> dict[str, object]:
    """One process, two epochs, nothing special."""
    return train([GROUPS])


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


def worker(output: str, slow: bool) -> None:
    results = {case: train(options_of(case, True), case) for case in CASES if (case in SLOW) is slow}
    if not slow:
        results["batch norm"] = batch_norm()
        agree = sum_over_processes(torch.tensor([list(results["whole"]["metrics"]["depth"].values())]))
        results["agree"] = (agree / 2).flatten().tolist()
    if int(os.environ["RANK"]) == 0:
        torch.save(results, output)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each case gave in two processes."""
    return launched(tmp_path_factory.mktemp("pair") / "results.pt", slow=False)


@pytest.fixture(scope="module")
def slow_pair(tmp_path_factory):
    """What each slow case gave."""
    return launched(tmp_path_factory.mktemp("pair") / "results.pt", slow=True)


def launched(output, slow):
    """One launch of both processes for all cases."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, __file__, str(output), "slow" if slow else ""], stderr=subprocess.PIPE,
                          text=True, env=environment, timeout=400)
    assert not done.returncode, done.stderr
    return torch.load(output, weights_only=True)


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case
                                  for case in CASES])
def test_two_processes_give_what_one_gives(request, case):
    pair = request.getfixturevalue("slow_pair" if case in SLOW else "pair")
    two, one = pair[case], alone() if case == "whole" else train(options_of(case, False), case)
    epochs = 1 if "--epochs" in options_of(case, False) and "progressive" not in CASES[case][1] else 2
    assert one["seen"] == [6, 6, 4] * epochs and two["seen"] == [3, 3, 2] * epochs
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
    plain = alone()
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


def test_a_batch_without_labels_makes_no_step(pair):
    """In the second of three batches no process has a label: neither weights nor moments move."""
    log = pair["unlabelled batch"]["log"]
    assert log[1]["loss"] == 0 and not any(key.startswith("loss_") for key in log[1])
    assert all(log[number]["loss"] > 0 for number in (0, 2))
    AcceleratorState._reset_state(True)
    case = "unlabelled batch"
    transfer = make(options_of(case, False))
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    for name in ("first", "second"):
        before = {key: value.clone() for key, value in transfer.model.state_dict().items()}
        batch = collate([samples[0, index] for index in range(6)], transfer.tasks)
        if name == "second":
            for task, target in batch["targets"].items():
                target.fill_(transfer.tasks[task].ignored)
        transfer.train_step(batch)
        same = [torch.equal(before[key], value) for key, value in transfer.model.state_dict().items()]
        assert all(same) if name == "second" else not all(same)
    assert {int(state["step"]) for state in transfer.optimizer.state.values()} == {1}
    assert all(value.grad is None for value in transfer.model.parameters())


def both(output: str, slow: bool) -> int:
    """The two processes, forked from this one, so that what they import is imported once."""
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                worker(output, slow)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return max(os.waitpid(child, 0)[1] for child in children)


if __name__ == "__main__":
    sys.exit(int(both(sys.argv[1], bool(sys.argv[2])) != 0))
