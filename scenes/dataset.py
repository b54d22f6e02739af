"""Scenes as a data set: rendered on first use into a cache on disk, then memory-mapped."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.errors import UserError, closest
from harness.files import cache_folder, locked, write_text
from harness.seeding import available_cores
from scenes.classes import ATTRIBUTES, PART_CLASSES, SCENE_TYPES, SEMSEG_CLASSES
from scenes.labels import centre_offsets
from scenes.rendering import render
from scenes.rooms import RENDERER_VERSION, generate
from scenes.store import FIELDS, Store, encode

SPLITS = ("pretrain", "train", "val", "test")
"""Disjoint ranges of seeds, each of :data:`SPLIT_SEEDS`."""
SPLIT_SEEDS = 10**9
_FEW = 24
"""So few scenes that starting processes takes longer than rendering them."""


def seed_of(split: str, index: int) -> int:
    """The seed of a scene of a split."""
    return SPLITS.index(split) * SPLIT_SEEDS + index


class Scenes:
    """A split of the built-in data set.

    The first use renders what the cache lacks, on all cores; a smaller set reads the start of a larger
    one. Several processes may ask at once. Pickled, an instance is only its path, so that workers of
    a data loader map the same pages.

    Args:
        split: ``"pretrain"``, ``"train"``, ``"val"`` or ``"test"``.
        count: number of scenes.
        size: height and width, pixels.
        labels: whether samples have labels; by default all but ``"pretrain"`` have.
        root: cache folder; by default ``$TASKLIFT_CACHE`` or ``~/.cache/tasklift``.

    Attributes:
        names: the class names of the labels that have classes.

    Raises:
        UserError: an unknown split, a count or size out of range, a full disk.
    """

    names = {"semseg": SEMSEG_CLASSES, "parts": PART_CLASSES, "scene": SCENE_TYPES, "attributes": ATTRIBUTES}

    def __init__(self, split: str = "train", count: int = 512, size: int = 128,
                 labels: bool | None = None, root: str | Path | None = None) -> None:
        if split not in SPLITS:
            raise UserError(f"unknown split '{split}' of scenes{closest(split, SPLITS)}: "
                            f"choose one of {', '.join(SPLITS)}")
        if not 1 <= count <= SPLIT_SEEDS:
            raise UserError(f"cannot make {count} scenes: choose a count from 1 to {SPLIT_SEEDS}")
        if not 8 <= size <= 4096:
            raise UserError(f"cannot make scenes of {size} pixels: choose a size from 8 to 4096")
        self.split, self.count, self.size = split, int(count), int(size)
        self.labelled = split != "pretrain" if labels is None else bool(labels)
        self.folder = _fill(split, self.count, self.size, self.labelled, _cache_root(root))
        self._arrays: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def images(self) -> np.ndarray:
        """All images, uint8 [N, H, W, 3], mapped from the disk, read-only."""
        return self._mapped()["image"]

    @property
    def scene_types(self) -> np.ndarray:
        """All scene types, uint8 [N], index into ``SCENE_TYPES``; there even without labels."""
        return self._mapped()["scene"]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that every sample has."""
        return tuple(name for name in self.sample(0) if name != "image")

    def sample(self, index: int) -> dict[str, np.ndarray]:
        """One scene: the keys of :func:`scenes.render`, its image, and its labels when there are any.

        Normals and heat maps come out of 16 bits and differ from ``render`` by less than 0.0001 and
        0.001; everything else is equal to it.

        Raises:
            IndexError: there is no such scene.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        arrays = self._mapped()
        index %= self.count
        sample = {"image": np.array(arrays["image"][index])}
        if self.labelled:
            for name in ("semseg", "depth", "edge", "saliency", "parts"):
                sample[name] = np.array(arrays[name][index])
            normals = arrays["normals"][index].astype(np.float32)
            normals /= np.sqrt(np.square(normals).sum(axis=2, keepdims=True))
            sample["normals"] = normals
            sample["instance"] = arrays["instance"][index].astype(np.int32)
            sample["instance_center"] = centre_offsets(arrays["instance"][index], arrays["centres"][index])
            sample["keypoints"] = arrays["keypoints"][index].astype(np.float32)
            sample["attributes"] = np.array(arrays["attributes"][index])
        sample["scene"] = np.int64(arrays["scene"][index])
        return sample

    def fingerprint(self) -> str:
        """Names exactly these pictures and labels."""
        kind = "labels" if self.labelled else "images"
        return f"scenes-v{RENDERER_VERSION}-{self.split}-{self.count}-{self.size}-{kind}"

    def _mapped(self) -> dict[str, np.ndarray]:
        if self._arrays is None:
            self._arrays = Store(self.folder, self.size, self.labelled).read(self.count)
        return self._arrays

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays": None}


def render_range(split: str, size: int, labels: bool, start: int, stop: int) -> Iterator[tuple[int, dict]]:
    """Render scenes of a split as the cache stores them.

    Yields:
        (index, encoded fields).
    """
    for index in range(start, stop):
        scene = generate(seed_of(split, index))
        yield index, encode(scene, render(scene, size, size, labels=labels))


def _cache_root(root: str | Path | None) -> Path:
    return Path(root).expanduser() if root else cache_folder()


def _fill(split: str, count: int, size: int, labels: bool, root: Path) -> Path:
    """Make sure that the cache has the scenes; the folder that has them."""
    base = root / f"scenes-v{RENDERER_VERSION}"
    labelled = base / f"{split}-{size}-labels"
    if not labels and _published(labelled) >= count:
        return labelled  # the images are the same
    folder = labelled if labels else base / f"{split}-{size}-images"
    if _published(folder) < count:
        with locked(folder / "lock"):
            done = _published(folder)  # another process may have filled it meanwhile
            if done < count:
                store = Store(folder, size, labels)
                store.reserve(count)
                _render_all(store, split, size, labels, done, count)
                store.sync()
                write_text(folder / "count.json", json.dumps({"count": count, "fields": sorted(FIELDS)}))
    return folder


def _published(folder: Path) -> int:
    """How many scenes of a cache folder are complete; what was half done is not counted."""
    try:
        return int(json.loads((folder / "count.json").read_text())["count"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _render_all(store: Store, split: str, size: int, labels: bool, start: int, stop: int) -> None:
    from harness.progress import progress

    workers = min(available_cores(), -(-(stop - start) // _FEW))
    with progress(stop - start, unit="scene", description=f"rendering scenes ({split})",
                  enabled=stop - start > _FEW) as bar:
        if workers <= 1:
            with store.writing() as write:
                for index, fields in render_range(split, size, labels, start, stop):
                    write(index, fields)
                    bar.update()
            return
        _render_in_processes(store, (split, size, labels), start, stop, workers, bar)


def _render_in_processes(store: Store, what: tuple[str, int, bool], start: int, stop: int,
                         workers: int, bar) -> None:
    """Fresh interpreters that need neither the caller's main module nor its libraries.

    Forking a program that holds threads of torch is unsafe, and spawning imports its main module.
    """
    environment = dict(os.environ)
    here = Path(__file__).resolve().parent.parent  # started there, so that no other "scenes" is found first
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    split, size, labels = what
    edges = np.linspace(start, stop, workers + 1).astype(int)
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as complaints:
        try:
            for first, last in zip(edges[:-1], edges[1:], strict=True):
                command = [sys.executable, "-m", "scenes.worker", str(store.folder.resolve()), split,
                           str(size), str(int(labels)), str(first), str(last)]
                running.append(subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE,
                                                stderr=complaints, bufsize=0))
            with selectors.DefaultSelector() as selector:
                for process in running:
                    selector.register(process.stdout, selectors.EVENT_READ)
                while selector.get_map():
                    for key, _ in selector.select():
                        dots = key.fileobj.read(4096)  # one for each scene; nothing at the end
                        bar.update(len(dots))
                        if not dots:
                            selector.unregister(key.fileobj)
            if any([process.wait() for process in running]):
                complaints.seek(0)
                lines = complaints.read().decode(errors="replace").strip().splitlines()
                raise UserError(f"rendering scenes into {store.folder} failed: "
                                f"{lines[-1] if lines else 'a rendering process was killed'}")
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
                process.wait()
                process.stdout.close()
