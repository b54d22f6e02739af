"""Figures of a finished run with test-time views: ``python -m transfer.evaluation RUN [--flip] [--scales …]``.

Also averages the prediction of a disease with that of a linear classifier on the ratio of two segmented heights, as is
done for glaucoma from optic cup and disc (Pascal 2021, section 5.3.1).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import write_text
from harness.program import run_program


def evaluate(folder: Path, split: str | None = None, flip: bool = False, scales: tuple[float, ...] = (1.0,),
             size: int | tuple[int, int] | None = None, ratio: tuple[str, str, str] | None = None) -> dict[str, Any]:
    """Metrics of a finished run's tasks.

    Args:
        folder: of the run.
        split: what to evaluate on; by default what the run was evaluated on.
        flip: average over the mirrored images too.
        scales: average over enlargements of the images.
        size: side, or height and width, of what the network sees; by default the run's.
        ratio: names of a classification task, and of the segmentations of the inner and of the outer thing. The
            classifier on their ratio is fitted to the training split's labels.

    Raises:
        UserError: the run is not finished, or has not these tasks.
    """
    from harness.config import load
    from harness.world import start
    from transfer.config import TransferConfig
    from transfer.engine import Transfer
    from transfer.results import read_results, weights_of

    results = read_results(folder)
    config = load(TransferConfig, ["--config", str(folder / "config.yaml")], prog="transfer.evaluation")
    config.compile = False
    config.evaluation.split = split or results.get("split") or config.evaluation.split
    config.evaluation.size = size if size is not None else config.evaluation.size
    config.evaluation.flip, config.evaluation.scales = flip, list(scales)
    for name in ratio or ():
        if name not in config.tasks:
            raise UserError(f"{folder} has no task '{name}': it has {', '.join(config.tasks)}")
    transfer = Transfer(config, start(mixed_precision=config.mixed_precision, threads=config.threads))
    transfer.load_state_dict(weights_of(folder))
    metrics = transfer.evaluate(config.evaluation.split, bar=True)
    found = {"run": str(folder), "split": config.evaluation.split, "flip": flip, "scales": list(scales),
             "metrics": metrics}
    if ratio is not None:
        from transfer.evaluation_ratio import with_ratio

        found["metrics"] = {**metrics, **with_ratio(transfer, ratio, config.evaluation.split)}
        found["ratio"] = list(ratio)
    return found


def main() -> int:
    """The command ``python -m transfer.evaluation``."""
    from transfer.results import run_folder

    parser = argparse.ArgumentParser(prog="python -m transfer.evaluation",
                                     description="Evaluate a finished run again, with test-time flips and scales.")
    parser.add_argument("run", metavar="RUN", help="folder or name of a finished transfer run")
    parser.add_argument("--split", help="split to evaluate on; by default the run's")
    parser.add_argument("--flip", action="store_true", help="average over the mirrored images too")
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0], metavar="S",
                        help="average over enlargements of the images")
    parser.add_argument("--size", nargs="+", type=int, metavar="N", help="side, or height and width, of the images")
    parser.add_argument("--ratio", nargs=3, metavar=("CLASS", "INNER", "OUTER"),
                        help="average CLASS with a linear classifier on the ratio of the heights of INNER and OUTER, "
                             "as 'glaucoma cup disc'")
    arguments = parser.parse_args()
    if arguments.size is not None and len(arguments.size) > 2:
        raise UserError("--size takes one number, or two (height and width)")
    size = arguments.size and (arguments.size[0] if len(arguments.size) == 1 else tuple(arguments.size))
    folder = run_folder(arguments.run)
    found = evaluate(folder, arguments.split, arguments.flip, tuple(arguments.scales), size,
                     arguments.ratio and tuple(arguments.ratio))
    before = json.loads((folder / "results.json").read_text())
    known = before["metrics"] if before.get("split") == found["split"] else {}
    print(f"{found['split']} split{', mirrored too' if arguments.flip else ''}, scales "
          f"{' '.join(format(scale, 'g') for scale in arguments.scales)}; the run's own figures in brackets")
    for task, metrics in found["metrics"].items():
        print(f"  {task}: " + ", ".join(f"{name} {_number(value)} ({_number(known.get(task, {}).get(name))})"
                                        for name, value in metrics.items()))
    write_text(folder / "evaluation.json", json.dumps(_plain(found), indent=2) + "\n")
    return 0


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4g}"


def _plain(value: Any) -> Any:
    """Data as JSON has it: no number that is not one."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    run_program(main)
