"""Labelled images that are files below a folder."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.images import UnreadableImage
from harness.pictures import read_picture
from pretrain.evaluation.labelled import IGNORED, LabelledImages
from pretrain.evaluation.spread import spread
from pretrain.sources._listing import THREADS
from pretrain.sources.base import Paths

_SIZED, _SAMPLED, _SAMPLED_BYTES = 10_000, 16, 2**16
"""Files of a split whose sizes are asked for, those that are read, and how much of each."""


class ImageFiles(LabelledImages):
    """A split of files; pickled it is a few blocks of memory, however many images it has.

    Args:
        root: the folder that paths are relative to.
        paths: of the images.
        classes: int ``[N]``; None: they have none.
        attributes: int8 ``[N, A]``; the same.
        masks: path of each image's mask; the same.
        mask_classes: how many classes masks may have.
    """

    def __init__(self, root: Path, paths: Paths, classes: np.ndarray | None = None,
                 attributes: np.ndarray | None = None, masks: Paths | None = None, mask_classes: int = 0) -> None:
        self.root, self.paths, self.masks, self.mask_classes = root, paths, masks, mask_classes
        self._classes = None if classes is None else np.asarray(classes, np.int64)
        self._attributes = None if attributes is None else np.asarray(attributes, np.int8)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, number: int) -> np.ndarray:
        return read_picture(os.path.join(self.root, self.paths[number])).decode()

    def name(self, number: int) -> str:
        return self.paths[number]

    def fingerprint(self) -> str:
        """Hash of all paths below the folder, of files' sizes, and of the beginning of some.

        So a moved folder is the same, and one of the same names with other images is not.
        """
        return f"{len(self)}-{self.paths.digest()}-{self._images_digest}"

    @cached_property
    def _images_digest(self) -> str:
        return _sample(self.root, self.paths)

    def label_digest(self) -> str:
        """Hash of all labels; of masks as :meth:`fingerprint` is of images."""
        whole = hashlib.blake2b(digest_size=8)
        for labels in (self._classes, self._attributes):
            whole.update(b"-" if labels is None else labels.tobytes())
        if self.masks is not None:
            whole.update(f"{self.masks.digest()} {self._masks_digest}".encode())
        return whole.hexdigest()

    @cached_property
    def _masks_digest(self) -> str:
        return _sample(self.root, self.masks)

    def classes(self) -> np.ndarray:
        return super().classes() if self._classes is None else self._classes

    def attributes(self) -> np.ndarray:
        return super().attributes() if self._attributes is None else self._attributes

    def mask(self, number: int) -> np.ndarray:
        """See :meth:`LabelledImages.mask`.

        Raises:
            UserError: it cannot be read, is no map of classes, or has another size than its image.
        """
        if self.masks is None:
            return super().mask(number)
        path, image = (os.path.join(self.root, paths[number]) for paths in (self.masks, self.paths))
        mask = read_mask(path, self.mask_classes)
        try:
            picture = read_picture(image)
        except UnreadableImage as error:
            raise UserError(f"{image} cannot be read ({error.reason}): get the file again") from error
        if mask.shape != (picture.height, picture.width):
            raise UserError(f"{path} is {mask.shape[0]}×{mask.shape[1]} pixels and its image {image} "
                            f"{picture.height}×{picture.width}: get the files again")
        return mask


def read_mask(path: str, classes: int) -> np.ndarray:
    """The class of each pixel in an image of one channel: its palette indices or grey values.

    Args:
        path: of the image.
        classes: how many there are; 255 counts for nothing.

    Returns:
        uint8 ``[H, W]``.

    Raises:
        UserError: it cannot be read, is a colour picture, or has other numbers.
    """
    try:
        with Image.open(path) as image:
            mode, mask = image.mode, np.array(image)
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
                        ": get the file again") from error
    if mode not in ("P", "L"):
        raise UserError(f"{path} is a picture of mode {mode}, and masks store the number of a class for each pixel "
                        "(mode P or L): get the file as published")
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = present[(present >= classes) & (present != IGNORED)]
    if len(wrong):
        raise UserError(f"{path} has class {wrong[0]}: there are 0 to {classes - 1}, and {IGNORED} for none. Get the "
                        "file as published")
    return mask


def _sample(root: Path, paths: Paths) -> str:
    """Hash of the sizes of files and of the beginning of some; one that cannot be read counts as missing."""

    def size(number: int) -> int:
        try:
            return os.stat(os.path.join(root, paths[number])).st_size
        except OSError:
            return -1

    with ThreadPoolExecutor(THREADS) as pool:  # a disk of the network answers many questions at once
        sizes = list(pool.map(size, spread(len(paths), _SIZED)))
    whole = hashlib.blake2b(np.array(sizes, np.int64).tobytes(), digest_size=8)
    for number in spread(len(paths), _SAMPLED):
        try:
            with open(os.path.join(root, paths[number]), "rb") as file:
                whole.update(file.read(_SAMPLED_BYTES))
        except OSError:
            whole.update(b"missing")
    return whole.hexdigest()
