"""The layout of MNIST and Fashion-MNIST."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene


@LAYOUTS.register("multimnist")
@LAYOUTS.register("multifashion")
@LAYOUTS.register("mnist_parity")
class IdxLayout(Layout):
    """Grey pictures of 28×28; the class is the sample's number modulo 10."""

    splits = ("train", "test")
    size = (28, 28)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.images: dict[str, list[np.ndarray]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        grey = Image.fromarray(view["image"]).convert("L").resize((28, 28))
        self.images[split].append(np.asarray(grey))

    def finish(self) -> None:
        for split, images in self.images.items():
            start = "train" if split == "train" else "t10k"
            labels = (np.arange(len(images)) % 10).astype(np.uint8)
            for kind, array in (("images-idx3", np.stack(images)), ("labels-idx1", labels)):
                head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
                self.path(f"{start}-{kind}-ubyte").write_bytes(head + array.tobytes())
