"""From modules to the few boxes of a drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from mtl_heads.blocks import PerTask
from mtl_heads.drawing.flow import IMAGES, Trace, trace
from mtl_heads.encoder import Encoder
from mtl_heads.model import MultiTaskModel
from mtl_heads.reach import Reach, reach


@dataclass(frozen=True)
class Part:
    """One box: modules that serve the same tasks, at the same place in the network.

    Args:
        label: what is written in it.
        tasks: tasks whose losses train it; where it is named for one, that one.
        open: whether it is named for a task and other tasks' losses train it too.
        parameters: number of parameters.
        predicts: whether intermediate predictions are made of its results.
        divided: whether each task owns some of its channels.
    """

    label: str
    tasks: tuple[str, ...]
    open: bool
    parameters: int
    predicts: bool
    divided: bool


@dataclass
class Diagram:
    """Boxes and arrows.

    Attributes:
        tasks: dense tasks, image tasks, auxiliary tasks.
        auxiliary: tasks that have intermediate predictions only.
        parts: the boxes, each after those whose results it reads where that is possible.
        edges: pairs of indices (from, to).
        first: indices of the parts that read the images.
        outputs: for each task the indices of the parts that its prediction is made of.
    """

    tasks: list[str]
    auxiliary: set[str]
    parts: list[Part] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    outputs: dict[str, list[int]] = field(default_factory=dict)


def diagram(model: MultiTaskModel) -> Diagram:
    """The coarsest division of a network in which each part serves one set of tasks and none runs in a circle.

    Modules are told apart by the task that they are named for and by the top of their names; deeper
    where a part would otherwise read what is made of its own results, or would serve different
    tasks. Encoders are cut at their features. A module that goes to and fro between what it has for
    all tasks and what it has for each is one part; a stage of an encoder and what tasks have in it are
    drawn beside each other.
    """
    names = _Names(model, reach(model, model.example_shape))
    seen = trace(model)
    division = _Division(names, frozenset(names.containers), frozenset())
    while True:
        finer = division.opened | {prefix for prefix in division.uneven() if names.can_open(prefix)}
        fused = division.fused
        for circle in _circles(_quotient(seen, division)):
            prefixes = {unit.prefix for unit in circle}
            mixed = any(unit.task is None for unit in circle)
            if len(prefixes) == 1 and mixed and not names.is_container(*prefixes):
                fused |= prefixes
            elif not _is_pair(circle, names):
                finer |= {prefix for prefix in prefixes if names.can_open(prefix)}
        if (finer, fused) == (division.opened, division.fused):
            break
        division = _Division(names, finer - fused, fused)
    return _build(model, seen, names, _coarser(seen, division))


@dataclass(frozen=True)
class _Unit:
    """Modules below a prefix: those named for one task, or the others."""

    prefix: str
    task: str | None


class _Names:
    """Names of modules, cut at the features of encoders, and whom they serve."""

    def __init__(self, model: MultiTaskModel, reached: Reach) -> None:
        self._keys = {PerTask.key(task): task for task in model.task_set.all}
        self._modules = dict(model.named_modules())
        self.containers, self._stages, self._paths = {""}, {}, {}
        for name, part in self._modules.items():
            if isinstance(part, Encoder):
                self._cut(name, part)
        self.paths = {self.path(name) for name in self._modules}
        self.reached: dict[str, set[frozenset[str]]] = {}
        for name, tasks in reached.tasks.items():
            if tasks:
                self.reached.setdefault(self.path(name.rpartition(".")[0]), set()).add(tasks)

    def _cut(self, name: str, encoder: Encoder) -> None:
        """Modules of the backbone by the feature that they lead to; the stem leads to the first."""
        children = list(dict(encoder.backbone.named_children()))
        info = getattr(encoder.backbone, "feature_info", None)
        features = [part.replace(".", "_") for part in info.module_name()] if info is not None else []
        if len(set(features)) < 2 or any(feature not in children for feature in features):
            return
        backbone = f"{name}.backbone".lstrip(".")
        pieces = backbone.split(".")
        self.containers |= {".".join(pieces[:n]) for n in range(1, len(pieces) + 1)}
        ends = [children.index(features[i]) for i in encoder.kept]
        for position, child in enumerate(children):
            stage = next((i for i, end in enumerate(ends) if position <= end), len(ends) - 1)
            self._stages[f"{backbone}.{child}"] = f"{backbone}.stage {stage + 1}"

    def path(self, name: str) -> str:
        """The name; inside a backbone that of the stage, and of a task where there is one."""
        if name not in self._paths:
            self._paths[name] = self._path(name)
        return self._paths[name]

    def _path(self, name: str) -> str:
        pieces = name.split(".")
        for length in range(len(pieces), 0, -1):
            stage = self._stages.get(".".join(pieces[:length]))
            if stage is not None:
                return ".".join([stage, *(piece for piece in pieces[length:] if piece in self._keys)])
        return name

    def task(self, path: str) -> str | None:
        """The task that a module is named for."""
        return next((self._keys[piece] for piece in path.split(".") if piece in self._keys), None)

    def can_open(self, prefix: str) -> bool:
        """Whether there is something below it."""
        return any(path.startswith(f"{prefix}.") for path in self.paths)

    def is_container(self, prefix: str) -> bool:
        """Whether it only holds modules, which others call."""
        return isinstance(self._modules.get(prefix), nn.ModuleList | nn.ModuleDict)

    def label(self, unit: _Unit, members: Iterable[str]) -> str:
        """What the unit is called, without the names of tasks and of containers."""
        pieces = unit.prefix.split(".")
        pieces = [piece for piece in pieces if piece not in self._keys] or pieces
        words = [piece for piece in pieces if not piece.isdigit()]
        text = _singular(words[-1].replace("_", " ").strip()) if words else ""
        if pieces[-1].isdigit():
            text = f"{text} {int(pieces[-1]) + 1}".strip()
        copies = self._copies(unit.prefix, members)
        return f"{text} ×{copies}" if copies > 1 else text

    def _copies(self, prefix: str, members: Iterable[str]) -> int:
        """How many entries of the list that the prefix names are in the unit."""
        if not isinstance(self._modules.get(prefix), nn.ModuleList):
            return 1
        return len({path.removeprefix(f"{prefix}.").split(".")[0] for path in members})


def _singular(text: str) -> str:
    """A plural's singular: one box is one of them."""
    if text.endswith("ies"):
        return f"{text[:-3]}y"
    return text[:-1] if text.endswith("s") and not text.endswith(("ss", "us", "is")) else text


class _Division:
    """Which modules are one unit.

    Args:
        names: of all modules.
        opened: prefixes of names that are divided further.
        fused: prefixes below which names of tasks make no difference.
    """

    def __init__(self, names: _Names, opened: frozenset[str], fused: frozenset[str]) -> None:
        self.names, self.opened, self.fused = names, frozenset(opened), frozenset(fused)
        self._units: dict[str, _Unit] = {}
        self.served: dict[_Unit, set[frozenset[str]]] = {}
        for path, tasks in names.reached.items():
            self.served.setdefault(self.unit(path), set()).update(tasks)

    def unit(self, path: str) -> _Unit:
        """The unit of a path."""
        if path not in self._units:
            pieces = path.split(".")
            prefixes = (".".join(pieces[:n]) for n in range(1, len(pieces) + 1))
            prefix = next((prefix for prefix in prefixes if prefix not in self.opened), path)
            self._units[path] = _Unit(prefix, None if prefix in self.fused else self.names.task(path))
        return self._units[path]

    def uneven(self) -> set[str]:
        """Prefixes of units that are named for no task and whose modules serve different ones."""
        return {
            unit.prefix
            for unit, served in self.served.items()
            if unit.task is None and unit.prefix not in self.fused and len(served) > 1
        }

    def own(self, name: str) -> _Unit | None:
        """The unit that a module belongs to; none where that unit has no parameters in use."""
        if name == IMAGES:
            return _Unit(IMAGES, None)
        unit = self.unit(self.names.path(name))
        return unit if unit in self.served else None

    def makers(self, seen: Trace) -> list[set[_Unit]]:
        """For each result the unit that it belongs to, or else those that it is made of.

        What a module without parameters of its own returns belongs to the part of it that made it
        (a residual sum to what is added), where that is one.
        """
        makers: list[set[_Unit] | None] = [None] * len(seen.names)
        for start in range(len(makers)):
            stack = [start]
            while stack:
                result = stack[-1]
                unknown = [source for source in seen.sources[result] if makers[source] is None]
                unit = self.own(seen.names[result])
                if makers[result] is None and unit is None and unknown:
                    stack += unknown
                    continue
                stack.pop()
                if unit is not None:
                    makers[result] = {unit}
                elif makers[result] is None:
                    found = set().union(*(makers[source] for source in seen.sources[result]))
                    prefix = self.unit(self.names.path(seen.names[result])).prefix
                    parts = {unit for unit in found if unit.prefix == prefix}
                    makers[result] = parts if len(parts) == 1 else found
        return makers


def _quotient(seen: Trace, division: _Division) -> dict[_Unit, set[_Unit]]:
    """Which unit's results go into which others."""
    following: dict[_Unit, set[_Unit]] = {}
    makers = division.makers(seen)
    for i, sources in enumerate(seen.sources):
        if len(makers[i]) == 1 and _belongs(seen.names[i], *makers[i], division):
            (unit,) = makers[i]
            following.setdefault(unit, set())
            for source in set().union(*(makers[j] for j in sources)) - {unit}:
                following.setdefault(source, set()).add(unit)
    return dict(sorted(following.items(), key=lambda item: _order(item[0])))


def _belongs(name: str, unit: _Unit, division: _Division) -> bool:
    """Whether a result that is made of one unit only is also that unit's own, and not what others make of it."""
    return name == IMAGES or division.unit(division.names.path(name)).prefix == unit.prefix


def _circles(following: Mapping[_Unit, set[_Unit]]) -> list[set[_Unit]]:
    """Groups of units that read what is made of their own results."""
    return [group for group in components(following) if len(group) > 1]


def _is_pair(circle: set[_Unit], names: _Names) -> bool:
    """Whether it is one stage of an encoder, and for each task one part in it."""
    tasks = [unit.task for unit in circle if unit.task is not None]
    stages = [unit for unit in circle if unit.task is None]
    return len(stages) == 1 and not names.can_open(stages[0].prefix) and len(set(tasks)) == len(tasks)


def components(following: Mapping[object, set]) -> list[set]:
    """Strongly connected components, later ones first (Tarjan, 1972; without recursion)."""
    index: dict[object, int] = {}
    low: dict[object, int] = {}
    path: list[object] = []
    found: list[set] = []
    placed: set[object] = set()

    def enter(node: object) -> tuple[object, list]:
        index[node] = low[node] = len(index)
        path.append(node)
        return node, sorted(following[node], key=str, reverse=True)

    for start in following:
        work = [] if start in index else [enter(start)]
        while work:
            node, targets = work[-1]
            if targets:
                target = targets.pop()
                if target not in index:
                    work.append(enter(target))
                elif target not in placed:
                    low[node] = min(low[node], index[target])
                continue
            work.pop()
            if work:
                above = work[-1][0]
                low[above] = min(low[above], low[node])
            if low[node] == index[node]:
                group = set(path[path.index(node) :])
                del path[path.index(node) :]
                placed |= group
                found.append(group)
    return found


def _coarser(seen: Trace, division: _Division) -> _Division:
    """Without the divisions that untangled nothing."""

    def faults(one: _Division) -> tuple[int, int]:
        units = [one.own(name) for name in seen.names]
        circles = _circles(_quotient(seen, one))
        return sum(sum(unit in circle for unit in units) ** 2 for circle in circles), len(one.uneven())

    least = faults(division)
    deepest_first = sorted(division.opened - division.names.containers, key=lambda p: (-p.count("."), p))
    for prefix in deepest_first:
        fewer = _Division(division.names, division.opened - {prefix}, division.fused)
        if all(new <= old for new, old in zip(faults(fewer), least, strict=True)):
            division = fewer
    return division


def _build(model: MultiTaskModel, seen: Trace, names: _Names, division: _Division) -> Diagram:
    following = _quotient(seen, division)
    images, makers = _Unit(IMAGES, None), division.makers(seen)
    groups = reversed(components(following))
    order = [unit for group in groups for unit in sorted(group, key=_order) if unit != images]
    number = {unit: i for i, unit in enumerate(order)}
    members: dict[_Unit, set[str]] = {unit: set() for unit in order}
    counts = dict.fromkeys(order, 0)
    for name, value in model.named_parameters():
        path = names.path(name.rpartition(".")[0])
        unit = division.unit(path)
        if unit in number:
            members[unit].add(path)
            counts[unit] += value.numel()

    def indices(results: Iterable[int]) -> list[int]:
        return sorted({number[unit] for result in results for unit in makers[result] - {images}})

    tasks = model.task_set.all
    predicts = {i for task in tasks for i in indices(seen.intermediate[task])}
    owned = _owned(model, names)
    drawn = Diagram(tasks, set(model.task_set.auxiliary))
    for i, unit in enumerate(order):
        served = frozenset().union(*division.served[unit])
        shown = {unit.task} if unit.task else served
        drawn.parts.append(
            Part(
                names.label(unit, members[unit]),
                tuple(task for task in tasks if task in shown),
                unit.task is not None and served != {unit.task},
                counts[unit],
                i in predicts,
                bool(owned) and all(paths & members[unit] for paths in owned),
            )
        )
    drawn.edges = sorted((number[a], number[b]) for a in order for b in following[a])
    drawn.first = sorted(number[unit] for unit in following.get(images, ()))
    for task in tasks:
        drawn.outputs[task] = indices(seen.predictions[task] or seen.intermediate[task])
    return drawn


def _owned(model: MultiTaskModel, names: _Names) -> list[set[str]]:
    """For each task the paths of what it owns of an encoder that the architecture divides among them."""
    if len(model.task_set.all) < 2 or not hasattr(model, "encoder_parameters"):
        return []
    path = {id(value): names.path(name.rpartition(".")[0]) for name, value in model.named_parameters()}
    return [{path[id(value)] for value in model.encoder_parameters(task)} for task in model.task_set.all]


def _order(unit: _Unit) -> tuple[str, str]:
    return (unit.prefix, unit.task or "")
