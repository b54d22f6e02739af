"""The run directory: who holds it, what it was asked to do, what it logged, whether it is done."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from harness.checkpoint import CheckpointStore
from harness.config import as_dict, differences, digest, identity, without_volatile
from harness.errors import UserError
from harness.files import NO_LOCKS, remove_leftovers, write_text


class Run:
    """One folder under ``outputs/`` with everything a run writes.

    ``config.yaml`` (complete), ``identity.json`` (``extra``), ``metrics.jsonl``, ``results.json`` (its
    presence means finished), ``checkpoints/``, ``report.html``, ``figures/``. The main process holds a
    lock on it as long as it lives; the system frees the lock when the process dies, however it dies.

    Args:
        folder: the run's directory.
        config: its configuration (a dataclass).
        resume: ``auto`` continues what is there, ``never`` refuses a folder that has something,
            and a path starts a new folder from that checkpoint.
        main: False on all processes but the main one, which alone writes.
        keep: checkpoints to keep.
        extra: what the run depends on and the configuration only names, as plain data: digests of the
            weights it starts from and of its data. Compared like the configuration; None: not compared.

    Raises:
        UserError: another process holds the folder, or it belongs to another configuration.
    """

    def __init__(self, folder: str | Path, config: Any, *, resume: str = "auto", main: bool = True,
                 keep: int = 1, extra: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.main = main
        self.config = config
        self.extra = extra
        self.identity_path = self.folder / "identity.json"
        self.checkpoints = CheckpointStore(self.folder / "checkpoints", keep)
        self.metrics_path = self.folder / "metrics.jsonl"
        self.results_path = self.folder / "results.json"
        self.figures = self.folder / "figures"
        self._lock = None
        self._metrics = None
        if main:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot make the run folder {self.folder}: {error.strerror}") from error
            self._hold()
            remove_leftovers(self.folder, self.checkpoints.folder, self.figures)
            self._check(resume)

    @property
    def finished(self) -> bool:
        """Whether the run has its results."""
        return self.results_path.exists()

    def checkpoint_to_resume(self, resume: str) -> Path | None:
        """The checkpoint this run starts from, or None to start from nothing."""
        if self.checkpoints.last.exists():
            return self.checkpoints.last
        if resume not in ("auto", "never"):
            path = Path(resume)
            path = path / "checkpoints" / "last.pt" if path.is_dir() else path
            if not path.is_file():
                raise UserError(f"--resume {resume}: no checkpoint there (give a run folder or a .pt file)")
            return path
        return None

    def begin(self, step: int) -> None:
        """Write ``config.yaml`` and ``identity.json``; open ``metrics.jsonl`` at ``step``, what came later goes."""
        if not self.main:
            return
        write_text(self.folder / "config.yaml", yaml.safe_dump(as_dict(self.config), sort_keys=False))
        if self.extra is not None:
            write_text(self.identity_path, encode(self.extra, indent=2) + "\n")
        lines = [encode(line) for line in read_metrics(self.folder) if line["step"] <= step]
        write_text(self.metrics_path, "".join(f"{line}\n" for line in lines))
        self._metrics = open(self.metrics_path, "a", encoding="utf-8")  # noqa: SIM115

    def log(self, line: dict[str, Any]) -> None:
        """Append one JSON object to ``metrics.jsonl``; it has a ``step``. What is not a finite number is null there."""
        if self.main:
            try:
                self._metrics.write(encode(line) + "\n")
                self._metrics.flush()
            except OSError as error:
                raise UserError(f"cannot write {self.metrics_path}: {error.strerror}. Free some space, then "
                                "start the same command again") from error

    def finish(self, results: dict[str, Any]) -> None:
        """Write ``results.json``: the run is done. What is not a finite number is null there."""
        if self.main:
            write_text(self.results_path, encode(results, indent=2) + "\n")

    def results(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return json.loads(self.results_path.read_text())

    def close(self) -> None:
        """Release the folder."""
        if self._metrics is not None:
            with suppress(OSError):  # what a full disk did not take has been reported
                self._metrics.close()
            self._metrics = None
        if self._lock is not None:
            with suppress(OSError):
                self._lock.close()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        self.close()
        if kind is not None and self.main:  # a run that was refused leaves nothing
            with suppress(OSError):
                if [item.name for item in self.folder.iterdir()] == [".lock"]:
                    (self.folder / ".lock").unlink()
                    self.folder.rmdir()

    def _hold(self) -> None:
        # A POSIX lock belongs to the process: data workers that outlive a killed parent for a
        # moment do not hold it, as they would hold a lock of flock's kind.
        path = self.folder / ".lock"
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write in the run folder {self.folder}: {error.strerror}. Choose another --name "
                            "or --output") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                print(f"note: {self.folder} is on a file system without locks ({error.strerror}): take care that no "
                      "two processes use it at once", flush=True)
                self._lock = file
                return
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise UserError(f"run folder {self.folder} is in use by {holder}: wait for it, or choose another "
                            "--name or --output") from error
        self._lock = file
        with suppress(OSError):  # only for the message above
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()

    def _check(self, resume: str) -> None:
        path = self.folder / "config.yaml"
        if not path.exists():
            strange = sorted(item.name for item in self.folder.iterdir() if item.name != ".lock")
            if strange:
                raise UserError(f"run folder {self.folder} holds {strange[0]!r} and is not a run of ours: choose "
                                "another --name or --output")
            return
        if resume == "never" and (self.finished or self.checkpoints.last.exists()):
            raise UserError(f"run folder {self.folder} already holds a run and --resume is never: choose another "
                            "--name or --output, or remove the folder")
        try:
            stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            stored = None
        if not isinstance(stored, dict):
            raise UserError(f"{path} is damaged or not a configuration of ours: choose another --name or --output, "
                            "or remove the folder")
        changed = differences(without_volatile(self.config, stored), identity(self.config))
        if changed:
            longer = [change.split(":")[0] for change in changed] == ["epochs"] and self.checkpoints.last.exists()
            advice = f", or train on from it with --resume {self.checkpoints.last} --name NEW" if longer else ""
            raise UserError(f"run folder {self.folder} belongs to another configuration ({'; '.join(changed[:4])}"
                            f"{'; …' if len(changed) > 4 else ''}): choose another --name or --output{advice}")
        self._check_extra()

    def _check_extra(self) -> None:
        if self.extra is None or not self.identity_path.exists():
            return
        try:
            stored = json.loads(self.identity_path.read_text(encoding="utf-8"))
        except ValueError:
            stored = None
        if not isinstance(stored, dict):
            raise UserError(f"{self.identity_path} is damaged: choose another --name or --output, or remove the folder")
        changed = differences(stored, json.loads(encode(self.extra)))
        if changed:
            raise UserError(f"run folder {self.folder} was begun with other content behind the same configuration "
                            f"({'; '.join(changed[:4])}{'; …' if len(changed) > 4 else ''}): put that back, or choose "
                            "another --name or --output")


def default_folder(kind: str, label: str, config: Any, name: str | None, output: str | None,
                   extra: dict[str, Any] | None = None) -> Path:
    """``--output``, or ``outputs/<--name>``, or a name made from what is run.

    Args:
        kind: first part of the name that is made.
        label: second part of it.
        config: the configuration, for the third.
        name: ``--name``.
        output: ``--output``.
        extra: as for :class:`Run`.
    """
    if output:
        return Path(output)
    data = identity(config)
    return Path("outputs") / (name or f"{kind}-{label}-{digest({'config': data, 'extra': extra} if extra else data)}")


def encode(data: Any, indent: int | None = None) -> str:
    """Strict JSON: numbers that are not finite become null, at any depth."""
    return json.dumps(_finite(data), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; a last line that a crash cut short is left out.

    A value that was not a finite number is None.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text, parse_constant=lambda _: None))
        except json.JSONDecodeError:
            break
    return lines
