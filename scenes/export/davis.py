"""The layout of DAVIS 2017."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene
from scenes.video import film


@LAYOUTS.register("davis")
class DavisLayout(Layout):
    """A sample is a video: a camera that moves through its scene from where the scene is seen."""

    size = (120, 214)
    counts = {"train": 2, "val": 4}
    quantisation = "losses of JPEG in pictures, nothing of objects"
    frames = 10

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: dict[str, list[str]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{split}-room-{number:03d}"
        self.names[split].append(name)
        for frame, (image, objects) in enumerate(film(scene, *view["image"].shape[:2], self.frames)):
            self.jpeg(f"JPEGImages/480p/{name}/{frame:05d}.jpg", image)
            mask = Image.fromarray(objects, "L")
            mask.putpalette(PALETTE)
            mask.save(self.path(f"Annotations/480p/{name}/{frame:05d}.png"))

    def finish(self) -> None:
        for split, names in self.names.items():
            self.text(f"ImageSets/2017/{split}.txt", names)


PALETTE = np.array([(0, 0, 0), (200, 40, 40), (40, 160, 40), (200, 160, 20), (40, 80, 200), (160, 40, 180)],
                   np.uint8).tobytes()
"""Colours of no object and of five objects."""
