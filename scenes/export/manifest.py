"""A table with a line for each sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scenes.classes import ATTRIBUTES, PART_CLASSES, SCENE_TYPES, SEMSEG_CLASSES
from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

TASKS = {
    "semseg": {"classes": list(SEMSEG_CLASSES), "first": 1, "ignored": [0]},
    "parts": {"classes": list(PART_CLASSES)},
    "saliency": {}, "edge": {}, "normals": {}, "instance_center": {}, "keypoints": {"scale": 1 / 255},
    "depth": {"scale": 0.001},
    "kind": {"task": "classification", "classes": list(SCENE_TYPES)},
    "attributes": {"classes": list(ATTRIBUTES)},
}
"""What its columns are, for the data set's option ``tasks``; also written to ``tasks.json``."""


@LAYOUTS.register("manifest")
class ManifestLayout(Layout):
    """``samples.csv`` and the files that it names; every sample lacks three or four of the ten labels."""

    splits = ("train", "val", "test")
    quantisation = "depth: 1 mm steps; keypoints: 1/255 steps"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows = [",".join(("image", "split", *TASKS))]

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{split}_{number:04d}"
        self.jpeg(f"images/{name}.jpg", view["image"])
        cells = {task: "" if lacks(number, place) else self._cell(task, name, view) for place, task in enumerate(TASKS)}
        self.rows.append(",".join((f"images/{name}.jpg", split, *cells.values())))

    def finish(self) -> None:
        self.text("samples.csv", self.rows)
        self.text("tasks.json", [json.dumps(TASKS, indent=1)])

    def _cell(self, task: str, name: str, view: View) -> str:
        if task == "kind":
            return SCENE_TYPES[int(view["scene"])]
        if task == "attributes":
            return ";".join(str(int(value)) for value in view["attributes"])
        end = "npy" if task in ("normals", "instance_center") else "png"
        path = f"{task}/{name}.{end}"
        if end == "npy":
            self.numbers(path, view[task])
        else:
            stored = {"semseg": view["semseg"] + np.uint8(1), "depth": np.rint(view["depth"] * 1000).astype(np.uint16),
                      "keypoints": np.rint(view["keypoints"] * 255).astype(np.uint8)}
            self.image(path, stored.get(task, view[task]))
        return path


def lacks(number: int, place: int) -> bool:
    """Whether a sample has no label of the task in this place."""
    return (number + place) % 3 == 0
