"""Put runs side by side: ``python -m transfer.compare RUN… [--markdown FILE] [--latex FILE] [--report FILE]``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.program import run_program
from harness.report import Section, notations, write_report
from harness.table import Table, add_table_options
from transfer.frozen import Frozen, is_evaluation, read_frozen
from transfer.results import read_results, run_folder, with_singles
from transfer.table import build_table


def find_runs(paths: list[str]) -> list[dict[str, Any]]:
    """Results of the runs named, or of all finished transfer runs below a folder named.

    Raises:
        UserError: a path without any finished transfer run.
    """
    found = []
    for path in paths:
        folder = run_folder(path)
        if (folder / "results.json").exists() or not folder.is_dir():
            found.append(read_results(folder))
            continue
        below = [read_results(file) for file in sorted(folder.rglob("results.json")) if '"architecture"' in
                 file.read_text()]
        if not below:
            raise UserError(f"{path} holds no finished transfer run: give folders of runs, or a folder above them")
        found += below
    return found


def write_comparison(path: Path, results: list[dict[str, Any]], title: str = "Comparison",
                     frozen: Frozen | None = None) -> Table:
    """``report.html`` of a comparison: the table, what strategies measured, and every run's pictures."""
    from transfer.report import table_section
    from transfer.strategy_table import strategy_section, unusual_parts

    table = build_table(results, frozen)
    strategies = strategy_section(results)
    sections = [table_section("Results", table), *([strategies] if strategies is not None else [])]
    for result in (result for result in results if "folder" in result):
        panels = Path(result["folder"]) / "figures" / "panels.png"
        pictures = ((panels, "Image, truth, prediction"), (panels.with_name("losses.png"), "Losses"),
                    (panels.with_name("curves.png"), "Curves"))
        figures = [(file, caption) for file, caption in pictures if file.exists()]
        if figures:
            parts = [result["architecture"], *unusual_parts(result)]
            heading = f"{result['name']}: {', '.join(parts)} from {result['weights'] or 'random weights'}"
            sections.append(Section(heading, figures=figures))
    sections += notations(table)
    write_report(path, title, sections)
    return table


def main() -> int:
    """The command ``python -m transfer.compare``."""
    parser = argparse.ArgumentParser(prog="python -m transfer.compare", description="Put transfer runs side by side.")
    parser.add_argument("runs", nargs="+", metavar="RUN",
                        help="folders of runs, or folders above them; and folders of pretrain.evaluate, whose figures "
                             "stand beside the runs that started from the same backbone")
    add_table_options(parser, "the table and the runs' pictures")
    arguments = parser.parse_args()
    evaluations = [folder for folder in map(run_folder, arguments.runs) if is_evaluation(folder)]
    runs = [path for path in arguments.runs if run_folder(path) not in evaluations]
    if not runs:
        raise UserError("these are evaluations of frozen features alone: name transfer runs too, or compare them with "
                        "python -m pretrain.evaluate compare")
    frozen = read_frozen(evaluations)
    results = with_singles(find_runs(runs))
    table = build_table(results, frozen)
    print(table.text())
    started = {result.get("weights_digest") for result in results}
    if frozen and not started & set(frozen):
        print("none of these runs started from a backbone that was evaluated: "
              + ("their files differ" if started - {None} else "they began from random weights"))
    table.write(arguments.markdown, arguments.latex)
    if arguments.report:
        write_comparison(Path(arguments.report), results, frozen=frozen)
        print(f"report: {arguments.report}")
    return 0


if __name__ == "__main__":
    run_program(main)
