"""Drawings of architectures, and the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from mtl_heads import architectures, build_model
from mtl_heads.drawing.__main__ import FOLDER
from mtl_heads.drawing.examples import OPTIONS, draw
from mtl_heads.drawing.flow import IMAGES, trace
from mtl_heads.drawing.parts import components, diagram
from mtl_heads.drawing.svg import legend, to_svg

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "architectures.md"
TINY = {"backbone_options": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}}


def drawn(name, auxiliary=None, **options):
    model = build_model(name, "resnet18", {"semseg": 5, "depth": 1}, {"scene": 3}, auxiliary, **TINY, **options)
    return diagram(model)


def edges(found):
    """Arrows by label and task."""
    names = [(part.label, *(part.tasks if len(part.tasks) == 1 or part.open else ())) for part in found.parts]
    return {(names[a], names[b]) for a, b in found.edges}


def test_page_covers_every_architecture():
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {section.split("\n", 1)[0]: section for section in sections}
    assert sorted(found) == architectures()
    for name, section in found.items():
        assert "*Source:* " in section and "*Use it* " in section, name
        assert f"![{name}](images/architectures/{name}.svg)" in section
        ElementTree.parse(FOLDER / f"{name}.svg")
    assert not set(OPTIONS) - set(found)


def test_every_image_of_the_page_is_there_and_none_is_left_over():
    shown = set(re.findall(r"\(images/architectures/(\w+)\.svg\)", PAGE.read_text(encoding="utf-8")))
    assert shown == {path.stem for path in FOLDER.glob("*.svg")}
    assert (FOLDER / "legend.svg").read_text(encoding="utf-8") == legend()


@pytest.mark.parametrize(
    "name", ["baseline", *(pytest.param(n, marks=pytest.mark.slow) for n in architectures() if n != "baseline")]
)
def test_images_are_those_of_the_code(name):
    stored = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert stored == draw(name), f"the drawing of {name} is old: run 'python -m mtl_heads.drawing {name}'"


def test_baseline_is_a_trunk_with_heads():
    found = drawn("baseline", head="fcn")
    assert [part.label for part in found.parts[:4]] == [f"stage {i}" for i in (1, 2, 3, 4)]
    assert all(part.tasks == ("semseg", "depth", "scene") and not part.open for part in found.parts[:4])
    assert edges(found) == {
        *(((f"stage {i}",), (f"stage {i + 1}",)) for i in (1, 2, 3)),
        *((("stage 4",), ("head", task)) for task in ("semseg", "depth", "scene")),
    }
    heads = {part.tasks[0]: i for i, part in enumerate(found.parts) if part.label == "head"}
    assert found.first == [0] and found.outputs == {task: [i] for task, i in heads.items()}


def test_parts_have_all_parameters_in_use():
    model = build_model("baseline", "resnet18", {"semseg": 5, "depth": 1}, head="fcn", **TINY)
    unused = sum(value.numel() for value in model.unreached_parameters())
    assert sum(part.parameters for part in diagram(model).parts) + unused == sum(
        value.numel() for value in model.parameters()
    )


def test_tree_of_branched():
    tree = [[["semseg", "depth", "scene"]]] * 2 + [[["semseg", "depth"], ["scene"]]] * 2
    found = drawn("branched", tree=tree, head="fcn")
    stages = {(part.label, part.tasks) for part in found.parts if part.label.startswith("stage")}
    assert stages == {
        (f"stage {i + 1}", tuple(task for task in ("semseg", "depth", "scene") if task in group))
        for i, groups in enumerate(tree)
        for group in groups
    }


def test_parts_that_others_read_are_open():
    found = drawn("pad_net", {"normals": 3}, channels=8)
    parts = {(part.label, part.tasks): part for part in found.parts}
    for task in ("semseg", "depth", "normals"):
        assert parts["initial prediction", (task,)].open and parts["initial prediction", (task,)].predicts
        assert (("initial prediction", task), ("distillation", "semseg")) in edges(found)
    assert not parts["distillation", ("semseg",)].open and not parts["image head", ("scene",)].open
    assert ("distillation", ("normals",)) not in parts


def test_columns_exchange_after_every_stage():
    found = edges(drawn("cross_stitch", head="fcn"))
    for stage in (1, 2, 3, 4):
        for task in ("semseg", "depth", "scene"):
            for other in ("semseg", "depth", "scene"):
                assert ((f"stage {stage}", task), (f"exchange {stage}", other)) in found
    assert (("stage 1", "semseg"), ("stage 2", "semseg")) not in found


def test_what_is_read_without_a_gradient_is_drawn():
    found = edges(drawn("progressive", head="fcn"))
    assert (("stage 1", "semseg"), ("adapter 1", "depth")) in found


def test_channels_with_owners_are_divided():
    found = drawn("cooperative", head="fcn")
    assert all(part.divided == part.label.startswith("stage") for part in found.parts)


def test_trace_looks_through_sums_and_parameters_without_a_module():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) + self.b(x) * torch.nn.functional.normalize(self.a.weight[..., 0, 0]).sum())

    model = build_model("baseline", "resnet18", {"semseg": 5}, head="fcn", **TINY)
    model.encoder.neck = _OnLast(Two())
    seen = trace(model)
    found = {
        (seen.names[source], name)
        for name, sources in zip(seen.names, seen.sources, strict=True)
        for source in sources
    }
    a, b, c = (f"encoder.neck.part.{name}" for name in "abc")
    # The product reads a's weight, so it is a's; the sum is nobody's, and is looked through.
    assert {(a, c), (b, a)} <= found and (b, c) not in found
    assert IMAGES in seen.names


class _OnLast(nn.Module):
    """A neck that puts the last feature through a part of three channels."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, features):
        last = features[-1]
        return [*features[:-1], torch.cat([self.part(last[:, :3]), last[:, 3:]], 1)]

    def crop(self, features, size):
        return features


def test_components_in_order():
    following = {1: {2}, 2: {3}, 3: {2, 4}, 4: set(), 5: {1}}
    assert components(following) == [{4}, {2, 3}, {1}, {5}]


def test_boxes_do_not_overlap_and_arrows_go_down():
    found = drawn("mtan", head="fcn")
    root = ElementTree.fromstring(to_svg(found, "x"))
    boxes = [
        tuple(float(box.get(key)) for key in ("x", "y", "width", "height"))
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
        if box.get("stroke")
    ]
    assert len(boxes) == len(found.parts) + 1 + len(found.tasks)
    for i, (x, y, w, h) in enumerate(boxes):
        for u, v, p, q in boxes[:i]:
            assert x >= u + p or u >= x + w or y >= v + q or v >= y + h


@pytest.mark.slow
def test_command_draws_a_plugin(tmp_path, programs):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from mtl_heads.baseline import Baseline\nfrom mtl_heads.registry import ARCHITECTURES\n"
        "@ARCHITECTURES.register('mine')\nclass Mine(Baseline):\n    pass\n"
    )
    try:
        end = programs.call("mtl_heads.drawing.__main__", "mine", f"--plugin={plugin}", f"--output={tmp_path}")
        assert end.code == 0 and "mine" in (tmp_path / "mine.svg").read_text()
    finally:
        from mtl_heads.registry import ARCHITECTURES

        ARCHITECTURES._things.pop("mine", None)
