"""Scores of a run's initial predictions: ``python -m transfer.front_end RUN [--split test]``.

Decoder-focused networks predict every task once before they exchange features; MTI-Net does so at each
scale. How much better each of these predictions is than the one before shows where the exchange helps
(thesis of Vandenhende, table 5.3).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from harness.files import write_text
from harness.program import run_program


class FrontEnd(nn.Module):
    """A network whose predictions are the initial ones of one scale, where a task has them.

    Args:
        model: a trained decoder-focused network.
        entry: which entry of its ``Output.intermediate`` to return.
    """

    def __init__(self, model: nn.Module, entry: int) -> None:
        super().__init__()
        self.model, self.entry = model, entry

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> Any:
        output = self.model(images, tasks, intermediate=True)
        initial = output.intermediate[self.entry] if output.intermediate else {}
        kept = {task: initial.get(task, value) for task, value in output.predictions.items()}
        return output._replace(predictions=kept, intermediate=[])


def front_end_results(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Metrics of the initial predictions, coarse to fine, and of the final ones.

    Image tasks are predicted once, so they have a value in the last row only; Δ_MTL is over the others in
    every row.

    Args:
        folder: of a finished run.
        split: what to evaluate on; by default what the run was evaluated on.

    Raises:
        UserError: the run is not finished, or its network makes no initial predictions.
    """
    from harness.config import load
    from harness.world import start
    from transfer.config import TransferConfig
    from transfer.engine import Transfer
    from transfer.results import compare_with, read_results, weights_of

    results = read_results(folder)
    config = load(TransferConfig, ["--config", str(folder / "config.yaml")], prog="transfer.front_end")
    config.evaluation.split = split or config.evaluation.split
    config.compile = False
    world = start(mixed_precision=config.mixed_precision, threads=config.threads)
    transfer = Transfer(config, world)
    model = transfer.model
    strides = getattr(model, "intermediate_strides", [])
    maps = [task for task in config.tasks if task in getattr(model, "map_tasks", ())]
    if not strides or not maps:
        raise UserError(f"{folder}: architecture '{config.model.name}' makes no initial predictions: give a run of "
                        "pad_net, pap_net, jtrl or mti_net whose tasks are not all of images")
    transfer.load_state_dict(weights_of(folder))

    single = results["single_task"]
    singles = {task: {"metrics": single} for task in config.tasks} if single else None
    rows = []
    networks = [(f"front-end 1/{strides[i]}", FrontEnd(model, i)) for i in reversed(range(len(strides)))]
    for name, network in [*networks, ("final output", model)]:
        transfer.network.model = network
        found = transfer.evaluate(config.evaluation.split, bar=True)
        row = {"name": name, "architecture": f"{config.model.name}, {name}", "split": config.evaluation.split,
               "metrics": {task: found[task] for task in maps}, "delta_tasks": maps,
               "primary": results["primary"], "higher_is_better": results["higher_is_better"]}
        row = compare_with(row, singles) if singles else row
        rows.append({**row, "metrics": found} if network is model else row)
    return rows


def main() -> int:
    """The command ``python -m transfer.front_end``."""
    from transfer.results import run_folder
    from transfer.table import build_table

    parser = argparse.ArgumentParser(
        prog="python -m transfer.front_end", description="Score the initial predictions of a decoder-focused network.")
    parser.add_argument("run", metavar="RUN", help="folder or name of a finished transfer run")
    parser.add_argument("--split", help="split to evaluate on; by default the run's")
    arguments = parser.parse_args()
    folder = run_folder(arguments.run)
    rows = front_end_results(folder, arguments.split)
    print(build_table(rows).text())
    once = [task for task in rows[-1]["metrics"] if task not in rows[-1]["delta_tasks"]]
    if once:
        delta = "; Δ_MTL is over the other tasks" if "delta_mtl" in rows[-1] else ""
        print(f"{', '.join(once)}: predicted once{delta}")
    write_text(folder / "front_end.json", json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    run_program(main)
