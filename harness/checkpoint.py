"""Saving and loading training state: one file, atomic, without pickled code."""

from __future__ import annotations

import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from harness.files import write_atomically


class CheckpointStore:
    """The ``checkpoints`` folder of a run: ``last.pt``, ``best.pt`` and earlier ones.

    Whether weights are any good shows in the next step only. So a new ``last.pt`` is on trial: its
    predecessor stays as ``.previous.pt`` until :meth:`settle` is called, and :meth:`go_back` takes it
    back.

    Args:
        folder: where the files are.
        keep: how many of the newest checkpoints stay, ``last.pt`` among them; the earlier ones are
            named ``step_<n>.pt``.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder = Path(folder)
        self.keep = max(1, keep)
        self.last = self.folder / "last.pt"
        self.best = self.folder / "best.pt"
        self.previous = self.folder / ".previous.pt"

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Write ``state`` (which has a ``"step"``) as ``last.pt``, on trial, and as ``best.pt`` when asked.

        Raises:
            UserError: the disk is full or not writable; the files that were there stay.
        """
        if self.keep > 1:
            self._retire()
        on_trial = self.previous.exists()
        try:
            self._set_aside()
            self._write(state, best)
        except BaseException as error:
            if not on_trial:  # what was there before is still last.pt
                self.settle()
            if isinstance(error, OSError):
                raise UserError(f"cannot write {self.previous}: {error.strerror}. Free some space, then start the "
                                "same command again") from error
            raise

    def settle(self) -> None:
        """``last.pt`` is good: its predecessor may go."""
        self.previous.unlink(missing_ok=True)

    def go_back(self) -> None:
        """If ``last.pt`` is on trial, put its predecessor in its place; without one, remove it."""
        if not self.previous.exists():
            return
        if self.previous.stat().st_size:
            os.replace(self.previous, self.last)
        else:
            self.last.unlink(missing_ok=True)
            self.settle()

    def _set_aside(self) -> None:
        """Keep ``last.pt`` as the predecessor of what comes; an empty file says that there is none."""
        if self.previous.exists():  # older, and proved
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.last.exists():
            self.previous.touch()
            return
        try:
            os.link(self.last, self.previous)
        except OSError:  # a file system without hard links
            temporary = self.folder / ".previous.pt.copy.tmp"
            shutil.copyfile(self.last, temporary)
            os.replace(temporary, self.previous)

    def _write(self, state: dict[str, Any], best: bool) -> None:
        if not best:
            save_file(self.last, state)
            return
        # The best first: a run that is killed in between goes on from the earlier last.pt and comes
        # to the same best again. The other way round it would never be written.
        save_file(self.best, state)
        temporary = self.folder / ".last.pt.link.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.best, temporary)  # the same bytes, no second write
            os.replace(temporary, self.last)
        except OSError:  # a file system without hard links
            save_file(self.last, state)

    def _retire(self) -> None:
        """Keep the present ``last.pt`` under its step, and drop the oldest beyond ``keep``."""
        if self.last.exists():
            step = load_file(self.last, mmap=True)["step"]
            with suppress(OSError):
                os.link(self.last, self.folder / f"step_{step:09d}.pt")
        earlier = sorted(self.folder.glob("step_*.pt"))
        for path in earlier[: max(0, len(earlier) - (self.keep - 1))]:
            path.unlink(missing_ok=True)


def save_file(path: str | Path, state: dict[str, Any]) -> None:
    """``torch.save``, atomically.

    Raises:
        UserError: the file cannot be written; a file that was there stays.
    """

    def write(file: Any) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # the archive writer hides the system's error behind its own
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, OSError):
                    raise cause from error
                cause = cause.__cause__ or cause.__context__
            raise

    write_atomically(path, write)


def load_file(path: str | Path, *, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """``torch.load`` of tensors and plain data only: code in the file is refused, never run.

    Raises:
        UserError: missing, damaged, or asking for code.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path} does not exist") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"checkpoint {path} is refused: {_wanted(str(error))}") from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"checkpoint {path} is damaged or not a checkpoint ({reason})") from error


def _wanted(message: str) -> str:
    import re

    match = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"global ([\w.]+)", message)
    if match:
        return f"it wants to run {match[1]}, and no code from a file is ever run"
    return "it is not a file of tensors and plain data (" + message.split("\n")[0][:120] + ")"
