"""What every program that can be launched offers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UserError
from harness.registry import Registry
from harness.run import Run
from slurm.steps import Step


@dataclass
class Situation:
    """What stands around a program.

    Args:
        before: the step that ends before it begins, None if it is the first.
        dry_run: write nothing.
        refuse_held: raises an error where a job holds a folder.
    """

    before: Step | None
    dry_run: bool
    refuse_held: Callable[[Path], None]


class Program(Protocol):
    """Turns words of a command line into steps."""

    def __call__(self, words: Sequence[str], situation: Situation) -> list[Step]:
        """Read and check the words as the program will.

        Args:
            words: those after the program's name.
            situation: what stands around it.

        Raises:
            UserError: a mistake that the program would find on the nodes.
        """


PROGRAMS: Registry[Program] = Registry("program", "slurm.programs")


def find_program(word: str) -> Program:
    """The program that a word of the command line means: ``pretrain/main.py``, a path of it, or ``pretrain.main``.

    Raises:
        UserError: there is none.
    """
    parts = Path(word).with_suffix("").parts if word.endswith(".py") or "/" in word else word.split(".")
    name = "/".join(parts[-2:])
    if name not in PROGRAMS:
        names = ", ".join(f"{known}.py" for known in PROGRAMS)
        raise UserError(f"'{word}' cannot be launched: give one of {names}, then its options")
    return PROGRAMS.get(name)


def later_words(resume: str) -> list[str]:
    """Options of every start but the first: ``--resume never`` is about what was there before the job."""
    return ["--resume=auto"] if resume == "never" else []


def is_finished(folder: Path, config: Any, extra: dict[str, Any] | None, situation: Situation,
                done: Callable[[Run], bool] | None = None) -> bool:
    """Whether a run is, by the rules of the run's folder.

    Args:
        folder: of the run.
        config: of the run.
        extra: what it depends on beside that, None if it is not known yet.
        situation: of the program.
        done: what must be so beside its having results.

    Raises:
        UserError: the folder is somebody else's, or in use.
    """
    situation.refuse_held(folder)
    if not folder.exists():
        return False
    with contextlib.closing(Run(folder, config, resume=config.resume, extra=extra)) as run:
        return run.finished and (done is None or done(run))
