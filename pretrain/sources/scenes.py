"""The built-in scenes, as images without labels."""

from __future__ import annotations

import numpy as np

from pretrain.sources.base import SOURCES, Source


@SOURCES.register("scenes")
class SceneImages(Source):
    """Procedural indoor scenes; rendered on first use, then read from a cache. Their classes are the types of rooms.

    Args:
        count: number of scenes.
        size: height and width, in pixels.
        root: folder of the cache; the user's cache folder by default.
    """

    def __init__(self, count: int = 2000, size: int = 128, root: str | None = None) -> None:
        from scenes import Scenes

        self._scenes = Scenes(split="pretrain", count=count, size=size, labels=False, root=root)
        self.size = size

    def __len__(self) -> int:
        return len(self._scenes)

    def open(self, number: int) -> np.ndarray:
        """Read an image; see :meth:`Source.open`."""
        return np.ascontiguousarray(self._scenes.images[number])

    def name(self, number: int) -> str:
        """The number of the scene."""
        return f"scene {number}"

    def label(self, number: int) -> int:
        """The scene's type."""
        return int(self._scenes.scene_types[number])

    def labels(self) -> np.ndarray:
        """All scenes' types, int64 ``[N]``."""
        return self._scenes.scene_types.astype(np.int64)

    def fingerprint(self) -> str:
        """Names exactly these pictures: the renderer's version, count and size."""
        return self._scenes.fingerprint()
