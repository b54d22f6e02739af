"""Parameters and multiply-adds of multi-task networks, beside those of the thesis of Vandenhende (2022, table 5.6).

    python -m benchmarks.resources

Nothing is trained and nothing computed: networks are counted on tensors without values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.program import run_program
from mtl_heads import build_model
from mtl_heads.resources import Resources, resources, single_task_resources
from mtl_heads.tasks import Tasks


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
        published: for each row its architecture, options, and the paper's figures: of the single-task
            networks in M and G, of the others in percent.
    """

    title: str
    backbone: str
    size: tuple[int, int]
    dense: dict[str, int]
    auxiliary: dict[str, int]
    common: dict[str, Any]
    published: tuple[tuple[str, dict[str, Any], float, float], ...]
    helped: tuple[str, ...] = field(default=("pad_net", "mti_net"))


#: Semantic segmentation and depth; the main tasks are also predicted on the way, edges and normals only there.
NYUD = Setting(
    "NYUD, HRNet-18, 480x640", "hrnet_w18_small_v2", (480, 640), {"semseg": 40, "depth": 1}, {"edge": 1, "normals": 3},
    {"head": "hrnet"},
    (("single_task", {}, 8.0, 22.0), ("baseline", {}, -50, -45), ("pad_net", {}, -15, 204),
     ("pad_net", {"distill": "published"}, -15, 204), ("mti_net", {}, 57, -13),
     ("mti_net", {"propagation_reduction": 1}, 57, -13)),
)
PASCAL = Setting(
    "PASCAL, ResNet-50 FPN, 512x512", "resnet50", (512, 512),
    {"semseg": 21, "parts": 7, "saliency": 2, "edge": 1, "normals": 3}, {}, {"head": "panoptic_fpn", "neck": "fpn"},
    (("single_task", {}, 140, 219), ("baseline", {}, -75, -66), ("astmt", {}, -51, -1),
     ("mti_net", {"neck": "fpn"}, -35, -19.9)),
)


def lines(setting: Setting) -> list[str]:
    """A Markdown table: ours beside the paper's."""
    tasks = Tasks(setting.dense, {}, {})
    singles = single_task_resources(
        lambda one: build_model("single_task", setting.backbone, one.dense, **setting.common), tasks, setting.size)
    found = [f"### {setting.title}", "", "| network | parameters | the paper's | multiply-adds | the paper's |",
             "|---|---:|---:|---:|---:|"]
    for name, options, *paper in setting.published:
        if name == "single_task":
            found.append(f"| {name}, one for each task | {singles.parameters / 1e6:.2f} M | {paper[0]:g} M | "
                         f"{singles.multiply_adds / 1e9:.1f} G | {paper[1]:g} G |")
            continue
        for label, auxiliary in _variants(name, options, setting):
            cost = _cost(name, options if name in setting.helped else setting.common, setting, auxiliary)
            change = cost.change(singles)
            found.append(f"| {label} | {change[0]:+.1f} % | {paper[0]:+g} % | {change[1]:+.1f} % | {paper[1]:+g} % |")
    return found


def _variants(name: str, options: dict[str, Any], setting: Setting) -> list[tuple[str, dict[str, int]]]:
    label = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
    if name not in setting.helped or not setting.auxiliary:
        return [(label, {})]
    return [(label, {}), (f"{label}, with auxiliary {' and '.join(setting.auxiliary)}", setting.auxiliary)]


def _cost(name: str, options: dict[str, Any], setting: Setting, auxiliary: dict[str, int]) -> Resources:
    model = build_model(name, setting.backbone, setting.dense, auxiliary=auxiliary, **options)
    return resources(model, setting.size)


def main() -> int:
    """The command."""
    for setting in (NYUD, PASCAL):
        print("\n".join(lines(setting)), flush=True)
        print()
    return 0


if __name__ == "__main__":
    run_program(main)
