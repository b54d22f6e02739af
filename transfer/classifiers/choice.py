"""Which heads begin as combinations of a pretrained classifier's classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.errors import UserError, closest
from transfer.tasks.base import Task
from transfer.tasks.scene import Scene

if TYPE_CHECKING:
    from transfer.config import TransferConfig


def classified(config: TransferConfig, tasks: Mapping[str, Task]) -> list[str]:
    """Names of the tasks whose heads begin so; none where the configuration names no similarity."""
    if config.classifier.name == "none":
        return []
    wanted = config.classifier.common.tasks
    return [name for name in config.tasks if isinstance(tasks[name], Scene) and (wanted is None or name in wanted)]


def check_classifiers(config: TransferConfig, tasks: Mapping[str, Task]) -> None:
    """Refuse what cannot be, before anything is trained.

    Raises:
        UserError: there is no such task, nothing to begin from, or an option is impossible.
    """
    if config.classifier.name == "none":
        return
    name, common = config.classifier.name, config.classifier.common
    for task in common.tasks or []:
        if task not in config.tasks or not isinstance(tasks[task], Scene):
            raise UserError(f"classifier.tasks names '{task}'{closest(task, config.tasks)}, which is no task of "
                            f"this run that classifies images (tasks: {', '.join(config.tasks)})")
    if not classified(config, tasks):
        raise UserError(f"classifier.name is '{name}', and none of {', '.join(config.tasks)} classifies images: set it "
                        "to none")
    if common.neighbors < 1:
        raise UserError(f"classifier.neighbors is {common.neighbors}: set it to 1 or more")
    if config.model.common.weights is None:
        raise UserError(f"classifier.name is '{name}', and random weights have no classes to begin from: set "
                        "--model.weights to a checkpoint with its classifier, or --classifier.name none")
    config.classifier.build()
