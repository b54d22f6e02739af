"""Which job a run's folder belongs to, from its submission on: a job that waits holds no lock yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.errors import UserError
from harness.files import locked, write_text

Holder = dict[str, str]
"""A job: ``cluster``, ``job`` (its id), ``name``, and ``cancel``, the command that ends it."""


@contextmanager
def claimed(folders: Sequence[Path], live: Callable[[Holder], bool]) -> Iterator[Callable[[Path, Holder], None]]:
    """Keep other launches away from ``folders`` while jobs are submitted; yields what files the job of each.

    Raises:
        UserError: a live job has one of them, or one is just being launched.
    """
    holders: dict[Path, list[Holder]] = {}

    def keep(folder: Path, holder: Holder) -> None:
        holders.setdefault(folder, []).append(holder)
        write_text(_file(folder), json.dumps(holders[folder], indent=2) + "\n")

    with ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            stack.enter_context(locked(_file(folder).with_suffix(".lock"), wait=False,
                                       held=f"{folder} is just being launched by another process: choose another "
                                            "--name or --output"))
        for folder in folders:
            refuse_held(folder, live)
        yield keep


def refuse_held(folder: Path, live: Callable[[Holder], bool]) -> None:
    """Refuse a folder that a job holds.

    Raises:
        UserError: with the job, and how to cancel it.
    """
    for holder in _holders(folder):
        if live(holder):
            raise UserError(f"run folder {folder} is held by job {holder['job']} ({holder['name']}): wait for it, "
                            f"cancel it ({holder['cancel']}), or choose another --name or --output")


def _file(folder: Path) -> Path:
    return folder.parent / "slurm" / folder.name / "jobs.json"


def _holders(folder: Path) -> list[Holder]:
    try:
        return json.loads(_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
