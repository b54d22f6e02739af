"""The layout of Cityscapes."""

from __future__ import annotations

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View, table
from scenes.scene import Scene

NUMBERS = table({"wall": 11, "floor": 7, "ceiling": 23, "window": 12, "picture": 20, "table": 26, "chair": 24,
                 "sofa": 27, "bed": 28, "cabinet": 5, "shelf": 13, "lamp": 19, "plant": 21, "box": 33, "ball": 25})
"""Official number of the class; cabinets are one that is not evaluated."""
BASELINE = 0.22
"""Metres between the two cameras of a stereo pair."""


@LAYOUTS.register("cityscapes")
class CityscapesLayout(Layout):
    """``leftImg8bit``, ``gtFine`` and ``disparity``, in two cities."""

    quantisation = "disparity: 1/256 pixel steps"

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        city = f"{split}{'stadt' if number % 2 else 'burg'}"
        name = f"{split}/{city}/{city}_000000_{number:06d}"
        stored = NUMBERS[view["semseg"]]
        things = (stored >= 24) & (view["instance"] > 0)
        numbered = np.where(things, stored.astype(np.int32) * 1000 + view["instance"], stored)
        self.image(f"leftImg8bit/{name}_leftImg8bit.png", view["image"])
        self.image(f"gtFine/{name}_gtFine_labelIds.png", stored)
        self.image(f"gtFine/{name}_gtFine_instanceIds.png", numbered.astype(np.uint16))
        pixels = disparity(view, scene)
        self.image(f"disparity/{name}_disparity.png",
                   np.where(pixels > 0, np.clip(np.rint(pixels * 256) + 1, 1, 65535), 0).astype(np.uint16))


def disparity(view: View, scene: Scene) -> np.ndarray:
    """Pixels by which a second camera to the right sees a point further left; balls have none (0)."""
    pixels = scene.camera.focal * view["depth"].shape[1] * BASELINE / view["depth"]
    return np.where(NUMBERS[view["semseg"]] == 25, 0, pixels).astype(np.float32)
