"""Does pretraining lift several tasks? Fine-tuning on few labelled scenes, several seeds, three kinds of weights.

    python -m benchmarks.lift [--photos DIR] [--seeds 3] [--output outputs/lift]

Pretrains on unlabelled scenes (and, with ``--photos``, on a folder of photographs), then trains the same multi-task
network from random weights and from each pretraining, once for every seed, and prints mean ± standard deviation over
the seeds and the gain over random weights. Fine-tuning runs stand side by side, one thread each, as many as there are
cores. Every run is an ordinary run of the two mains, so a second start of this command goes on where the first one
stopped.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness.cells import Cell, run_cells
from harness.errors import UserError
from harness.files import write_text
from harness.program import run_program
from harness.seeding import available_cores
from transfer.compare import write_comparison
from transfer.results import read_results

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def run_main(room: str, *options: str) -> None:
    """One run of a main, in a process of its own; ends this command when it fails."""
    print(f"\n$ python {room}/main.py {' '.join(options)}", flush=True)
    code = subprocess.run([sys.executable, str(ROOT / room / "main.py"), *options], check=False).returncode
    if code:
        sys.exit(code)


def fine_tuning(output: Path, weights: Path | None, seed: int) -> Cell:
    """The run that fine-tunes from ``weights`` (random ones when none)."""
    name = f"transfer-{weights.name.removeprefix('pretrain-') if weights else 'random'}-{seed}"
    command = [sys.executable, str(ROOT / "transfer" / "main.py"),
               "--config", str(CONFIGS / "transfer" / "scenes" / "few_labels.yaml"), "--baseline", "none",
               "--seed", str(seed), "--output", str(output / name), "--threads", "1", "--workers", "0",
               *(["--model.weights", str(weights)] if weights else [])]
    return Cell(name, command, output / name / "results.json")


def gains(results: dict[str, list[dict]]) -> str:
    """A Markdown table: mean ± deviation of the primary metrics, and the gain over random weights."""
    first = results["random weights"][0]
    tasks = list(first["primary"])
    lines = ["| weights | " + " | ".join(
        f"{task} {first['primary'][task]} {'↑' if first['higher_is_better'][task] else '↓'}" for task in tasks) + " |",
        "|---|" + "---:|" * len(tasks)]
    values = {name: {task: [run["metrics"][task][first["primary"][task]] for run in runs] for task in tasks}
              for name, runs in results.items()}
    for name, by_task in values.items():
        cells = []
        for task in tasks:
            mean = statistics.fmean(by_task[task])
            spread = statistics.stdev(by_task[task]) if len(by_task[task]) > 1 else 0.0
            cell = f"{mean:.3f} ± {spread:.3f}"
            if name != "random weights":
                base = statistics.fmean(values["random weights"][task])
                cell += f" ({100 * (mean - base) / base:+.1f} %)"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lift", description=__doc__.split("\n")[0])
    parser.add_argument("--photos", metavar="DIR", help="also pretrain on this folder of photographs")
    parser.add_argument("--seeds", type=int, default=3, help="fine-tuning runs from each kind of weights")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "lift", help="where the runs are kept")
    arguments = parser.parse_args()
    start, output = time.time(), arguments.output
    weights: dict[str, Path | None] = {"random weights": None, "scenes, unlabelled": output / "pretrain-scenes"}
    run_main("pretrain", "--config", str(CONFIGS / "pretrain" / "lift_scenes.yaml"), "--output",
             str(output / "pretrain-scenes"))
    if arguments.photos:
        weights["photographs, unlabelled"] = output / "pretrain-photos"
        run_main("pretrain", "--config", str(CONFIGS / "pretrain" / "lift_photos.yaml"), "--data.root",
                 arguments.photos, "--output", str(output / "pretrain-photos"))
    cells = {name: [fine_tuning(output, source, seed) for seed in range(arguments.seeds)]
             for name, source in weights.items()}
    turns = [cell for turn in zip(*cells.values(), strict=True) for cell in turn]
    failed = run_cells(turns, output / "logs", jobs=available_cores())
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(turns)} runs failed ({reasons}): mend that, then start the same "
                        "command again")
    results = {name: [read_results(cell.done.parent) for cell in row] for name, row in cells.items()}
    table = gains(results)
    write_text(output / "table.md", table + "\n")
    write_comparison(output / "report.html", [run for runs in results.values() for run in runs],
                     "Fine-tuning on few labelled scenes")
    print(f"\n{table}\n\n{arguments.seeds} seeds; {(time.time() - start) / 60:.1f} min in this call\n"
          f"report: {output / 'report.html'}")
    return 0


if __name__ == "__main__":
    run_program(main)
