"""Settings of a sweep: all combinations of axes of options, and simplex grids of constant weights."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from harness.errors import UserError, closest
from transfer.config import TransferConfig

#: What the sweep itself says to every run.
OWN = {"seed": "seeds", "output": "name or output of the sweep", "name": "name or output of the sweep",
       "baseline": "baseline of the sweep", "config": "base", "resume": "nothing: a sweep always goes on",
       "plugin": "plugin in base, or --plugin after --"}
GRID = {"tasks": None, "steps": 5, "total": None, "zeros": False}


@dataclass(frozen=True)
class Setting:
    """One combination.

    Args:
        options: dotted options of transfer/main.py.
        values: how the value on each axis is called, by the axis.
        sources: the axis, as it is found in the sweep's file, that each option is of.
    """

    options: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Setting) -> Setting:
        for option in self.options.keys() & other.options.keys():
            raise UserError(f"option {option} is set by {self.sources[option]} and by {other.sources[option]}: leave "
                            "it to one of them")
        for axis in self.values.keys() & other.values.keys():
            raise UserError(f"axis {axis} is there twice, one inside a bundle of the other: rename one")
        return Setting({**self.options, **other.options}, {**self.values, **other.values},
                       {**self.sources, **other.sources})

    @property
    def label(self) -> str:
        """How it is called: names as they are, numbers with the last part of their option."""
        return self.label_of(list(self.values)) or "the only setting"

    def label_of(self, axes: Sequence[str]) -> str:
        """The part of the label that some axes make."""
        words = []
        for axis in axes:
            short, value = axis.split(".")[-1], self.values[axis]
            named = "." not in axis and axis not in self.options or short == "name" or axis in ("weights", "tasks")
            words.append(value if named else f"{short} {value}")
        return ", ".join(words)


def expand(axes: Mapping[str, Any], grid: Mapping[str, Any] | None = None, tasks: Sequence[str] = (),
           where: str = "axes") -> list[Setting]:
    """All combinations.

    Args:
        axes: lists of values of options, or bundles of options by name.
        grid: of constant weights, see :func:`weight_grid`.
        tasks: of the base configuration, for a grid that names none.
        where: what stands before the name of an axis in messages.

    Raises:
        UserError: an axis without values, or with the same twice; an option on two axes; one of the sweep's own.
    """
    parts = [list(_values(name, values, tasks, where)) for name, values in axes.items()]
    if grid is not None:
        source = "grid" if where == "axes" else f"grid in {where}"
        parts.append([Setting({"balance.name": "fixed", "balance.weights": weights},
                              {"weights": " ".join(f"{task} {weight:.3g}" for task, weight in weights.items())},
                              {"balance.name": source, "balance.weights": source})
                      for weights in weight_grid(grid, tasks)])
    return [sum(combination, Setting()) for combination in itertools.product(*parts)]


def _values(name: str, values: Any, tasks: Sequence[str], where: str) -> Iterator[Setting]:
    source = f"axis '{name}'" if where == "axes" else f"axis '{name}' in {where}"
    if not isinstance(values, list | Mapping) or not values:
        raise UserError(f"{source} has the values {values!r}: give a list of values, or bundles of options by name")
    if isinstance(values, Mapping):
        for label, bundle in values.items():
            inside = f"bundle '{label}' of {source}"
            if not isinstance(bundle, Mapping | None):
                raise UserError(f"{inside} is {bundle!r}: give its options, for example {{balance.name: dwa}}")
            given = dict(bundle or {})
            inner = expand(given.pop("axes", None) or {}, given.pop("grid", None), tasks, inside)
            options = flatten(given, inside)
            own = Setting(options, {str(name): str(label)}, dict.fromkeys(options, inside))
            for one in inner:
                yield own + one
        return
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise UserError(f"{source} has the value {text(value)} twice: leave one out")
        seen.append(value)
        options = flatten({name: value}, source)
        yield Setting(options, {str(name): text(value)}, dict.fromkeys(options, source))


def flatten(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Dotted options from groups of them: ``{balance: {name: dwa}}`` becomes ``{balance.name: dwa}``.

    Raises:
        UserError: an option that the sweep itself sets.
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        name = str(name)
        if name in OWN:
            raise UserError(f"{where}: option {name} is the sweep's own: use {OWN[name]}")
        if name in groups() and isinstance(value, Mapping):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        elif name in groups() and isinstance(value, str):
            flat[f"{name}.name"] = value
        else:
            flat[name] = value
    return flat


@cache
def groups() -> frozenset[str]:
    """Fields of a transfer run that are groups of options."""
    found = set()
    for one in dataclasses.fields(TransferConfig):
        default = one.default_factory
        nested = default is not dataclasses.MISSING and one.metadata.get("registry") is None
        if "registry" in one.metadata or nested and dataclasses.is_dataclass(default()):
            found.add(one.name)
    return frozenset(found)


def weight_grid(grid: Mapping[str, Any], tasks: Sequence[str] = ()) -> list[dict[str, float]]:
    """Constant weights w_t = total · k_t / steps with integers k_t whose sum is ``steps``.

    The grid search over ``{c : c_t ≥ 0, Σ c_t = 1}`` of Sener & Koltun 2018, section 5, scaled so that equal
    weights are 1 as in a plain sum.

    Args:
        grid: ``tasks``, ``steps``, ``total``, ``zeros``.
        tasks: those that stand in for ``tasks``.

    Raises:
        UserError: an unknown field, fewer than two tasks, or too few steps for a point inside.
    """
    if not isinstance(grid, Mapping):
        raise UserError(f"grid is {grid!r}: give {{tasks: [...], steps: 5}}")
    for name in grid:
        if name not in GRID:
            raise UserError(f"grid has no field '{name}'{closest(str(name), GRID)}: its fields are {', '.join(GRID)}")
    names = list(grid.get("tasks") or tasks)
    steps, zeros = grid.get("steps", GRID["steps"]), bool(grid.get("zeros", False))
    total = grid.get("total") or len(names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"grid.tasks is {names}: weights need two different tasks or more")
    least = 1 if zeros else len(names)
    if not isinstance(steps, int) or steps < least or not total > 0:
        raise UserError(f"grid has steps {steps} and total {total}: give at least {least} steps for {len(names)} "
                        "tasks, and a positive total")
    return [{task: round(total * part / steps, 6) for task, part in zip(names, parts, strict=True)}
            for parts in compositions(steps, len(names), 0 if zeros else 1)]


def compositions(total: int, parts: int, least: int = 0) -> Iterator[tuple[int, ...]]:
    """All ways to write ``total`` as a sum of ``parts`` integers of ``least`` or more, in order."""
    if parts == 1:
        if total >= least:
            yield (total,)
        return
    for first in range(least, total - least * (parts - 1) + 1):
        for rest in compositions(total - first, parts - 1, least):
            yield (first, *rest)


def text(value: Any) -> str:
    """A value as it is shown."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{key} {text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(text(item) for item in value)
    return str(value)


def words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]
