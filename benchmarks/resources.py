"""Parameters and multiply-adds of multi-task networks, beside those of the thesis of Vandenhende (2022, table 5.6).

    python -m benchmarks.resources

Nothing is trained and nothing computed: networks are counted on tensors without values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.program import run_program
from mtl_heads import build_model
from mtl_heads.resources import Resources, resources, single_task_resources
from mtl_heads.tasks import Tasks


class Row(NamedTuple):
    """A network of a table, and the thesis's figures for it.

    Args:
        architecture: its name.
        parameters: in M for the single-task networks together, in percent of theirs for others.
        multiply_adds: in G, or in percent.
        options: its own.
        label: what tells it from other rows; by default its options.
    """

    architecture: str
    parameters: float
    multiply_adds: float
    options: dict[str, Any] = {}
    label: str | None = None

    @property
    def text(self) -> str:
        """What stands in the first column."""
        told = [f"`{key}={value}`" for key, value in self.options.items()] if self.label is None else [self.label]
        return ", ".join([self.architecture, *told])


@dataclass(frozen=True)
class Setting:
    """One of the two tables.

    Args:
        title: what stands above it.
        backbone: timm name.
        size: of the images.
        dense: the tasks.
        auxiliary: tasks that PAD-Net and MTI-Net predict on the way.
        common: options of networks with heads.
        rows: the networks, the single-task ones first.
        helped: architectures that have no heads to choose, and use auxiliary tasks.
    """

    title: str
    backbone: str
    size: tuple[int, int]
    dense: dict[str, int]
    auxiliary: dict[str, int]
    common: dict[str, Any]
    rows: tuple[Row, ...]
    helped: tuple[str, ...] = field(default=("pad_net", "mti_net"))


def _fpn(channels: int) -> dict[str, Any]:
    return {"neck": "fpn", "neck_options": {"channels": channels}}


#: Semantic segmentation and depth; the main tasks are also predicted on the way, edges and normals only there.
NYUD = Setting(
    "NYUD, HRNet-18, 480×640", "hrnet_w18_small_v2", (480, 640), {"semseg": 40, "depth": 1}, {"edge": 1, "normals": 3},
    {"head": "hrnet"},
    (Row("single_task", 8.0, 22.0), Row("baseline", -50, -45), Row("pad_net", -15, 204),
     Row("pad_net", -15, 204, {"distill": "published"}), Row("mti_net", 57, -13),
     Row("mti_net", 57, -13, {"propagation_reduction": 1})),
)
PASCAL = Setting(
    "PASCAL, ResNet-50 FPN, 512×512", "resnet50", (512, 512),
    {"semseg": 21, "parts": 7, "saliency": 2, "edge": 1, "normals": 3}, {}, {"head": "panoptic_fpn", "neck": "fpn"},
    (Row("single_task", 140, 219), Row("baseline", -75, -66), Row("astmt", -51, -1),
     Row("astmt", -51, -1, {"reduction": 8}),
     Row("mti_net", -35, -19.9, _fpn(96), "FPN of 96 channels"),
     Row("mti_net", -35, -19.9, _fpn(256), "FPN of 256 channels")),
)


def lines(setting: Setting) -> list[str]:
    """A Markdown table: ours beside the thesis's."""
    tasks = Tasks(setting.dense, {}, {})
    singles = single_task_resources(
        lambda one: build_model("single_task", setting.backbone, one.dense, **setting.common), tasks, setting.size)
    found = [f"| {setting.title} | parameters | thesis | multiply-adds | thesis |", "|---|---:|---:|---:|---:|"]
    for row in setting.rows:
        if row.architecture == "single_task":
            found.append(f"| one network for each of {len(setting.dense)} tasks | {singles.parameters / 1e6:.3g} M | "
                         f"{row.parameters:g} M | {singles.multiply_adds / 1e9:.3g} G | {row.multiply_adds:g} G |")
            continue
        for label, auxiliary in _variants(row, setting):
            ours = costs(row, setting, auxiliary).change(singles)
            cells = [_percent(value) for value in (ours[0], row.parameters, ours[1], row.multiply_adds)]
            found.append(f"| {label} | {' | '.join(cells)} |")
    return found


def costs(row: Row, setting: Setting, auxiliary: dict[str, int]) -> Resources:
    """Parameters and multiply-adds of a row's network; those of predicting all of its tasks once."""
    common = {} if row.architecture in setting.helped else setting.common
    model = build_model(row.architecture, setting.backbone, setting.dense, auxiliary=auxiliary,
                        **common, **row.options)
    return resources(model, setting.size)


def _variants(row: Row, setting: Setting) -> list[tuple[str, dict[str, int]]]:
    if row.architecture not in setting.helped or not setting.auxiliary:
        return [(row.text, {})]
    return [(row.text, {}), (f"{row.text}, with auxiliary {' and '.join(setting.auxiliary)}", setting.auxiliary)]


def _percent(value: float) -> str:
    return f"{round(value):+d} %".replace("-", "−")


def main() -> int:
    """The command."""
    for setting in (NYUD, PASCAL):
        print("\n".join(lines(setting)), flush=True)
        print()
    return 0


if __name__ == "__main__":
    run_program(main)
