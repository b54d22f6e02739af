"""Every architecture on the built-in scenes with one short budget: Δ_MTL, size and speed in one table.

    python -m benchmarks.architectures [--small] [--only NAME,NAME] [--seeds 3] [--jobs CORES] [--output DIR]

Each file of ``configs/transfer/scenes/architectures/`` is a row. Every run is an ordinary run of ``transfer/main.py``
with one thread, and as many run at once as there are cores. A second start of this command goes on where the first one
stopped; a run that fails leaves the others alone, and is tried again at the next start. What is finished is in
``table.md`` and ``report.html`` at the end, and with ``--table`` at once. A step is timed after the runs,
of all rows in turn in one process (``step_times.json``; remove it to measure again).
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.cells import Cell, run_cells
from harness.config import digest, load
from harness.errors import UserError, closest
from harness.files import write_text
from harness.program import run_program
from harness.seeding import available_cores

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "transfer" / "scenes" / "architectures"
#: Rows of one network for one task each, with their tasks' networks taken together.
APART = ("single_task", "single_task_segnet", "stan_segnet")
#: Rows that are worth several seeds; the others have one.
SEVERAL_SEEDS = ("single_task", "baseline", "branched", "mtan", "pad_net", "mti_net")
#: In the table's order.
ORDER = ("single_task", "baseline", "branched", "cross_stitch", "nddr", "mtan", "astmt", "lasso", "cooperative",
         "progressive", "jtrl", "pap_net", "pad_net", "mti_net", "unet", "single_task_segnet", "stan_segnet",
         "split_segnet")
SMALL = ["--epochs=2", "--data.train_count=32", "--data.test_count=16"]


@dataclass
class Row:
    """One row of the table.

    Args:
        name: of its file, without the ending.
        config: content of that file.
        seeds: how many.
        path: that file.
        reference: the row of single-task networks with the same backbone.
    """

    name: str
    config: dict[str, Any]
    seeds: int
    path: Path
    reference: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def groups(self) -> list[list[str]]:
        """Tasks that are trained together."""
        return [[task] for task in self.config["tasks"]] if self.name in APART else [self.config["tasks"]]

    def run(self, tasks: list[str], seed: int) -> str:
        """Name of one run."""
        return f"{self.name}-{tasks[0]}-{seed}" if self.name in APART else f"{self.name}-{seed}"


def read_rows(only: Iterable[str] = (), seeds: int = 3) -> list[Row]:
    """The rows, and those that they are compared with.

    Raises:
        UserError: a name has no file, or a backbone no single-task networks.
    """
    files = {path.stem: path for path in CONFIGS.glob("*.yaml")}
    order = [*(name for name in ORDER if name in files), *sorted(set(files) - set(ORDER))]
    for name in only:
        if name not in files:
            raise UserError(f"--only: there is no row '{name}'{closest(name, files)}: choose of {', '.join(order)}")
    rows = {name: Row(name, yaml.safe_load(files[name].read_text(encoding="utf-8")),
                      seeds if name in SEVERAL_SEEDS else min(1, seeds), files[name]) for name in order}
    references = {_backbone(row): row.name for row in rows.values() if row.config["model"]["name"] == "single_task"}
    for row in rows.values():
        if _backbone(row) not in references:
            raise UserError(f"{row.path}: no row of single-task networks has its backbone: add one")
        row.reference = references[_backbone(row)]
    wanted = set(only or rows)
    wanted |= {rows[name].reference for name in wanted}
    return [row for row in rows.values() if row.name in wanted]


def _backbone(row: Row) -> str:
    model = row.config["model"]
    return str((model["backbone"], model.get("backbone_options")))


def cells_of(rows: list[Row], output: Path, options: list[str]) -> list[Cell]:
    """The runs of all rows: first seeds first, so that an early table has all rows."""
    from mtl_heads.registry import ARCHITECTURES

    cells = []
    by_name = {row.name: row for row in rows}
    for seed in range(max(row.seeds for row in rows)):
        for row in (row for row in rows if seed < row.seeds):
            reference = by_name[row.reference]
            starts = [reference.run([task], min(seed, reference.seeds - 1)) for task in row.config["tasks"]]
            copies = getattr(ARCHITECTURES.get(row.config["model"]["name"]), "starts_from_single_task", False)
            for tasks in row.groups:
                folder = output / row.run(tasks, seed)
                command = [sys.executable, str(ROOT / "transfer" / "main.py"),
                           "--config", str(row.path), f"--tasks=[{', '.join(tasks)}]",
                           f"--seed={seed}", f"--output={folder}", "--baseline=none", "--threads=1", "--workers=0",
                           "--loop.trackers=[]", *options]
                if copies:
                    command.append(f"--model.from_single_task=[{', '.join(str(output / name) for name in starts)}]")
                cells.append(Cell(folder.name, command, folder / "results.json", tuple(starts) if copies else ()))
    return cells


def collect(rows: list[Row], output: Path) -> None:
    """Read what is finished into the rows, with Δ_MTL against the mean of the single-task networks over their seeds.

    So the row of the single-task networks itself has Δ_MTL 0 and shows how much seeds alone change.
    """
    from transfer.results import compare_with, joined_singles, read_results

    costs: dict[str, dict[str, dict[str, Any]]] = {}  # of each single-task network, by row and task
    for row in rows:
        for seed in range(row.seeds):
            folders = [output / row.run(tasks, seed) for tasks in row.groups]
            if all((folder / "results.json").exists() for folder in folders):
                found = {tasks[0]: read_results(folder) for tasks, folder in zip(row.groups, folders, strict=True)}
                costs[row.name] = found
                joined = joined_singles(found) if row.name in APART else found[row.groups[0][0]]
                row.results.append({**joined, "name": row.name, "architecture": row.name})
    singles = {row.name: mean_singles(row.results) for row in rows if row.name == row.reference}
    for row in rows:
        if singles.get(row.reference):
            row.results = [relative_to(compare_with(result, singles[row.reference]), costs[row.reference])
                           for result in row.results]


def mean_singles(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each task the mean over seeds of its single-task networks' figures, as ``compare_with`` takes them."""
    if not results:
        return {}

    def mean(task: str, metric: str) -> float | None:
        values = [result["metrics"][task][metric] for result in results]
        return None if None in values else statistics.fmean(values)

    return {task: {"metrics": {task: {metric: mean(task, metric) for metric in metrics}}}
            for task, metrics in results[0]["metrics"].items()}


def relative_to(result: dict[str, Any], singles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Costs relative to the single-task networks of the same tasks."""
    from mtl_heads.resources import Resources

    costs = ("parameters", "macs")
    together = Resources(*(sum(singles[task][key] for task in result["metrics"]) for key in costs))
    change = Resources(*(result[key] for key in costs)).change(together)
    return {**result, "relative": dict(zip(costs, change, strict=True))}


def measured_steps(rows: list[Row], output: Path, keep: bool) -> dict[str, float]:
    """Seconds of a step of each row, measured unless ``step_times.json`` has them.

    Args:
        rows: of the table.
        output: folder of the file.
        keep: take what the file has, even if rows are lacking or have changed.
    """
    path = output / "step_times.json"
    recipes = {row.name: digest(row.config) for row in rows}
    known = json.loads(path.read_text()) if path.exists() else {}
    if not known or not keep and any(known["recipes"].get(name) != recipe for name, recipe in recipes.items()):
        from benchmarks.step_time import step_times
        from transfer.config import TransferConfig

        seconds = step_times({row.name: [load(TransferConfig, [f"--tasks=[{', '.join(tasks)}]"], base=row.path)
                                         for tasks in row.groups] for row in rows})
        known = {"seconds": seconds, "recipes": recipes}
        write_text(path, json.dumps(known, indent=2) + "\n")
    return known["seconds"]


def table_of(rows: list[Row], steps: Mapping[str, float]) -> str:
    """The table in Markdown; rows without any finished run have dashes.

    Args:
        rows: with their results.
        steps: seconds of a step, by row.
    """
    from harness.table import Column, Table
    from transfer.table import task_columns

    groups = [row.results for row in rows]
    times = [[1000 * steps[row.name]] if row.name in steps else [] for row in rows]
    baseline = 1000 * steps.get("baseline", 0.0)

    def column(heading: str, values: Any, digits: int, **style: Any) -> Column:
        return Column(heading, [[value for result in group if (value := values(result)) is not None]
                                for group in groups], digits, **style)

    columns = [
        *task_columns(groups),
        column("Δ_MTL [%] ↑", lambda result: result["delta_mtl"], 1, higher_is_better=True, signed=True),
        column("Params [M]", lambda result: result["parameters"] / 1e6, 2, spread=False),
        column("vs ST [%]", lambda result: (result["relative"] or {}).get("parameters"), 0, signed=True, spread=False),
        column("MACs [G]", lambda result: result["macs"] / 1e9, 2, spread=False),
        column("vs ST [%]", lambda result: (result["relative"] or {}).get("macs"), 0, signed=True, spread=False),
        Column("Step [ms]", times, 0),
        Column("vs baseline [×]", [[value / baseline for value in row if baseline] for row in times], 2),
    ]
    names = [(row.name, str(len(row.results))) for row in rows]
    return Table(("Architecture", "Seeds"), names, columns).markdown()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="NAMES", help="rows, separated by commas; their single-task "
                        "networks are added")
    parser.add_argument("--seeds", type=int, default=3, help="of the rows that have several")
    parser.add_argument("--small", action="store_true", help="two epochs of 32 scenes: only to see that all of it runs")
    parser.add_argument("--epochs", type=int, help="instead of the files'")
    parser.add_argument("--scenes", type=int, help="labelled training scenes, instead of the files'")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="runs at once")
    parser.add_argument("--output", type=Path, help="where the runs are kept, a folder for each budget; "
                        "outputs/architectures, or outputs/architectures-small")
    parser.add_argument("--table", action="store_true", help="only write the table of what is finished")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.jobs) < 1:
        raise UserError("--seeds and --jobs: give 1 or more")
    start = time.time()
    output = arguments.output or Path("outputs") / ("architectures-small" if arguments.small else "architectures")
    options = [*(SMALL if arguments.small else []),
               *([f"--epochs={arguments.epochs}"] if arguments.epochs else []),
               *([f"--data.train_count={arguments.scenes}"] if arguments.scenes else [])]
    rows = read_rows([name for name in arguments.only.split(",") if name], arguments.seeds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cells = cells_of(rows, output, options)
    failed = {} if arguments.table else run_cells(cells, output / "logs", arguments.jobs)
    collect(rows, output)
    table = table_of(rows, measured_steps(rows, output, keep=arguments.table))
    notes = "".join(f"\n- {name} failed: {reason}" for name, reason in failed.items())
    write_text(output / "table.md", f"{table}\n{notes}\n" if notes else f"{table}\n")
    finished = [result for row in rows for result in row.results]
    if finished:
        from transfer.compare import write_comparison

        write_comparison(output / "report.html", finished, "Every architecture on the built-in scenes")
    print(f"\n{table}\n{notes}\n\n{(time.time() - start) / 60:.1f} min in this call; table: {output / 'table.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_program(main)
