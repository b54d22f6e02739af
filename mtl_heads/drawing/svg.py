"""A diagram as SVG: top to bottom, one lane per task."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from itertools import permutations

from mtl_heads.drawing.parts import Diagram, Part, components

LANE, ROW, BOX, GAP, TRACK = 124, 64, 36, 8, 14
SHARED, INK, PAPER = "#5b6470", "#20242a", "#ffffff"
#: Colours that the colour-blind can tell apart (Okabe and Ito, 2008), in the order of the tasks.
COLORS = ("#0072b2", "#d55e00", "#8a4f9e", "#00795a", "#a07800", "#a8325e")
_IMAGES, _OUTPUT = "images", "output"


@dataclass
class _Box:
    """Something drawn at a place: from lane ``left`` to lane ``right`` of row ``row``."""

    left: int
    right: int
    row: int = 0
    part: Part | None = None
    text: str = ""
    kind: str = ""
    entries: list[object] = field(default_factory=list)

    @property
    def x(self) -> tuple[float, float]:
        return self.left * LANE + GAP, (self.right + 1) * LANE - GAP

    @property
    def middle(self) -> float:
        return sum(self.x) / 2

    @property
    def top(self) -> float:
        return self.row * ROW

    @property
    def bottom(self) -> float:
        return self.row * ROW + BOX


def to_svg(diagram: Diagram, title: str) -> str:
    """The drawing.

    Boxes span the lanes of the tasks that they serve. Arrows that would run through a box go round
    it, at the left or right.

    Args:
        diagram: what to draw.
        title: for readers who do not see it.
    """
    lanes = _lanes(diagram)
    boxes, edges = _boxes(diagram, lanes)
    _place(boxes, edges)
    colors = {task: COLORS[i % len(COLORS)] for i, task in enumerate(diagram.tasks)}
    return _Canvas(boxes, edges, colors, lanes, diagram).draw(title)


def legend() -> str:
    """What the boxes of a drawing mean."""
    task, other = COLORS[:2]
    dot = (
        f'<circle cx="{LANE - GAP - 1}" cy="{BOX - 1}" r="5" fill="{PAPER}" stroke="{INK}"/>'
        f'<circle cx="{LANE - GAP - 1}" cy="{BOX - 1}" r="2" fill="{INK}"/>'
    )
    share = (LANE - 2 * GAP) / 2
    stripes = "".join(
        f'<rect x="{GAP + i * share:g}" y="{BOX - 5}" width="{share:g}" height="6" fill="{color}"/>'
        for i, color in enumerate((task, other))
    )
    rows = (
        (_sample(SHARED, SHARED, "shared"), "one set of weights for all the tasks whose lanes it spans"),
        (_sample(SHARED, SHARED, "divided") + stripes, "each task owns some of its channels"),
        (_sample(task, task, "of one task"), "only this task's loss trains it"),
        (_sample(_tint(task), task, "read by others"), "made for this task; losses of others train it too"),
        (_sample(_tint(task), task, "predicts") + dot, "predicts on the way: deep supervision in training"),
    )
    width, height = 540, len(rows) * 46 + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>What the boxes mean</title>",
        f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>',
    ]
    for i, (sample, text) in enumerate(rows):
        lines.append(
            f'<g transform="translate(4 {10 + 46 * i})">{sample}'
            f'<text x="{LANE + 6}" y="22" font-size="12" fill="{INK}">{escape(text)}</text></g>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _sample(fill: str, stroke: str, text: str) -> str:
    ink = PAPER if fill == stroke else stroke
    return (
        f'<rect x="{GAP}" y="0" width="{LANE - 2 * GAP}" height="{BOX}" rx="5" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="1.6"/>{_text(LANE / 2, 22, text, ink, 12, LANE - 2 * GAP, True)}'
    )


def _lanes(diagram: Diagram) -> list[str]:
    """Order of the tasks in which as few boxes as can be span lanes of tasks that they do not serve."""
    sets = {part.tasks for part in diagram.parts}

    def strangers(order: tuple[str, ...]) -> int:
        places = [[order.index(task) for task in tasks] for tasks in sets]
        return sum(max(found) - min(found) + 1 - len(found) for found in places if found)

    if len(diagram.tasks) > 6:
        return diagram.tasks
    return list(min(permutations(diagram.tasks), key=strangers))


def _boxes(diagram: Diagram, lanes: list[str]) -> tuple[list[_Box], list[tuple[int, int]]]:
    boxes = []
    for part in diagram.parts:
        places = [lanes.index(task) for task in part.tasks] or [0, len(lanes) - 1]
        boxes.append(_Box(min(places), max(places), part=part, text=part.label))
    edges = list(diagram.edges)
    if diagram.first:
        boxes.append(_Box(0, len(lanes) - 1, text="images", kind=_IMAGES))
        edges += [(len(boxes) - 1, index) for index in diagram.first]
    for task in lanes:
        lane = lanes.index(task)
        boxes.append(_Box(lane, lane, text=task, kind=_OUTPUT))
        edges += [(index, len(boxes) - 1) for index in diagram.outputs[task]]
    return boxes, edges


def _place(boxes: list[_Box], edges: list[tuple[int, int]]) -> None:
    """Rows: each box below those whose results it reads, none over another, all outputs in the last.

    Where two boxes want a row, it goes to the one with more to come, then to the one whose results to
    read are nearer.
    """
    following: dict[int, set[int]] = {i: set() for i in range(len(boxes))}
    for a, b in edges:
        following[a].add(b)
    height: dict[int, int] = {}
    before: dict[int, set[int]] = {}
    for group in components(following):  # later ones first
        after = {b for a in group for b in following[a]} - group
        for a in group:
            height[a] = 1 + max((height[b] for b in after), default=0)
            before[a] = {source for source, target in edges if target in group} - group
    waiting = {i for i, box in enumerate(boxes) if box.kind != _OUTPUT}
    row = 0
    while waiting:
        ready = [i for i in waiting if not before[i] & waiting and all(boxes[a].row < row for a in before[i])]
        nearest = {i: max((boxes[a].row for a in before[i]), default=-1) for i in ready}
        taken: list[_Box] = []
        for i in sorted(ready, key=lambda i: (-height[i], -nearest[i], boxes[i].left - boxes[i].right, i)):
            box = boxes[i]
            if all(box.right < other.left or other.right < box.left for other in taken):
                box.row = row
                taken.append(box)
                waiting.remove(i)
        row += 1
    for box in boxes:
        if box.kind == _OUTPUT:
            box.row = row


class _Canvas:
    """Lines and boxes, as text."""

    def __init__(
        self,
        boxes: list[_Box],
        edges: list[tuple[int, int]],
        colors: dict[str, str],
        lanes: list[str],
        diagram: Diagram,
    ) -> None:
        self.boxes, self.colors, self.lanes, self.diagram = boxes, colors, lanes, diagram
        self.width = len(lanes) * LANE
        self.verticals: list[tuple[float, float, float, _Box]] = []  # x, from, to, and whose line it is
        self.sides: dict[bool, list[tuple[int, float, float, object]]] = {False: [], True: []}
        self.left = self.right = 0.0
        self.buses = {id(box): self._bus(i, edges) for i, box in enumerate(boxes)}
        ordered = sorted(edges, key=lambda edge: (self._length(edge), edge))
        self.lines = [self._line(boxes[a], boxes[b]) for a, b in ordered]

    def _bus(self, i: int, edges: list[tuple[int, int]]) -> object:
        """Boxes with the same bus may share a line: those of one task that go round others to the same ones."""
        far = frozenset(b for a, b in edges if a == i and self.boxes[b].row > self.boxes[i].row + 1)
        return (self._color(self.boxes[i]), far) if self._named(self.boxes[i]) else i

    def _length(self, edge: tuple[int, int]) -> int:
        return abs(self.boxes[edge[1]].row - self.boxes[edge[0]].row)

    # -- arrows -----------------------------------------------------------------------------------

    def _line(self, a: _Box, b: _Box) -> tuple[str, str, bool]:
        """Path, colour and whether it has heads at both ends."""
        color = self._color(a)
        if b.row <= a.row:  # to and fro inside a circle
            return f"M{a.middle:g},{a.top:g} L{_within(a.middle, b.x):g},{b.bottom:g}", color, True
        if b.row == a.row + 1:
            return self._short(a, b), color, False
        x = self._free(a, b)
        if x is not None:
            return f"M{x:g},{a.bottom:g} L{x:g},{b.top:g}", color, False
        return self._around(a, b), color, False

    def _short(self, a: _Box, b: _Box) -> str:
        low, high = max(a.x[0], b.x[0]), min(a.x[1], b.x[1])
        if low < high:  # one above the other: straight down, in the middle of the narrower one
            narrow = a if a.right - a.left <= b.right - b.left else b
            x = _within(narrow.middle, (low + 10, high - 10))
            self.verticals.append((x, a.bottom, b.top, a))
            return f"M{x:g},{a.bottom:g} L{x:g},{b.top:g}"
        start = _within(b.middle, (a.x[0] + 14, a.x[1] - 14))
        end = _within(a.middle, (b.x[0] + 14, b.x[1] - 14))
        bend = (a.bottom + b.top) / 2
        return f"M{start:g},{a.bottom:g} C{start:g},{bend + 6:g} {end:g},{bend - 6:g} {end:g},{b.top:g}"

    def _free(self, a: _Box, b: _Box) -> float | None:
        """Where a line straight down from ``a`` to ``b`` meets no box, if anywhere."""
        between = [box for box in self.boxes if a.row < box.row < b.row]
        low, high = max(a.x[0], b.x[0]) + 10, min(a.x[1], b.x[1]) - 10
        narrow = a if a.right - a.left <= b.right - b.left else b
        for shift in (0, -16, 16, -32, 32):
            x = narrow.middle + shift
            clear = all(not box.x[0] - 4 < x < box.x[1] + 4 for box in between)
            apart = all(
                abs(x - other) > 8 or bottom <= a.bottom or top >= b.top or owner is a
                for other, top, bottom, owner in self.verticals
            )
            if low <= x <= high and clear and apart:
                self.verticals.append((x, a.bottom, b.top, a))
                return x
        return None

    def _around(self, a: _Box, b: _Box) -> str:
        """Out at a side of the drawing, down a track there, and in above ``b``."""
        centre = self.width / 2
        right = (a.middle + b.middle) / 2 > centre or (a.right == len(self.lanes) - 1 and a.left > 0)
        x = self._track(a, b, right)
        start, way = self._leave(a, right)
        y, end = self._enter(b, right, a)
        return f"M{start}{way} H{x:g} V{y:g} {end}"

    def _track(self, a: _Box, b: _Box, right: bool) -> float:
        """Place of a vertical line at a side: one for all that leaves ``a``, apart from others'."""
        tracks, bus = self.sides[right], self.buses[id(a)]
        number = 1
        top, bottom = a.top, b.bottom
        while any(
            at == number and other != bus and start < bottom and top < end for at, start, end, other in tracks
        ):
            number += 1
        tracks.append((number, top, bottom, bus))
        offset = number * TRACK - 4
        if right:
            self.right = max(self.right, offset)
            return self.width + offset
        self.left = max(self.left, offset)
        return -offset

    def _leave(self, a: _Box, right: bool) -> tuple[str, str]:
        outermost = a.right == len(self.lanes) - 1 if right else a.left == 0
        if outermost:
            return f"{a.x[1] if right else a.x[0]:g},{a.top + BOX / 2:g}", ""
        x = a.x[1] - 12 if right else a.x[0] + 12
        return f"{x:g},{a.bottom:g}", f" V{a.bottom + 7:g}"

    def _enter(self, b: _Box, right: bool, a: _Box) -> tuple[float, str]:
        bus = (self.buses[id(a)], right)
        if bus not in b.entries:
            b.entries.append(bus)
        place = [entry for entry in b.entries if entry[1] == right].index(bus)
        outermost = b.right == len(self.lanes) - 1 if right else b.left == 0
        if outermost:
            return b.top + 8 + 7 * min(place, 3), f"H{b.x[1] + 1 if right else b.x[0] - 1:g}"
        x = b.x[1] - 24 - 9 * place if right else b.x[0] + 24 + 9 * place
        return b.top - 9, f"H{x:g} V{b.top:g}"

    def _named(self, box: _Box) -> bool:
        """Whether it has the colour of a task."""
        return box.part is not None and len(self.lanes) > 1 and (box.part.open or len(box.part.tasks) == 1)

    def _color(self, box: _Box) -> str:
        return self.colors[box.part.tasks[0]] if self._named(box) else SHARED

    # -- text -------------------------------------------------------------------------------------

    def draw(self, title: str) -> str:
        """The whole."""
        margin = 10
        left, right = self.left + margin, self.right + margin
        width = left + self.width + right
        height = max(box.bottom for box in self.boxes) + 2 * margin
        used = sorted({color for _, color, _ in self.lines})
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="{-left:g} {-margin:g} {width:g} {height:g}" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape(title)}</title>",
            "<defs>",
            *(
                f'<marker id="{_marker(color)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" '
                f'fill="{color}"/></marker>'
                for color in used
            ),
            "</defs>",
            f'<rect x="{-left:g}" y="{-margin:g}" width="{width:g}" height="{height:g}" rx="6" fill="{PAPER}"/>',
        ]
        for path, _, _ in self.lines:
            lines.append(f'<path d="{path}" fill="none" stroke="{PAPER}" stroke-width="4"/>')
        for path, color, both in self.lines:
            heads = f' marker-start="url(#{_marker(color)})"' if both else ""
            lines.append(
                f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"{heads} '
                f'marker-end="url(#{_marker(color)})"/>'
            )
        for box in self.boxes:
            lines += self._box(box)
        return "\n".join([*lines, "</svg>", ""])

    def _box(self, box: _Box) -> list[str]:
        x, width = box.x[0], box.x[1] - box.x[0]
        place = f'x="{x:g}" y="{box.top:g}" width="{width:g}" height="{BOX}"'
        if box.kind == _IMAGES:
            return [
                f'<rect {place} rx="3" fill="{PAPER}" stroke="{INK}"/>',
                _text(box.middle, box.top + 22, "images", INK, 12, width),
            ]
        if box.kind == _OUTPUT:
            color = self.colors[box.text]
            auxiliary = box.text in self.diagram.auxiliary
            dash = ' stroke-dasharray="4 3"' if auxiliary else ""
            lines = [f'<rect {place} rx="18" fill="{PAPER}" stroke="{color}" stroke-width="1.6"{dash}/>']
            if not auxiliary:
                return [*lines, _text(box.middle, box.top + 22, box.text, color, 12, width, True)]
            return [
                *lines,
                _text(box.middle, box.top + 16, box.text, color, 12, width, True),
                _text(box.middle, box.top + 29, "in training only", color, 10, width),
            ]
        part = box.part
        color = self._color(box)
        fill, ink = (_tint(color), color) if part.open else (color, PAPER)
        lines = [f'<rect {place} rx="5" fill="{fill}" stroke="{color}" stroke-width="1.6"/>']
        if part.divided:
            lines += [self._share(box, i, task) for i, task in enumerate(part.tasks)]
        missing = [
            lane
            for lane in range(box.left, box.right + 1)
            if self.lanes[lane] not in part.tasks
        ]
        for lane in missing:  # a lane that it spans and does not serve
            lines.append(
                f'<rect x="{lane * LANE + GAP:g}" y="{box.top + 3:g}" width="{LANE - 2 * GAP}" height="{BOX - 6}" '
                f'fill="{PAPER}" fill-opacity=".75"/>'
            )
        top = box.top - 3 if part.divided else box.top
        lines.append(_text(box.middle, top + 16, part.label, ink, 12, width, True))
        lines.append(_text(box.middle, top + 29, _count(part.parameters), ink, 10, width))
        if part.predicts:
            lines.append(
                f'<circle cx="{box.x[1] - 1:g}" cy="{box.bottom - 1:g}" r="5" fill="{PAPER}" stroke="{INK}"/>'
                f'<circle cx="{box.x[1] - 1:g}" cy="{box.bottom - 1:g}" r="2" fill="{INK}"/>'
            )
        return lines


    def _share(self, box: _Box, i: int, task: str) -> str:
        """One task's share of a part whose channels are divided among tasks."""
        share = (box.x[1] - box.x[0]) / len(box.part.tasks)
        return (
            f'<rect x="{box.x[0] + i * share:g}" y="{box.bottom - 5:g}" width="{share:g}" height="6" '
            f'fill="{self.colors[task]}"/>'
        )


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _marker(color: str) -> str:
    return f"arrow-{color.removeprefix('#')}"


def _tint(color: str) -> str:
    """The colour, mostly white."""
    values = [round(255 - 0.14 * (255 - int(color[i : i + 2], 16))) for i in (1, 3, 5)]
    return "#" + "".join(f"{value:02x}" for value in values)


def _count(number: int) -> str:
    """Parameters in three figures."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _text(x: float, y: float, text: str, color: str, size: int, width: float, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    wide = len(text) * size * 0.58 > width - 10
    squeezed = f' textLength="{width - 12:g}" lengthAdjust="spacingAndGlyphs"' if wide else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="{size}" fill="{color}"{weight}{squeezed}>'
        f"{escape(text)}</text>"
    )
