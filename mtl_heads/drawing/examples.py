"""The network that an architecture is drawn with."""

from __future__ import annotations

from typing import Any

from harness.errors import UserError
from mtl_heads.build import build_model
from mtl_heads.drawing.parts import Diagram, diagram
from mtl_heads.drawing.svg import to_svg
from mtl_heads.model import MultiTaskModel
from mtl_heads.registry import ARCHITECTURES

#: The first that an architecture takes.
BACKBONES = ("resnet18", "segnet")
DENSE, IMAGE, AUXILIARY = {"semseg": 13, "depth": 1}, {"scene": 6}, {"normals": 3}
#: Options of architectures whose defaults do not show what they can do.
OPTIONS: dict[str, dict[str, Any]] = {
    "branched": {
        "tree": [
            [["semseg", "depth", "scene"]],
            [["semseg", "depth", "scene"]],
            [["semseg", "depth"], ["scene"]],
            [["semseg"], ["depth"], ["scene"]],
        ]
    },
    "lasso": {"head": "hrnet"},
}


def draw(name: str) -> str:
    """The drawing of a registered architecture, as SVG."""
    model, drawn = example(name)
    shared = [part.label for part in drawn.parts if len(part.tasks) > 1]
    parts = f"shared by several tasks: {', '.join(shared)}" if shared else "no part is shared"
    return to_svg(drawn, f"{name} with tasks {', '.join(model.task_set.all)}; {parts}")


def example(name: str) -> tuple[MultiTaskModel, Diagram]:
    """A network with two dense tasks and an image task, and its diagram.

    With an auxiliary task where other tasks make use of it; with fewer tasks where the architecture
    takes no more.

    Raises:
        UserError: the architecture takes none of these.
    """
    ARCHITECTURES.get(name)  # a wrong name is told as such
    auxiliary = _first(name, [(DENSE, IMAGE, AUXILIARY)])
    if auxiliary is not None and name not in OPTIONS:
        drawn = diagram(auxiliary)
        if any(part.open and part.tasks == tuple(AUXILIARY) for part in drawn.parts):
            return auxiliary, drawn
    one = {"semseg": DENSE["semseg"]}
    model = _first(name, [(DENSE, IMAGE, {}), (DENSE, {}, {}), (one, {}, {})])
    if model is None:
        raise UserError(f"architecture '{name}' takes no backbone of {', '.join(BACKBONES)}: add one that it takes to "
                        "BACKBONES in mtl_heads/drawing/examples.py")
    return model, diagram(model)


def _first(name: str, choices: list[tuple[dict[str, int], ...]]) -> MultiTaskModel | None:
    for dense, image, auxiliary in choices:
        for backbone in BACKBONES:
            try:
                return build_model(name, backbone, dense, image, auxiliary, **OPTIONS.get(name, {}))
            except UserError:
                continue
    return None
