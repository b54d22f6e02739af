"""The table of all strategies: its rows, its runs, its arithmetic."""

from __future__ import annotations

import json
import statistics
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.multifashion import CONFIG, LEFT_OUT, OPTIONS, SEVERAL_SEEDS, cells_of, collect, read_rows, table_of
from harness.errors import UserError
from transfer.data.idx import FILES
from transfer.strategies import balances, partitions, schedules

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def garments(tmp_path):
    """A folder of tiny idx files."""
    folder = tmp_path / "idx"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for (images, labels), count in zip(FILES.values(), (64, 32), strict=True):
        for name, array in ((images, generator.integers(0, 256, (count, 28, 28))),
                            (labels, generator.integers(0, 10, count))):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / name).write_bytes(header + array.astype(np.uint8).tobytes())
    return folder


def test_every_strategy_has_a_row():
    rows = {row.name: row for row in read_rows()}
    everything = {"balance": balances(), "schedule": schedules(), "partition": partitions()}
    for kind, names in everything.items():
        for name in names:
            key = f"{kind}:{name}" if f"{kind}:{name}" in rows else name
            assert name in LEFT_OUT[kind] or f"--{kind}.name={name}" in rows[key].options
    left_out = {name for names in LEFT_OUT.values() for name in names}
    assert len(rows) == 2 + sum(len(set(names) - left_out) for names in everything.values())
    assert set(OPTIONS) <= set(rows)


def test_order_and_seeds():
    rows = read_rows()
    names = [row.name for row in rows]
    assert names[: len(SEVERAL_SEEDS)] == list(SEVERAL_SEEDS)
    assert all(row.seeds == (3 if row.name in SEVERAL_SEEDS else 1) for row in rows)
    assert all(row.seeds == 1 for row in read_rows(seeds=1))


def test_only_brings_the_single_task_networks():
    assert [row.name for row in read_rows(["dwa"])] == ["single_task", "dwa"]
    with pytest.raises(UserError, match="did you mean 'equal'"):
        read_rows(["equla"])


def test_cells(tmp_path):
    rows = read_rows(["equal", "random_loss"], seeds=2)
    cells = cells_of(rows, tmp_path, ["--epochs=3"])
    assert [cell.name for cell in cells] == ["single_task-left-0", "single_task-right-0", "equal-0", "random_loss-0",
                                             "single_task-left-1", "single_task-right-1", "equal-1"]
    single, shared = cells[0].command, cells[3].command
    assert "--tasks=[left]" in single and "--model.name=single_task" in single and "--epochs=3" in single
    assert "--tasks=[left, right]" in shared and "--balance.name=random_loss" in shared and "--seed=0" in shared
    assert single[single.index("--config") + 1] == str(CONFIG)
    assert cells[3].done == tmp_path / "random_loss-0" / "results.json"


def test_every_row_can_be_built(garments):
    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.engine import check

    for row in read_rows():
        tasks = ["--tasks=[left]"] if row.name == "single_task" else []
        check(load(TransferConfig, [f"--data.root={garments}", *row.options, *tasks], base=CONFIG))


def save(folder: Path, left: float | None = None, right: float | None = None, seconds: float = 0.1) -> None:
    metrics = {task: {"accuracy": value} for task, value in (("left", left), ("right", right)) if value is not None}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({
        "name": folder.name, "dataset": "multifashion", "architecture": "x", "backbone": "lenet", "weights": None,
        "seed": 0, "strategy": {}, "metrics": metrics, "primary": dict.fromkeys(metrics, "accuracy"),
        "labels": {task: {"task": "classification"} for task in metrics},
        "higher_is_better": dict.fromkeys(metrics, True), "single_task": None, "delta_mtl": None, "parameters": 1,
        "macs": 1, "relative": None, "train_seconds": 1.0, "step_seconds": seconds}))


def test_table(tmp_path):
    for seed, (left, right) in enumerate([(80.0, 90.0), (82.0, 90.0), (84.0, 90.0)]):
        save(tmp_path / f"single_task-left-{seed}", left=left)
        save(tmp_path / f"single_task-right-{seed}", right=right, seconds=0.2)
    for seed, left in enumerate((82.0, 83.64)):
        save(tmp_path / f"equal-{seed}", left, 90.0)
    save(tmp_path / "individual-0", 73.8, 81.0, 0.15)
    rows = read_rows(["equal", "individual", "dwa"])
    collect(rows, tmp_path)
    table = {line.split("|")[1].strip(): [cell.strip(" *") for cell in line.split("|")[2:-1]]
             for line in table_of(rows).splitlines()}
    assert table["Strategy"] == ["Kind", "Seeds", "left accuracy [%] ↑", "right accuracy [%] ↑", "Δ_MTL [%] ↑",
                                 "Step [ms]", "of equal's"]
    deltas = [0, 100 * 1.64 / 82 / 2]
    assert table["equal"] == ["–", "2", f"82.82 ± {statistics.stdev((82, 83.64)):.2f}", "90.00 ± 0.00",
                              f"+0.50 ± {statistics.stdev(deltas):.2f}", "100", "1.00"]
    assert table["individual"] == ["schedule", "1", "73.80", "81.00", "-10.00", "150", "1.50"]
    assert table["single_task"][1:3] == ["3", "82.00 ± 2.00"] and table["single_task"][-2:] == ["300", "3.00"]
    assert table["dwa"] == ["balance", "0", *["–"] * 5]


@pytest.mark.slow
def test_small_run(tmp_path, garments):
    command = [sys.executable, "-m", "benchmarks.multifashion", "--small", "--only=equal", "--seeds=1", "--jobs=1",
               f"--output={tmp_path / 'runs'}", "--", f"--data.root={garments}", "--batch_size=16"]
    end = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stdout[-2000:] + end.stderr[-2000:]
    assert "| equal | – | 1 |" in (tmp_path / "runs" / "table.md").read_text()
    assert (tmp_path / "runs" / "report.html").exists()
