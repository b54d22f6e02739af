"""What a sweep is made of, and how it is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.config import load
from harness.errors import UserError

PROGRAM = "python -m transfer.sweep"


@dataclass
class SweepConfig:
    """Run transfer/main.py over axes of its options, several seeds each, and compare. Options after -- go to every run.

    Args:
        name: name of the sweep; its folder is outputs/NAME.
        output: folder of the sweep, instead of outputs/NAME.
        base: configuration of transfer/main.py that the runs start from; that program's own when none. A path
            from here, or from the folder of the sweep's file.
        options: options of transfer/main.py for every run, for example {epochs: 20, balance: {name: dwa}}.
        axes: what is varied, all combinations of it. An option with a list of values ({optimizer.lr: [0.001, 0.01]});
            or a name of yours with named bundles of options ({strategy: {dwa: {balance.name: dwa}}}), each of which
            may have axes and a grid of its own. On the command line also --axes.optimizer.lr '[0.001, 0.01]'.
        grid: constant weights on a simplex: tasks, steps (weights are multiples of total/steps), total (their sum; by
            default the number of tasks), zeros (whether a weight may be 0; false by default).
        seeds: how many, or which.
        compare: axes that say what is compared, the others are hyper-parameters; by default those of bundles and
            those of balance.name, schedule.name, partition.name, model.name, model.backbone and model.weights.
        criterion: what settings are chosen by, on the validation split: delta_mtl, score (min-max normalised
            multi-task score), rank (average over tasks), or auto, which is delta_mtl where there is a baseline and
            score otherwise; none chooses nothing and validates nothing.
        baseline: auto also runs single-task networks, with every recipe of the sweep, and takes each task's best as
            reference of Δ_MTL; none leaves Δ_MTL out; otherwise folders of single-task runs, separated by commas.
        jobs: runs at once; 0: one for each GPU, or as many as there are cores for their threads.
        threads: CPU threads of each run whose recipe leaves it open (0).
        dry_run: only list the runs.
        table: only compare what is finished.
    """

    name: str | None = None
    output: str | None = None
    base: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] | None = None
    seeds: int | list[int] = 1
    compare: list[str] | None = None
    criterion: Literal["auto", "delta_mtl", "score", "rank", "none"] = "auto"
    baseline: str = "auto"
    jobs: int = 0
    threads: int = 1
    dry_run: bool = False
    table: bool = False

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(self.output) if self.output else Path("outputs") / (self.name or "sweep")

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: a field with such a value.
        """
        seeds = self.seed_list
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise UserError(f"seeds is {self.seeds}: give how many (1 or more), or different ones such as [0, 1, 2]")
        if self.jobs < 0 or self.threads < 1:
            raise UserError(f"jobs is {self.jobs} and threads {self.threads}: give jobs 0 or more, threads 1 or more")
        if not self.axes and not self.grid and len(seeds) == 1:
            raise UserError("there is nothing to sweep over: give axes, a grid or several seeds, for example "
                            "--axes.optimizer.lr '[0.001, 0.003]' or --config configs/sweep/demo.yaml")


def read_sweep(argv: Sequence[str] | None = None) -> tuple[SweepConfig, list[str]]:
    """The sweep that a command line asks for, and the words for transfer/main.py that stand after ``--``.

    Raises:
        UserError: a mistake in it, or in its file.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words, extra = (words[: words.index("--")], words[words.index("--") + 1:]) if "--" in words else (words, [])
    words = [_flag(word, words[i + 1:]) for i, word in enumerate(words)]
    words, axes = _take_axes(words)
    config = load(SweepConfig, words, prog=PROGRAM)
    config.axes = {**config.axes, **axes}
    file = _value_of(words, "--config")
    if config.name is None and file:
        config.name = Path(file).stem
    if config.base is not None:
        config.base = str(_find_base(config.base, file))
    config.check()
    return config, extra


def _flag(word: str, following: Sequence[str]) -> str:
    """``--dry-run`` and ``--table`` may stand alone."""
    name = word.replace("-", "_").replace("__", "--", 1) if word in ("--dry-run", "--dry_run", "--table") else word
    alone = name in ("--dry_run", "--table") and (not following or following[0].startswith("--"))
    return f"{name}=true" if alone else name


def _take_axes(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Words without ``--axes.NAME VALUES``, and these."""
    rest, axes, words = [], {}, list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--axes."):
            rest.append(word)
            continue
        name, equal, text = word.removeprefix("--axes.").partition("=")
        if not equal and (not words or words[0].startswith("--")):
            raise UserError(f"--axes.{name} has no values: give a list, for example --axes.{name} '[1, 2]'")
        text = text if equal else words.pop(0)
        try:
            axes[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--axes.{name}: {text!r} is not valid YAML: give a list such as '[1, 2]'") from error
    return rest, axes


def _value_of(words: Sequence[str], option: str) -> str | None:
    found = None
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            found = words[i + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _find_base(base: str, file: str | None) -> Path:
    places = [Path(base).expanduser()]
    if file:
        places.append(Path(file).expanduser().parent / base)
    for path in places:
        if path.is_file():
            return path
    raise UserError(f"base: there is no file {base} here"
                    f"{f' or beside {file}' if file else ''}: give a configuration of transfer/main.py")
