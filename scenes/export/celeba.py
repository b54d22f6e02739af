"""The layout of CelebA."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

NAMES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
).split()


@LAYOUTS.register("celeba")
class CelebALayout(Layout):
    """Attribute i of a face is attribute i modulo 12 of the scene."""

    splits = ("train", "val", "test")
    size = (218, 178)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[tuple[str, int, np.ndarray]] = []

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{len(self.rows) + 1:06d}.jpg"
        values = view["attributes"][np.arange(len(NAMES)) % len(view["attributes"])]
        self.rows.append((name, self.splits.index(split), values))
        self.jpeg(f"img_align_celeba/{name}", view["image"])

    def finish(self) -> None:
        lines = [" ".join((name, *(f"{2 * int(value) - 1:2d}" for value in values))) for name, _, values in self.rows]
        self.text("list_attr_celeba.txt", [str(len(lines)), " ".join(NAMES), *lines])
        self.text("list_eval_partition.txt", [f"{name} {part}" for name, part, _ in self.rows])
