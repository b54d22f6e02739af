"""The files of a prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from PIL import Image

from harness.files import write_atomically, write_text
from transfer.prediction.panels import panel
from transfer.prediction.sources import Picture
from transfer.prediction.video import VideoWriter, can_write
from transfer.tasks.base import Task

FORMATS = ("png", "npy", "panel")


class Writer:
    """Writes predictions below a folder: ``TASK/NAME.png``, ``TASK/NAME.npy``, ``panels/NAME.png``.

    What image tasks say of the images is in ``images.json``, what the maps are in ``tasks.json``. Of a film, the
    panels become one film too, where films can be written.

    Args:
        folder: made where it is missing.
        tasks: by name.
        formats: some of :data:`FORMATS`.
    """

    def __init__(self, folder: Path, tasks: Mapping[str, Task], formats: Sequence[str] = FORMATS) -> None:
        self.folder, self.tasks, self.formats = folder, dict(tasks), tuple(formats)
        self._images: dict[str, dict[str, Any]] = {}
        self._films: dict[int, VideoWriter] = {}
        about = {name: {"task": type(task).__name__, "summary": (type(task).__doc__ or "").strip().split("\n")[0],
                        "classes": list(task.classes), "dense": task.dense} for name, task in self.tasks.items()}
        write_text(folder / "tasks.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def add(self, picture: Picture, image: np.ndarray, arrays: Mapping[str, np.ndarray],
            scores: Mapping[str, Mapping[str, float]] = MappingProxyType({})) -> None:
        """Write what is predicted of one picture.

        Args:
            picture: which one.
            image: its pixels.
            arrays: predictions by task.
            scores: probabilities by class or attribute, of image tasks that have them.
        """
        said: dict[str, Any] = {"source": picture.source}
        for name, array in arrays.items():
            task = self.tasks[name]
            if not task.dense:
                said[name] = {"caption": task.caption(array), "value": array.tolist(),
                              **({"scores": dict(scores[name])} if name in scores else {})}
                continue
            if "png" in self.formats:
                self._image(self.folder / name / f"{picture.name}.png", task.stored(array))
            if "npy" in self.formats:
                write_atomically(self.folder / name / f"{picture.name}.npy", _saved(array))
            if hasattr(task, "point"):
                point = task.point(array)
                said[name] = {"point": point if np.isfinite(point).all() else None}
        if "panel" in self.formats:
            page = panel(image, arrays, self.tasks)
            self._image(self.folder / "panels" / f"{picture.name}.png", page)
            if picture.video is not None and can_write():
                self._film(picture).add(np.asarray(page))
        self._images[picture.name] = said

    def _image(self, path: Path, image: Image.Image) -> None:
        write_atomically(path, lambda file: image.save(file, "PNG"))

    def _film(self, picture: Picture) -> VideoWriter:
        key = id(picture.video)
        if key not in self._films:
            name = str(Path(picture.name).parent)
            self._films[key] = VideoWriter(self.folder / "panels" / f"{name}.mp4", picture.video.rate)
        return self._films[key]

    def close(self) -> None:
        """Finish films and the list of images."""
        for film in self._films.values():
            film.close()
        write_text(self.folder / "images.json", json.dumps(self._images, indent=2, ensure_ascii=False) + "\n")


def _saved(array: np.ndarray):
    def write(file: IO[bytes]) -> None:
        np.save(file, array, allow_pickle=False)

    return write
