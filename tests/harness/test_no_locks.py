"""File systems of clusters that are mounted without locks."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass

import pytest

from harness.errors import UserError
from harness.files import locked
from harness.run import Run


@dataclass
class Config:
    """Nothing."""

    epochs: int = 1


def refuse(number: int):
    def lock(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    return lock


@pytest.mark.filterwarnings("ignore:flock not supported")  # filelock falls back to a file
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_runs_go_on_there(number, tmp_path, monkeypatch, capsys):
    """It is said, and no other process is made up that holds the folder."""
    monkeypatch.setattr(fcntl, "lockf", refuse(number))
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with Run(tmp_path / "run", Config()) as run:
        assert "without locks" in capsys.readouterr().out and not run.finished
    with locked(tmp_path / "lock", wait=False):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass


def test_held_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", refuse(errno.EAGAIN))
    with pytest.raises(UserError, match="is in use by"):
        Run(tmp_path / "run", Config())
