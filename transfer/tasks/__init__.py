"""Tasks: what is predicted, how it is trained, measured, augmented and drawn. One file each."""

from __future__ import annotations

from transfer.tasks.base import TASKS, Task, build_task

__all__ = ["TASKS", "Task", "build_task"]
