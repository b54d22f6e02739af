"""The layout of HRF with arteries and veins."""

from __future__ import annotations

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

_KINDS = ("h", "dr", "g")
_COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)], np.uint8)


@LAYOUTS.register("hrf_av")
class HrfAvLayout(Layout):
    """Vessels are edges; their kind goes by the class behind them. Samples are numbered through all kinds."""

    splits = ("train", "test")
    counts = {"train": 15, "test": 30}
    size = (96, 144)

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        # the reader takes the first five of each kind to train on, so theirs have the lowest numbers
        place, kind = divmod(number, len(_KINDS))
        name = f"{1 + place + (0 if split == 'train' else 5):02d}_{_KINDS[kind]}"
        self.jpeg(f"images/{name}.{'JPG' if kind == 1 else 'jpg'}", view["image"])
        self.image(f"manual1/{name}.tif", view["edge"] * np.uint8(255))
        self.image(f"HRF_AV_groundtruth/{name}_AV.png", _COLOURS[kinds(view)])


def kinds(view: View) -> np.ndarray:
    """0 background, 1 artery, 2 vein, 3 crossing, 4 unknown."""
    return np.where(view["edge"] == 1, 1 + view["semseg"] % 4, 0)
