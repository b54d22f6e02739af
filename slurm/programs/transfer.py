"""``transfer/main.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config import load
from harness.run import Run, default_folder
from slurm.programs.base import PROGRAMS, Situation, is_finished, later_words
from slurm.steps import Step, Task

DEMO = Path(__file__).resolve().parents[2] / "configs" / "transfer" / "scenes" / "demo.yaml"


@PROGRAMS.register("transfer/main")
def transfer(words: Sequence[str], situation: Situation) -> list[Step]:
    """One job that fine-tunes, from what the job before has pretrained unless the words name weights."""
    from transfer.config import TransferConfig
    from transfer.engine import check
    from transfer.single_run import inputs

    words, before = list(words), situation.before
    if not words and before is None:
        folder = Path("outputs") / "transfer-demo"
        return [Step(folder.name, folder, [Task(folder.name, "transfer.main", [], folder)])]
    config = load(TransferConfig, words, prog="transfer/main.py", base=DEMO)
    notes = []
    common = config.model.common
    if before is not None and common.weights is None:
        common.weights = str(before.folder)
        words.append(f"--model.weights={before.folder}")
        notes.append(f"starts from {before.folder}")
    later = before is not None and bool(before.tasks) and _below(common.weights, before.folder)
    if later:
        common.weights = None  # nothing there to look at yet
    extra = inputs(config)
    check(config)
    label = f"{config.data.name}-{config.model.name}"
    known = {**extra, "weights": str(before.folder)} if later else extra
    folder = default_folder("transfer", label, config, config.name, config.output, known)
    config.output = str(folder)

    def compared(run: Run) -> bool:
        return (config.baseline == "none" or run.results()["single_task"] is not None
                or config.model.name == "single_task")

    if is_finished(folder, config, None if later else extra, situation, compared):
        print(f"{folder} is finished; its report is {folder / 'report.html'}")
        return [Step(folder.name, folder, [])]
    task = Task(folder.name, "transfer.main", [*words, f"--output={folder}"], folder, later_words(config.resume))
    return [Step(folder.name, folder, [task], notes=notes)]


def _below(path: str, folder: Path) -> bool:
    return Path(path).absolute().is_relative_to(folder.absolute())
