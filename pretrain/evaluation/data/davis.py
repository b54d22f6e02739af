"""DAVIS 2017: videos with several objects."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.about import About
from harness.errors import UserError, closest
from harness.images import IMAGE_SUFFIXES, UnreadableImage
from harness.pictures import read_picture
from pretrain.evaluation.data._images import ImageFiles, read_mask
from pretrain.evaluation.data._published import damaged, read_lines
from pretrain.evaluation.labelled import IGNORED, LABELLED, Labelled, Video
from pretrain.sources.base import Paths, existing_folder


@LABELLED.register("davis")
class Davis(Labelled):
    """DAVIS 2017 (Pont-Tuset et al., 2017): videos in which each pixel shows one of some objects, or none.

    Args:
        root: the folder with ``JPEGImages``, ``Annotations`` and ``ImageSets``, or the one with ``DAVIS`` in it.
        split: which list of videos; test-dev has annotations of first frames only, so that nothing can be measured.
        resolution: which folder of frames: 480p or Full-Resolution.
        sparse: accept videos of which only some frames are annotated, as in other sets of this layout.
    """

    holds = "video"
    about = About(
        "DAVIS 2017", "https://davischallenge.org/davis2017/code.html", "as its page says", """\
ROOT/DAVIS/ (or ROOT itself)
  JPEGImages/480p/VIDEO/00000.jpg, 00001.jpg, …
  Annotations/480p/VIDEO/00000.png, …              a palette: 0 background, then the objects
  ImageSets/2017/val.txt                           one video a line: 30""",
        {"train": 60, "val": 30}, "of the files there, TrainVal 480p; counts are videos")
    splits = ()

    def __init__(self, root: str | None = None, split: str = "val", resolution: str = "480p",
                 sparse: bool = False) -> None:
        self.root = existing_folder(root)
        if (self.root / "DAVIS" / "JPEGImages").is_dir():
            self.root /= "DAVIS"
        self._split, self._resolution = split, resolution
        lists = self._folder("ImageSets", "2017", "lists of videos")
        source = lists / f"{split}.txt"
        if not source.is_file():
            known = sorted(path.stem for path in lists.glob("*.txt"))
            raise UserError(f"davis: {lists} has no list {split}.txt{closest(split, known)}: set --data.split to one "
                            f"of {', '.join(known) or 'its lists, when it has some'}")
        images, masks = (self._folder(kind, resolution, what) for kind, what in
                         (("JPEGImages", "frames"), ("Annotations", "annotations")))
        names: dict[str, int] = {}
        for number, name in read_lines(source, "davis: ", "get the set again"):
            if name in (".", "..") or "/" in name or "\\" in name:
                raise damaged(source, number, name, "the name of a video's folder")
            if name in names:
                raise UserError(f"{source}, line {number}: {name} is in line {names[name]} already: remove one of them")
            names[name] = number
        if not names:
            raise UserError(f"davis: {source} names no videos: get the set again")
        self._videos = [_DavisVideo(name, images / name, masks / name, f"{source}, line {names[name]}", sparse)
                        for name in sorted(names)]

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        return {"video": ()}

    def fingerprint(self) -> str:
        frames, masks = (Paths([os.path.relpath(path, self.root) for path in paths]) for paths in
                         ([path for video in self._videos for path in video.frames],
                          [path for video in self._videos for path in video.masks if path]))
        files = ImageFiles(self.root, frames, masks=masks)
        return f"davis-{files.fingerprint()}-{files.label_digest()}"

    def remarks(self) -> list[str]:
        published = self.about.counts.get(self._split, len(self._videos))
        return [] if published == len(self._videos) else [
            f"split {self._split} was published with {published} videos, and {len(self._videos)} are there"]

    def videos(self) -> Sequence[Video]:
        return self._videos

    def _folder(self, kind: str, name: str, what: str) -> Path:
        """A folder of a folder of the set."""
        if (self.root / kind / name).is_dir():
            return self.root / kind / name
        there = sorted(path.name for path in (self.root / kind).glob("*") if path.is_dir())
        if there and kind != "ImageSets":
            raise UserError(f"davis: {self.root / kind} has no folder {name}{closest(name, there)}: set "
                            f"--data.resolution to one of {', '.join(there)}")
        raise UserError(f"davis: {self.root} has no folder {kind}/{name} with {what}: give the folder that was "
                        "unpacked, with JPEGImages, Annotations and ImageSets in it")


class _DavisVideo(Video):
    """Files of one video.

    Args:
        name: of the video.
        frames: folder of its frames.
        masks: folder of its annotations.
        source: where it is named, for messages.
        sparse: only some frames need be annotated.
    """

    def __init__(self, name: str, frames: Path, masks: Path, source: str, sparse: bool) -> None:
        self.name = name
        files = _files(frames, IMAGE_SUFFIXES, f"{source}: video {name}", "frames")
        found = _files(masks, frozenset({".png"}), f"{source}: video {name}", "annotations")
        self.frames = list(files.values())
        self.masks = [found.get(stem) for stem in files]
        lonely = sorted(set(found) - set(files))
        if lonely:
            raise UserError(f"{found[lonely[0]]} annotates a frame that is not in {frames}: get video {name} again")
        bare = [stem for stem in files if stem not in found]
        # none but the first: a video of a test set, whose annotations are kept back
        if self.masks[0] is None or (bare and len(found) > 1 and not sparse):
            more = "" if self.masks[0] is None else ", or set --data.sparse true to measure the frames that have one"
            raise UserError(f"{masks} has no annotation {bare[0]}.png of frame {files[bare[0]].name} ({len(bare)} of "
                            f"{len(files)} are missing): get video {name} again{more}")

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, number: int) -> np.ndarray:
        return self._picture(number).decode()

    def frame_name(self, number: int) -> str:
        return self.frames[number].stem

    def objects(self, number: int) -> np.ndarray | None:
        """See :meth:`Video.objects`.

        Raises:
            UserError: the annotation cannot be read, is a picture in colour, or has another size than the frame.
        """
        path = self.masks[number]
        if path is None:
            return None
        objects, picture = read_mask(str(path), IGNORED), self._picture(number)
        if objects.shape != (picture.height, picture.width):
            raise UserError(f"{path} is {objects.shape[0]}×{objects.shape[1]} pixels and its frame "
                            f"{self.frames[number]} {picture.height}×{picture.width}: get video {self.name} again")
        objects[objects == IGNORED] = 0
        return objects

    def _picture(self, number: int):
        try:
            return read_picture(self.frames[number])
        except UnreadableImage as error:
            raise UserError(error.told) from error


def _files(folder: Path, suffixes: frozenset[str], video: str, what: str) -> dict[str, Path]:
    """Files of a folder by their names without extension, sorted."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != ".")
    except OSError as error:
        raise UserError(f"{video} has no folder {folder} of {what} ({error.strerror}): get it, or take it off the "
                        "list") from error
    if not found:
        raise UserError(f"{video} has no {what} in {folder}: get them, or take it off the list")
    return {path.stem: path for path in found}
