"""The two layouts of CIFAR-100."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

FINE, COARSE = 100, 20


class _Cifar(Layout):
    """Sample i is of class 7 i modulo 100, which is in group class // 5."""

    splits = ("train", "test")
    size = (32, 32)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.images: dict[str, list[np.ndarray]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        self.images[split].append(view["image"][:32, :32].transpose(2, 0, 1).reshape(-1))

    def parts(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pixels, classes and groups of each split."""
        found = {}
        for split, images in self.images.items():
            fine = (7 * np.arange(len(images)) % FINE).astype(np.uint8)
            found[split] = np.stack(images), fine, fine // np.uint8(FINE // COARSE)
        return found


_NAMES = [f"class_{index:02d}" for index in range(FINE)]


@LAYOUTS.register("cifar100_hierarchy")
class CifarPythonLayout(_Cifar):
    """Pickles of arrays and lists."""

    def finish(self) -> None:
        for split, (data, fine, coarse) in self.parts().items():
            content = {"data": data, "fine_labels": fine.tolist(), "coarse_labels": coarse.tolist(),
                       "filenames": [f"{number}.png" for number in range(len(data))], "batch_label": "scenes"}
            self.path(f"cifar-100-python/{split}").write_bytes(pickle.dumps(content, protocol=2))
        names = {"fine_label_names": _NAMES, "coarse_label_names": [f"group_{index:02d}" for index in range(COARSE)]}
        self.path("cifar-100-python/meta").write_bytes(pickle.dumps(names, protocol=2))


@LAYOUTS.register("cifar100_binary")
class CifarBinaryLayout(_Cifar):
    """Rows of bytes: group, class, pixels."""

    def finish(self) -> None:
        for split, (data, fine, coarse) in self.parts().items():
            rows = np.concatenate([coarse[:, None], fine[:, None], data], axis=1)
            self.path(f"cifar-100-binary/{split}.bin").write_bytes(rows.tobytes())
        self.text("cifar-100-binary/fine_label_names.txt", _NAMES)
