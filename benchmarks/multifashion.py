"""Every strategy on two garments in one image: accuracies, Δ_MTL and time of a step in one table.

    python -m benchmarks.multifashion [--small] [--only NAME,NAME] [--seeds 3] [--epochs N] [--jobs CORES] [-- OPTION…]

A row is ``configs/transfer/multifashion/lenet.yaml`` with one balance, schedule or partition that is not the plain
one; the rows are what is registered, so that a new strategy has one. Every run is an ordinary run of
``transfer/main.py`` with one thread, and as many run at once as there are cores. A second start of this command goes
on where the first one stopped; a run that fails leaves the others alone, and is tried again at the next start. What is
finished is in ``table.md`` and ``report.html`` at the end, and with ``--table`` at once. Options after ``--`` go to
every run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.architectures import mean_singles
from harness.cells import Cell, run_cells
from harness.errors import UserError, closest
from harness.files import write_text
from harness.program import run_program
from harness.registry import load_plugin

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "transfer" / "multifashion" / "lenet.yaml"
REFERENCE = "single_task"
#: Rows that have several seeds, in the table's order; the others follow, and have one.
SEVERAL_SEEDS = (REFERENCE, "equal", "uncertainty", "gradnorm", "dwa", "mgda", "mgda_ub", "pcgrad", "cagrad",
                 "individual_optimizers", "maximum_roaming")
#: Without a row: each kind's plain choice, and ``fixed`` without weights, are the row of ``equal``.
LEFT_OUT = {"balance": ("equal", "fixed"), "schedule": ("shared",), "partition": ("full",)}
#: What rows need beyond their name. Cooperative learning is for tasks with encoders of their own, and its inner steps,
#: divergence and warm-up (here an epoch) have no published values. MAXL makes up labels that help one of the tasks, and
#: there is no validation split for it.
OPTIONS = {"cooperative": ("--model.name=cooperative", "--schedule.inner_steps=1", "--schedule.kl_weight=0",
                           "--schedule.warmup=235"),
           "maxl": ("--schedule.primary=left", "--schedule.batches=train")}
SMALL = ("--epochs=1", "--data.train_count=1024", "--data.test_count=512")


@dataclass
class Row:
    """One row of the table.

    Args:
        name: of the strategy, or of the reference.
        kind: of its strategy: balance, schedule or partition; empty for the reference.
        options: dotted options that make it, over the configuration.
        seeds: how many.
    """

    name: str
    kind: str
    options: tuple[str, ...]
    seeds: int
    results: list[dict[str, Any]] = field(default_factory=list)

    def runs(self, seed: int, tasks: Sequence[str]) -> dict[str, list[str]]:
        """Names of its runs with a seed, and the tasks of each."""
        if self.name == REFERENCE:
            return {f"{self.name}-{task}-{seed}": [task] for task in tasks}
        return {f"{self.name}-{seed}": list(tasks)}


def read_rows(only: Iterable[str] = (), seeds: int = 3) -> list[Row]:
    """A row for every registered strategy, and the single-task networks that they are compared with.

    Args:
        only: names of rows; all when empty.
        seeds: of the rows that have several.

    Raises:
        UserError: there is no row of a name.
    """
    from transfer.strategies import balances, partitions, schedules

    rows = {REFERENCE: Row(REFERENCE, "", ("--model.name=single_task",), seeds), "equal": Row("equal", "", (), seeds)}
    for kind, names in (("balance", balances()), ("schedule", schedules()), ("partition", partitions())):
        for name in (name for name in names if name not in LEFT_OUT[kind]):
            key = f"{kind}:{name}" if name in rows else name
            rows[key] = Row(key, kind, (f"--{kind}.name={name}", *OPTIONS.get(name, ())),
                            seeds if name in SEVERAL_SEEDS else min(1, seeds))
    order = [*(name for name in SEVERAL_SEEDS if name in rows), *(name for name in rows if name not in SEVERAL_SEEDS)]
    wanted = set(only or rows) | {REFERENCE}
    for name in wanted:
        if name not in rows:
            raise UserError(f"--only: there is no row '{name}'{closest(name, rows)}: choose of {', '.join(order)}")
    return [rows[name] for name in order if name in wanted]


def all_tasks() -> list[str]:
    """Tasks of the configuration."""
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["tasks"]


def cells_of(rows: list[Row], output: Path, options: Sequence[str]) -> list[Cell]:
    """The runs of all rows: first seeds first, so that an early table has all rows."""
    cells = []
    for seed in range(max(row.seeds for row in rows)):
        for row in (row for row in rows if seed < row.seeds):
            for name, tasks in row.runs(seed, all_tasks()).items():
                folder = output / name.replace(":", "-")
                command = [sys.executable, str(ROOT / "transfer" / "main.py"), "--config", str(CONFIG),
                           f"--tasks=[{', '.join(tasks)}]", f"--seed={seed}", f"--output={folder}", "--baseline=none",
                           "--threads=1", "--workers=0", "--loop.trackers=[]", *row.options, *options]
                cells.append(Cell(folder.name, command, folder / "results.json"))
    return cells


def collect(rows: list[Row], output: Path) -> None:
    """Read what is finished into the rows, with Δ_MTL against the mean of the single-task networks over their seeds.

    So the row of the single-task networks itself has Δ_MTL 0 and shows how much seeds alone change.
    """
    from transfer.results import compare_with, joined_singles, read_results

    for row in rows:
        for seed in range(row.seeds):
            runs = {output / name.replace(":", "-"): tasks for name, tasks in row.runs(seed, all_tasks()).items()}
            if all((folder / "results.json").exists() for folder in runs):
                found = {tasks[0]: read_results(folder) for folder, tasks in runs.items()}
                joined = joined_singles(found) if row.name == REFERENCE else next(iter(found.values()))
                row.results.append({**joined, "name": row.name})
    singles = mean_singles(next((row.results for row in rows if row.name == REFERENCE), []))
    if singles:
        for row in rows:
            row.results = [compare_with(result, singles) for result in row.results]


def table_of(rows: list[Row]) -> str:
    """The table in Markdown; rows without any finished run have dashes."""
    from harness.table import Column, Table
    from transfer.table import task_columns

    groups = [row.results for row in rows]
    plain = next((row.results for row in rows if row.name == "equal"), [])
    step = sum(result["step_seconds"] for result in plain) / len(plain) if plain else None

    def column(heading: str, values: Any, digits: int, **style: Any) -> Column:
        return Column(heading, [[value for result in group if (value := values(result)) is not None]
                                for group in groups], digits, **style)

    columns = [
        *task_columns(groups),
        column("Δ_MTL [%] ↑", lambda result: result["delta_mtl"], 2, higher_is_better=True, signed=True),
        column("Step [ms]", lambda result: 1000 * result["step_seconds"], 0, spread=False),
        column("of equal's", lambda result: result["step_seconds"] / step if step else None, 2, spread=False),
    ]
    names = [(row.name, row.kind or "–", str(len(row.results))) for row in rows]
    return Table(("Strategy", "Kind", "Seeds"), names, columns).markdown()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multifashion", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="NAMES", help="rows, separated by commas; the single-task "
                        "networks are added")
    parser.add_argument("--seeds", type=int, default=3, help="of the rows that have several")
    parser.add_argument("--small", action="store_true", help="an epoch of 1024 images: only to see that all of it runs")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at once")
    parser.add_argument("--output", type=Path, help="where the runs are kept, a folder for each budget; "
                        "outputs/multifashion, or outputs/multifashion-small")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a file that registers "
                        "strategies of yours; each has a row")
    parser.add_argument("--table", action="store_true", help="only write the table of what is finished")
    parser.add_argument("options", nargs="*", help="after --: options of transfer/main.py for every run")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.jobs) < 1:
        raise UserError("--seeds and --jobs: give 1 or more")
    start = time.time()
    output = arguments.output or Path("outputs") / ("multifashion-small" if arguments.small else "multifashion")
    for path in arguments.plugin:
        load_plugin(path)
    plugins = ", ".join(str(Path(path).resolve()) for path in arguments.plugin)
    options = [*([f"--plugin=[{plugins}]"] if plugins else []), *(SMALL if arguments.small else ()),
               *([f"--epochs={arguments.epochs}"] if arguments.epochs else []), *arguments.options]
    rows = read_rows([name for name in arguments.only.split(",") if name], arguments.seeds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = {} if arguments.table else run_cells(cells_of(rows, output, options), output / "logs", arguments.jobs)
    collect(rows, output)
    table = table_of(rows)
    notes = "".join(f"\n- {name} failed: {reason}" for name, reason in failed.items())
    write_text(output / "table.md", f"{table}\n{notes}\n" if notes else f"{table}\n")
    finished = [result for row in rows for result in row.results]
    if finished:
        from transfer.compare import write_comparison

        write_comparison(output / "report.html", finished, "Every strategy on two garments in one image")
    print(f"\n{table}\n{notes}\n\n{(time.time() - start) / 60:.1f} min in this call; table: {output / 'table.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_program(main)
