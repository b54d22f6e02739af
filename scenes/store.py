"""The cache's files: one raw array a field, which only ever grow at their end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from harness.errors import UserError
from scenes.classes import ATTRIBUTES
from scenes.labels import projected_centres
from scenes.scene import Scene

MOST_INSTANCES = 128

FIELDS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "image": ("uint8", ("size", "size", 3)),
    "scene": ("uint8", ()),
    "semseg": ("uint8", ("size", "size")),
    "depth": ("float32", ("size", "size")),
    "normals": ("int16", ("size", "size", 3)),
    "edge": ("uint8", ("size", "size")),
    "saliency": ("uint8", ("size", "size")),
    "parts": ("uint8", ("size", "size")),
    "instance": ("uint8", ("size", "size")),
    "centres": ("float32", (MOST_INSTANCES, 2)),
    "keypoints": ("float16", ("size", "size")),
    "attributes": ("uint8", (len(ATTRIBUTES),)),
}
"""Stored type and shape of each field. Offsets to centres follow from ``instance`` and ``centres``."""

WITHOUT_LABELS = ("image", "scene")


def encode(scene: Scene, view: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A rendered view as its stored fields.

    Args:
        scene: what was rendered, from its own camera.
        view: from :func:`scenes.render`.
    """
    fields = {name: view[name] for name in FIELDS if name in view}
    if "normals" in view:
        height, width = view["instance"].shape
        fields["normals"] = np.rint(view["normals"] * np.float32(32767))
        centres = np.full((MOST_INSTANCES, 2), np.nan, np.float32)
        found = projected_centres(scene, scene.camera, height, width)
        centres[: len(found)] = found
        fields["centres"] = centres
    return {name: np.ascontiguousarray(value, FIELDS[name][0]) for name, value in fields.items()}


class Store:
    """Fields of scenes in a folder, ``<field>.bin`` each.

    Args:
        folder: where.
        size: height and width of the scenes, pixels.
        labels: whether it holds labels.
    """

    def __init__(self, folder: str | Path, size: int, labels: bool) -> None:
        self.folder = Path(folder)
        self.fields = {
            name: (np.dtype(kind), tuple(size if extent == "size" else int(extent) for extent in shape))
            for name, (kind, shape) in FIELDS.items() if labels or name in WITHOUT_LABELS
        }

    def reserve(self, count: int) -> None:
        """Make room for ``count`` scenes; fails before anything is rendered when there is none.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, (dtype, shape) in self.fields.items():
                handle = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    size = count * dtype.itemsize * int(np.prod(shape))
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(handle, 0, size)
                    elif os.fstat(handle).st_size < size:
                        os.ftruncate(handle, size)
                finally:
                    os.close(handle)
        except OSError as error:
            raise UserError(f"cannot cache {count} scenes in {self.folder}: {error.strerror}; free some "
                            "space, ask for fewer scenes or set TASKLIFT_CACHE to another folder") from error

    @contextmanager
    def writing(self) -> Iterator[Callable[[int, dict[str, np.ndarray]], None]]:
        """A function that stores the fields of one scene at its index."""
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(self._path(name), "r+b")) for name in self.fields}

            def write(index: int, fields: dict[str, np.ndarray]) -> None:
                for name, file in files.items():
                    value = fields[name]
                    file.seek(index * value.nbytes)
                    file.write(value.data)

            yield write

    def sync(self) -> None:
        """Flush all files to the disk."""
        for name in self.fields:
            handle = os.open(self._path(name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def read(self, count: int) -> dict[str, np.ndarray]:
        """The first ``count`` scenes of every field, mapped read-only."""
        return {name: np.memmap(self._path(name), dtype, "r", shape=(count, *shape))
                for name, (dtype, shape) in self.fields.items()}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"
