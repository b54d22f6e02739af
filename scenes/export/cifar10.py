"""The two layouts of CIFAR-10."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _Cifar(ClassifiedLayout):
    """The first six classes stand for the types of rooms; the last ones have no images. Training has five batches."""

    size = (32, 32)
    quantisation = "none"
    classes = NAMES

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pixels: dict[str, list[np.ndarray]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        self.keep(split, f"{split}_{number}.png", view)
        self.pixels[split].append(view["image"][:32, :32].transpose(2, 0, 1).reshape(-1))

    def batches(self) -> dict[str, tuple[np.ndarray, list[int], list[str]]]:
        """Pixels, classes and names of each batch."""
        found = {}
        for split, rows in self.rows.items():
            names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
            for name, places in zip(names, np.array_split(np.arange(len(rows)), len(names)), strict=True):
                pixels = np.array([self.pixels[split][place] for place in places], np.uint8).reshape(-1, 3 * 32 * 32)
                found[name] = pixels, [rows[place][1] for place in places], [rows[place][0] for place in places]
        return found


@LAYOUTS.register("cifar10")
class Cifar10PythonLayout(_Cifar):
    """Pickles of arrays and lists."""

    def finish(self) -> None:
        for name, (data, labels, files) in self.batches().items():
            content = {"batch_label": "scenes", "labels": labels, "data": data, "filenames": files}
            self.path(f"cifar-10-batches-py/{name}").write_bytes(pickle.dumps(content, protocol=2))
        meta = {"num_cases_per_batch": 10000, "label_names": list(NAMES), "num_vis": 3 * 32 * 32}
        self.path("cifar-10-batches-py/batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


@LAYOUTS.register("cifar10_binary")
class Cifar10BinaryLayout(_Cifar):
    """Rows of bytes: class, pixels."""

    def finish(self) -> None:
        for name, (data, labels, _) in self.batches().items():
            rows = np.concatenate([np.array(labels, np.uint8).reshape(-1, 1), data], axis=1)
            self.path(f"cifar-10-batches-bin/{name}.bin").write_bytes(rows.tobytes())
        self.text("cifar-10-batches-bin/batches.meta.txt", [*NAMES, ""])
