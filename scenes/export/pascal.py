"""The layout of PASCAL-Context with five tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View, table
from scenes.scene import Scene

NUMBERS = table({"wall": 0, "floor": 0, "ceiling": 0, "window": 0, "picture": 0, "cabinet": 0, "shelf": 0, "bed": 0,
                 "lamp": 0, "box": 5, "chair": 9, "table": 11, "plant": 16, "sofa": 18, "ball": 255})
"""Number of the 21 classes; balls have no label."""

CONTEXT = table({"wall": 440, "floor": 158, "ceiling": 68, "window": 454, "picture": 287, "table": 397, "chair": 72,
                 "sofa": 368, "bed": 18, "cabinet": 46, "shelf": 349, "lamp": 232, "plant": 308, "box": 37, "ball": 10},
                np.uint16)
"""Number of PASCAL-Context's 459 classes."""

PARTS = (("head", "hair"), ("torso", "neck"), ("luarm", "ruarm"), ("llarm", "rhand"), ("luleg", "ruleg"),
         ("llleg", "rfoot"))
"""Two names of PASCAL-Part for each of the six parts of scenes; the left half of a part has the first."""


@LAYOUTS.register("pascal")
class PascalLayout(Layout):
    """Every second segmentation lies in ``semseg/VOC12``; every third sample has no people, so no parts."""

    quantisation = "normals: 8 bits for each component, below 0.6°"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: dict[str, list[str]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"20{'08' if split == 'train' else '10'}_{number:06d}"
        self.names[split].append(name)
        self.jpeg(f"JPEGImages/{name}.jpg", view["image"])
        self.image(f"semseg/{('VOC12', 'pascal-context')[number % 2]}/{name}.png", NUMBERS[view["semseg"]])
        self.matlab(f"pascal-context/trainval/{name}.mat", {"LabelMap": CONTEXT[view["semseg"]]})
        self.image(f"normals_distill/{name}.png", np.rint((view["normals"] + 1) * 127.5).astype(np.uint8))
        self.image(f"sal_distill/{name}.png", view["saliency"] * np.uint8(255))
        self.matlab(f"human_parts/{name}.mat", {"anno": {"imname": name, "objects": self._objects(number, view)}})

    def finish(self) -> None:
        for split, names in self.names.items():
            self.text(f"ImageSets/Context/{split}.txt", names)

    def _objects(self, number: int, view: View) -> np.ndarray:
        """PASCAL-Part's objects: a chair, and a person unless the sample has none."""
        kinds = [("chair", 9, [])]
        if number % 3 != 2:
            kinds.append(("person", 15, self._parts(view["parts"])))
        objects = np.zeros(len(kinds), [(key, object) for key in ("class", "class_ind", "mask", "parts")])
        for place, (name, index, parts) in enumerate(kinds):
            entries = np.zeros(len(parts), [("part_name", object), ("mask", object)])
            for part, content in enumerate(parts):
                entries[part] = content
            mask = (view["parts"] > 0).view(np.uint8)
            objects[place] = (name, index, mask, entries if len(parts) else np.zeros((0, 0)))
        return objects

    @staticmethod
    def _parts(parts: np.ndarray) -> list[tuple[str, np.ndarray]]:
        left = np.arange(parts.shape[1]) < parts.shape[1] // 2
        found = []
        for index, names in enumerate(PARTS, 1):
            for name, half in zip(names, (left, ~left), strict=True):
                mask = ((parts == index) & half).view(np.uint8)
                if mask.any():
                    found.append((name, mask))
        return found
