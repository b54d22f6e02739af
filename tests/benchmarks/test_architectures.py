"""The table of all architectures: its runs, their scheduler, its arithmetic."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.architectures import (
    APART,
    CONFIGS,
    SEVERAL_SEEDS,
    cells_of,
    collect,
    measured_steps,
    read_rows,
    table_of,
)
from harness.cells import Cell, run_cells
from harness.config import load
from harness.errors import UserError
from mtl_heads import architectures
from transfer.config import TransferConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def python(code: str, done: Path, name: str, after: tuple[str, ...] = ()) -> Cell:
    return Cell(name, [sys.executable, "-S", "-c", code], done, after)


def touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def test_every_architecture_has_a_row():
    configs = [yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")]
    assert {config["model"]["name"] for config in configs} == set(architectures())


def test_budget_is_the_same_for_all():
    budgets = set()
    for path in CONFIGS.glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        del config["model"]
        config["tasks"] = config["tasks"][:2]
        budgets.add(json.dumps(config, sort_keys=True))
    assert len(budgets) == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_row_can_be_built(path):
    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.engine import check

    tasks = ["--tasks=[depth]"] if path.stem in APART else []
    check(load(TransferConfig, tasks, base=path))


def test_rows_bring_their_single_task_networks():
    assert [row.name for row in read_rows(["mtan_segnet", "baseline"])] == [
        "single_task", "baseline", "single_task_segnet", "mtan_segnet"]
    with pytest.raises(UserError, match="'baseline'"):
        read_rows(["basline"])


def test_seeds_and_order(tmp_path):
    rows = read_rows()
    cells = cells_of(rows, tmp_path, ["--epochs=1"])
    names = [cell.name for cell in cells]
    assert len(names) == len(set(names))
    count = sum((3 if row.name in SEVERAL_SEEDS else 1) * (3 if row.name in APART else 1) for row in rows)
    assert len(names) == count
    assert names.index("unet-0") < names.index("baseline-1")
    stitch = next(cell for cell in cells if cell.name == "cross_stitch-0")
    assert stitch.after == tuple(f"single_task-{task}-0" for task in ("semseg", "depth", "normals"))
    assert f"--model.from_single_task=[{', '.join(str(tmp_path / name) for name in stitch.after)}]" in stitch.command
    assert "--epochs=1" in stitch.command and not cells[0].after


def test_failure_leaves_the_others_alone(tmp_path, capsys):
    cells = [
        python("print('what is wrong'); raise SystemExit(2)", tmp_path / "a", "bad"),
        python(touch(tmp_path / "b"), tmp_path / "b", "good"),
        python(touch(tmp_path / "c"), tmp_path / "c", "later", ("good",)),
        python(touch(tmp_path / "d"), tmp_path / "d", "never", ("bad",)),
    ]
    failed = run_cells(cells, tmp_path / "logs", 2)
    assert list(failed) == ["bad", "never"]
    assert "what is wrong (exit code 2" in failed["bad"] and "needs bad" in failed["never"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["b", "c", "logs"]
    capsys.readouterr()
    assert list(run_cells(cells, tmp_path / "logs", 2)) == ["bad", "never"]  # only they are tried again
    assert "2 of 4 runs are finished already" in capsys.readouterr().out


def test_runs_at_once_are_limited_and_have_one_thread(tmp_path):
    code = (f"import os, time; path = os.path.join({str(tmp_path)!r}, 'now-' + str(os.getpid()));"
            "assert os.environ['OMP_NUM_THREADS'] == '1'; open(path, 'w').close(); time.sleep(.2);"
            f"assert len([name for name in os.listdir({str(tmp_path)!r}) if name.startswith('now')]) <= 2;"
            "os.remove(path); ")
    cells = [python(code + touch(tmp_path / f"{i}"), tmp_path / f"{i}", f"cell-{i}") for i in range(5)]
    assert run_cells(cells, tmp_path / "logs", 2) == {}


def test_interrupt_reaches_the_cells(tmp_path):
    code = ("import signal, sys, time\n"
            f"signal.signal(signal.SIGTERM, lambda *_: ({touch(tmp_path / 'saved')}, sys.exit(143)))\n"
            f"{touch(tmp_path / 'ready')}\ntime.sleep(60)")
    script = ("import signal, sys\nfrom pathlib import Path\nfrom harness.cells import Cell, run_cells\n"
              "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
              f"run_cells([Cell('a', [sys.executable, '-S', '-c', {code!r}], Path('never'))], Path('logs'), 1)")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path,
                               env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143 and (tmp_path / "saved").exists()


def result(task_values: dict[str, float], parameters: int, **changes) -> dict:
    tasks = {"semseg": ("mIoU", True), "depth": ("RMSE", False), "normals": ("mean_angle", False)}
    return {
        "name": "x", "dataset": "scenes", "architecture": "x", "backbone": "resnet18", "weights": None, "seed": 0,
        "strategy": {}, "labels": {task: {"task": task} for task in task_values},
        "metrics": {task: {tasks[task][0]: value} for task, value in task_values.items()},
        "primary": {task: tasks[task][0] for task in task_values},
        "higher_is_better": {task: tasks[task][1] for task in task_values}, "single_task": None, "delta_mtl": None,
        "parameters": parameters, "macs": 10 * parameters, "relative": None, "train_seconds": 1.0,
        "step_seconds": 0.1, **changes,
    }


def test_table(tmp_path):
    single = {"semseg": [20.0, 22.0], "depth": [1.0, 0.8], "normals": [30.0, 30.0]}
    multi = [{"semseg": 23.1, "depth": 0.9, "normals": 27.0}, {"semseg": 21.0, "depth": 0.81, "normals": 30.0}]

    def save(name: str, content: dict) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))

    for seed in (0, 1):
        for task, values in single.items():
            save(f"single_task-{task}-{seed}", result({task: values[seed]}, 1_000_000))
        save(f"baseline-{seed}", result(multi[seed], 1_500_000))
    save("jtrl-0", result({"semseg": 21.0, "depth": 0.45}, 3_000_000, relative={"parameters": 5.0, "macs": 7.0}))
    rows = [row for row in read_rows(["single_task", "baseline", "jtrl", "mtan"])]
    collect(rows, tmp_path)
    table = {line.split("|")[1].strip(): [cell.strip(" *") for cell in line.split("|")[2:-1]]
             for line in table_of(rows, {"baseline": 0.1, "jtrl": 0.25}).splitlines()}
    head = table["Architecture"]
    assert head == ["Seeds", "semseg mIoU [%] ↑", "depth RMSE [m] ↓", "normals mean_angle [°] ↓", "Δ_MTL [%] ↑",
                    "Params [M]", "vs ST [%]", "MACs [G]", "vs ST [%]", "Step [ms]", "vs baseline [×]"]
    deltas = [100 * (10 / 100 + 0 + 10 / 100) / 3, 100 * (0 + 10 / 100 + 0) / 3]
    spread = f"{statistics.fmean(deltas):+.1f} ± {statistics.stdev(deltas):.1f}"
    assert table["baseline"] == ["2", "22.05 ± 1.48", "0.855 ± 0.064", "28.50 ± 2.12", spread, "1.50", "-50", "0.01",
                                 "-50", "100", "1.00"]
    assert table["single_task"][4].startswith(("+0.0 ±", "-0.0 ±")) and table["single_task"][-6:] == [
        "3.00", "+0", "0.03", "+0", "–", "–"]
    assert table["jtrl"][3:] == ["–", "+25.0", "3.00", "+50", "0.03", "+50", "250", "2.50"]
    assert table["mtan"] == ["0", *["–"] * 10]


def tiny(name: str, *options: str) -> TransferConfig:
    return load(TransferConfig, [f"--model.name={name}", "--model.backbone=resnet18", "--model.head=linear",
                                 "--model.backbone_options={layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], "
                                 "zero_init_last: false}",
                                 "--augmentation.size=32", "--batch_size=2", *options])


def test_step_times_of_two_rows(monkeypatch):
    """Every row has its turn in each round; a row's time is the sum over its networks, the median over the rounds."""
    from benchmarks import step_time

    turns, clock = [], iter(range(1, 100))

    def step(self):
        turns.append(list(self.tasks))
        return next(clock)

    with monkeypatch.context() as patch:
        patch.setattr(step_time.TrainingStep, "__call__", step)
        rows = {"apart": [tiny("single_task", "--tasks=[depth]"), tiny("single_task", "--tasks=[semseg]")],
                "together": [tiny("baseline", "--tasks=[depth, scene]")]}
        found = step_time.step_times(rows, rounds=3, warm_up=1)
    assert turns == [["depth"], ["semseg"], ["depth", "scene"]] * 4
    assert found == {"apart": 7 + 8, "together": 9}
    found = step_time.step_times(rows, rounds=1, warm_up=0)
    assert all(0 < seconds < 60 for seconds in found.values())


@pytest.mark.parametrize("name", ["baseline", "progressive", "mtan"])
def test_a_timed_step_trains(name):
    """All weights of layers that a loss reaches move, and only they."""
    from benchmarks.step_time import TrainingStep

    step = TrainingStep(tiny(name, "--tasks=[semseg, depth, scene]", "--optimizer.weight_decay=0"))
    assert step.images.shape == (2, 3, 32, 32) and all(value > 0 for value in step.normalizers.values())
    before = {key: value.clone() for key, value in step.model.named_parameters() if value.dim() > 1}
    unreached = {id(value) for value in step.model.unreached_parameters()}
    assert step() > 0
    after = dict(step.model.named_parameters())
    for key, value in before.items():
        assert torch.equal(value, after[key]) == (id(after[key]) in unreached), key


def test_step_times_are_kept(tmp_path, monkeypatch):
    from benchmarks import step_time

    calls = []
    monkeypatch.setattr(step_time, "step_times", lambda rows: calls.append(list(rows)) or dict.fromkeys(rows, 0.5))
    rows = read_rows(["baseline"])
    assert measured_steps(rows, tmp_path, keep=True) == {"single_task": 0.5, "baseline": 0.5}
    assert measured_steps(rows, tmp_path, keep=False)["baseline"] == 0.5 and len(calls) == 1
    more = read_rows(["mtan"])
    assert "mtan" not in measured_steps(more, tmp_path, keep=True) and len(calls) == 1
    assert "mtan" in measured_steps(more, tmp_path, keep=False) and len(calls) == 2
    more[-1].config = {**more[-1].config, "batch_size": 3}
    measured_steps(more, tmp_path, keep=False)
    assert len(calls) == 3


def test_lift_states_all_failures(tmp_path, monkeypatch):
    from benchmarks import lift

    monkeypatch.setattr(lift, "run_main", lambda *_: None)
    monkeypatch.setattr(lift, "run_cells", lambda cells, logs, jobs: {"a": "one", "b": "two"})
    monkeypatch.setattr(sys, "argv", ["lift", f"--output={tmp_path}", "--seeds=2"])
    with pytest.raises(UserError, match="2 of 4 runs failed .a: one; b: two.: mend"):
        lift.main()


@pytest.mark.slow
def test_small_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.architectures", "--small", "--only=baseline", "--seeds=1",
               f"--output={tmp_path / 'runs'}"]
    end = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stdout[-2000:] + end.stderr[-2000:]
    assert "| baseline | 1 |" in (tmp_path / "runs" / "table.md").read_text()
    assert (tmp_path / "runs" / "report.html").exists()
