"""The runs of a sweep: their configurations, checked, and what makes them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.cells import Cell
from harness.config import as_dict, digest, identity, load
from harness.errors import UserError, closest
from harness.files import write_text
from harness.run import encode
from transfer.config import TransferConfig
from transfer.sweeping.config import PROGRAM, SweepConfig
from transfer.sweeping.space import Setting, expand, flatten, text, words

MAIN = Path(__file__).resolve().parents[1] / "main.py"
DEMO = MAIN.parents[1] / "configs" / "transfer" / "scenes" / "demo.yaml"
SINGLE = "single-task"
MULTI = "multi-task"
"""What all settings are compared as, where no axis says more."""
#: Options whose axes say, unless told otherwise, what is compared.
NAMES = ("balance", "schedule", "partition", "model", "balance.name", "schedule.name", "partition.name", "model.name",
         "model.backbone", "model.weights")


@dataclass
class RunPlan:
    """One run of transfer/main.py.

    Args:
        name: of its folder, its log and its configuration; tells what the run is, and all that its results depend on.
        config: its configuration.
        folder: of the run.
        file: its configuration as YAML.
    """

    name: str
    config: TransferConfig
    folder: Path
    file: Path

    @property
    def argv(self) -> list[str]:
        """The program and its options."""
        return [str(MAIN), "--config", str(self.file), "--output", str(self.folder)]

    @property
    def cell(self) -> Cell:
        """What :func:`harness.cells.run_cells` runs."""
        return Cell(self.name, [sys.executable, *self.argv], self.folder / "results.json")


@dataclass
class Entry:
    """A setting with its runs.

    Args:
        label: how it is called.
        method: what it is compared as.
        detail: how it is called among those of the same method.
        values: how its values on the axes of hyper-parameters are called.
        options: dotted options that make it.
        config: of its runs, but for the seed.
        runs: by seed; a single-task entry has one for each task.
        recipe: number of the single-task entry with the same recipe, None without baseline.
    """

    label: str
    method: str
    detail: str
    values: dict[str, str]
    options: dict[str, Any]
    config: TransferConfig
    runs: dict[int, list[RunPlan]] = field(default_factory=dict)
    recipe: int | None = None


@dataclass
class Plan:
    """All of a sweep before anything runs.

    Args:
        config: of the sweep.
        entries: its settings.
        singles: single-task networks, an entry for each recipe.
        notes: what the user should know.
    """

    config: SweepConfig
    entries: list[Entry]
    singles: list[Entry]
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[RunPlan]:
        """Every run once: first seeds first, so that an early table has all settings."""
        found: dict[str, RunPlan] = {}
        for seed in self.config.seed_list:
            for entry in (*self.singles, *self.entries):
                found.update({run.name: run for run in entry.runs[seed] if run.name not in found})
        return list(found.values())

    def cells(self) -> list[dict[str, Any]]:
        """The runs as plain data: ``name``, ``argv`` (program and options) and ``folder``, for any launcher."""
        return [{"name": run.name, "argv": run.argv, "folder": str(run.folder)} for run in self.runs]

    def write(self) -> None:
        """``sweep.yaml``, ``cells.json`` and a configuration for each run."""
        folder = self.config.folder
        write_text(folder / "sweep.yaml", yaml.safe_dump(as_dict(self.config), sort_keys=False, allow_unicode=True))
        for run in self.runs:
            written = yaml.safe_dump(as_dict(run.config), sort_keys=False)
            if not run.file.exists() or run.file.read_text(encoding="utf-8") != written:
                write_text(run.file, written)
        write_text(folder / "cells.json", encode(self.cells(), indent=2) + "\n")


def make_plan(sweep: SweepConfig, extra: Sequence[str] = ()) -> Plan:
    """Read and check every configuration of a sweep.

    Args:
        sweep: what is asked for.
        extra: words of transfer/main.py for every run.

    Raises:
        UserError: one that cannot work, with the axis that it comes from.
    """
    notes: list[str] = []
    every = words(flatten(sweep.options, "options"))
    base = _load(sweep, every, extra)
    if base.name or base.output:
        base.name = base.output = None
    settings = expand(sweep.axes, sweep.grid, base.tasks)
    compared = _compared(sweep)
    inputs = _Inputs()
    entries = []
    for setting in settings:
        try:
            config = _load(sweep, every, [*extra, *words(setting.options)])
            _complete(config, sweep, notes)
            inputs.of(config)
        except UserError as error:
            raise _with_axis(error, setting) from error
        method = ", ".join(setting.values[axis] for axis in compared if axis in setting.values) or MULTI
        detail = setting.label_of([axis for axis in setting.values if axis not in compared])
        other = {axis: value for axis, value in setting.values.items() if axis not in compared}
        entries.append(Entry(setting.label, method, detail, other, setting.options, config))
    _distinct_labels(entries)
    singles = _single_entries(sweep, entries) if sweep.baseline == "auto" else []
    for entry in entries:
        entry.runs = {seed: [_run(sweep, entry.label, entry.config, seed, inputs)] for seed in sweep.seed_list}
    for entry in singles:
        configs = {task: _single(entry.config, task) for task in entry.config.tasks}
        entry.runs = {seed: [_run(sweep, f"{SINGLE} {task} {entry.detail}", config, seed, inputs)
                             for task, config in configs.items()] for seed in sweep.seed_list}
    plan = Plan(sweep, entries, singles, notes)
    _check(plan, settings)
    return plan


def _load(sweep: SweepConfig, every: Sequence[str], extra: Sequence[str]) -> TransferConfig:
    chosen = ["--config", sweep.base] if sweep.base else []
    return load(TransferConfig, [*chosen, *every, *extra], prog=PROGRAM, base=None if sweep.base else DEMO)


def _complete(config: TransferConfig, sweep: SweepConfig, notes: list[str]) -> None:
    """What the sweep says to every run, and what its comparison needs."""
    config.name = config.output = None
    config.resume, config.baseline, config.seed = "auto", "none", 0
    config.threads = config.threads or sweep.threads
    if sweep.criterion == "none":
        return
    splits = config.data.registry.get(config.data.name)
    if "val" not in getattr(splits, "splits", ("val",)):
        raise UserError(f"settings are chosen on the validation split, and data set '{config.data.name}' has no split "
                        "'val': set criterion to none to tabulate without choosing")
    if not config.evaluation.every and config.evaluation.split != "val":
        config.evaluation.every = config.epochs
        note = ("evaluation.every is 0, so every run also evaluates the validation split once, after its last epoch: "
                "settings are chosen by that, never on the test split")
        if note not in notes:
            notes.append(note)


def _check(plan: Plan, settings: Sequence[Setting]) -> None:
    """Build every part of every setting that is still to run, so that a mistake is found before anything starts."""
    from transfer.engine import check

    for i, entry in enumerate((*plan.entries, *plan.singles)):
        todo = [run for runs in entry.runs.values() for run in runs if not (run.folder / "results.json").exists()]
        if not todo:
            continue
        try:
            check(entry.config if i < len(plan.entries) else todo[0].config)
        except UserError as error:
            raise _with_axis(error, settings[i] if i < len(settings) else Setting()) from error


def _compared(sweep: SweepConfig) -> list[str]:
    """Axes that say what is compared."""
    if sweep.compare is not None:
        for axis in sweep.compare:
            if axis not in sweep.axes:
                raise UserError(f"compare: there is no axis '{axis}'{closest(axis, sweep.axes)}: the axes are "
                                f"{', '.join(sweep.axes) or 'none'}")
        return list(sweep.compare)
    return [axis for axis, values in sweep.axes.items() if isinstance(values, dict) or axis in NAMES]


def _with_axis(error: UserError, setting: Setting) -> UserError:
    """The error with the axis that its option is of, or with the setting."""
    message = str(error)
    named = [option for option in setting.sources if re.search(rf"(?<![\w.]){re.escape(option)}(?![\w])", message)]
    if named:
        return UserError(f"{setting.sources[max(named, key=len)]}: {message}")
    return UserError(f"setting '{setting.label}': {message}" if setting.values else message)


def _distinct_labels(entries: Sequence[Entry]) -> None:
    labels = [entry.label for entry in entries]
    for entry in entries:
        if labels.count(entry.label) > 1:
            entry.label = ", ".join([entry.method, *(f"{axis} {value}" for axis, value in entry.values.items())])


def _single(config: TransferConfig, task: str) -> TransferConfig:
    from transfer.baselines import single_task_config

    return single_task_config(config, task)


def _single_entries(sweep: SweepConfig, entries: Sequence[Entry]) -> list[Entry]:
    """An entry for each different recipe of single-task networks."""
    found: dict[str, Entry] = {}
    recipes: list[dict[str, Any]] = []
    for entry in entries:
        parts = {task: _identity(_single(entry.config, task)) for task in entry.config.tasks}
        key = digest(parts)
        if key not in found:
            found[key] = Entry(SINGLE, SINGLE, "", {}, {}, entry.config)
            recipes.append(_leaves(next(iter(parts.values()))))
        entry.recipe = list(found).index(key)
    differing = [leaf for leaf in dict.fromkeys(leaf for recipe in recipes for leaf in recipe)
                 if len({json.dumps(recipe.get(leaf), default=str) for recipe in recipes}) > 1 and leaf != "tasks"]
    for entry, recipe in zip(found.values(), recipes, strict=True):
        entry.options = {leaf: recipe.get(leaf) for leaf in differing}
        entry.values = {leaf: text(value) for leaf, value in entry.options.items()}
        entry.detail = ", ".join(f"{leaf.split('.')[-1]} {value}" for leaf, value in entry.values.items())
        entry.label = f"{SINGLE}, {entry.detail}" if entry.detail else SINGLE
    return list(found.values())


def _identity(config: TransferConfig) -> dict[str, Any]:
    """What a run's results depend on, as far as its configuration says it, but for the seed."""
    data = identity(config)
    data.pop("seed")
    common = config.model.common
    return {**data, "weights": common.weights, "from_single_task": common.from_single_task}


def _leaves(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    return {leaf: value for key, item in data.items()
            for leaf, value in _leaves(item, f"{prefix}.{key}" if prefix else str(key)).items()}


class _Inputs:
    """Digests of the data and weights that configurations name, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def of(self, config: TransferConfig) -> Any:
        from transfer.single_run import inputs

        common = config.model.common
        key = digest([as_dict(config.data), config.model.name, common.weights, common.from_single_task, config.tasks,
                      config.auxiliary])
        if key not in self._known:
            self._known[key] = inputs(config)
        return self._known[key]


def _run(sweep: SweepConfig, label: str, config: TransferConfig, seed: int, inputs: _Inputs) -> RunPlan:
    """A run, in a folder whose name changes with everything that its results depend on."""
    plugins = sorted(hashlib.blake2b(Path(path).read_bytes()).hexdigest() for path in config.plugin)
    key = digest({"config": _identity(config), "inputs": inputs.of(config), "plugins": plugins})
    slug = re.sub(r"[^A-Za-z0-9.+]+", "-", label).strip("-.")[:60].rstrip("-.") or "run"
    name = f"{slug}-{key[:6]}-{seed}"
    return RunPlan(name, dataclasses.replace(config, seed=seed), sweep.folder / "runs" / name,
                   sweep.folder / "configs" / f"{name}.yaml")
