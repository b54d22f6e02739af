"""``pretrain/main.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config import load
from harness.run import default_folder
from slurm.programs.base import PROGRAMS, Situation, is_finished, later_words
from slurm.steps import Step, Task

DEMO = Path(__file__).resolve().parents[2] / "configs" / "pretrain" / "demo.yaml"


@PROGRAMS.register("pretrain/main")
def pretraining(words: Sequence[str], situation: Situation) -> list[Step]:
    """One job that pretrains."""
    from pretrain.config import PretrainConfig

    config = load(PretrainConfig, list(words), prog="pretrain/main.py", base=DEMO)
    folder = default_folder("pretrain", config.data.name, config, config.name, config.output)
    _check(config)
    if is_finished(folder, config, None, situation):
        print(f"{folder} is finished; its report is {folder / 'report.html'}")
        return [Step(folder.name, folder, [])]
    task = Task(folder.name, "pretrain.main", [*words, f"--output={folder}"], folder, later_words(config.resume))
    return [Step(folder.name, folder, [task])]


def _check(config) -> None:
    """Make what can be made without training; images that are rendered are left to the nodes."""
    from pretrain.engine import build_moco

    if config.data.options.get("root", "") is not None:
        config.data.build()
    build_moco(config)
    config.augmentation.build()
    config.crops.build()
    config.lr_schedule.build()
