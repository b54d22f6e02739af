"""Labelled images and videos that frozen features are measured on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from harness.about import About
from harness.errors import UserError, closest
from harness.registry import Registry

LABELLED: Registry[type[Labelled]] = Registry("set of labelled images", "pretrain.evaluation.data")

IGNORED = 255
"""In masks: a pixel that counts for nothing."""
KINDS = {"class": "one class for each image", "attributes": "attributes of images", "mask": "a class for each pixel",
         "video": "videos with objects"}
"""Kinds of labels, in words."""


class LabelledImages(ABC):
    """One split. A subclass gives the labels of the kinds that its data set has."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def image(self, number: int) -> np.ndarray:
        """uint8 ``[H, W, 3]``.

        Raises:
            harness.images.UnreadableImage: it cannot be read.
        """

    @abstractmethod
    def name(self, number: int) -> str:
        """What to call an image in messages: its path, or its number."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that is the same exactly when the images and their order are."""

    def classes(self) -> np.ndarray:
        """The class of each image, int64 ``[N]``."""
        raise NotImplementedError

    def attributes(self) -> np.ndarray:
        """int8 ``[N, A]``: 1 the image has it, 0 it has not, -1 it has it and is difficult to recognise."""
        raise NotImplementedError

    def mask(self, number: int) -> np.ndarray:
        """The class of each pixel, uint8 ``[H, W]`` as the image; 255 counts for nothing."""
        raise NotImplementedError


class Video(ABC):
    """Frames of one video, and in some or all of them its objects."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def frame(self, number: int) -> np.ndarray:
        """uint8 ``[H, W, 3]``."""

    def frame_name(self, number: int) -> str:
        """What the files of a frame are called, without extension."""
        return f"{number:05d}"

    @abstractmethod
    def objects(self, number: int) -> np.ndarray | None:
        """Which object each pixel of a frame shows: uint8 ``[H, W]``, 0 none of them; None where it is not annotated.

        The first frame always is.
        """


class Labelled(ABC):
    """All splits of a set of labelled images; keyword parameters of a subclass's constructor are its options.

    A constructor checks the folder once and says what is missing; it never downloads.

    Attributes:
        splits: its splits of images by name.
        learn: the split that classifiers learn from, and whose features neighbours are searched in.
        test: the split that is measured.
        resize: side that an image's shorter side is brought to before the middle is cut out; None: left as it is.
        crop: side of the square in the middle that whole-image features see; None: the whole image.
        mean_per_class: whether the convention of this set is accuracy averaged over classes.
        about: where a published set comes from; None for one that nothing has to be got for.
        holds: its kinds of labels, in a few words.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    learn: str = "train"
    test: str = "test"
    resize: int | None = 256
    crop: int | None = 224
    mean_per_class: ClassVar[bool] = False
    about: ClassVar[About | None] = None
    holds: ClassVar[str] = ""

    @property
    @abstractmethod
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """For each kind of label (:data:`KINDS`) that it has, the names of its classes or attributes; of videos ()."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that changes whenever images or labels do: options, versions, what lies in the folder."""

    def fingerprint_for(self, kind: str) -> str:
        """The same of what a protocol reads that needs a kind of label; of everything unless a set can tell."""
        return self._whole

    @cached_property
    def _whole(self) -> str:
        return self.fingerprint()

    def size_for(self, kind: str) -> str:
        """How much a protocol sees that needs a kind of label, in words."""
        if kind == "video":
            return f"{len(self.videos())} videos"
        return ", ".join(f"{len(self.split(name))} images of {name}" for name in (self.learn, self.test))

    def remarks(self) -> list[str]:
        """What the user should know of what lies in the folder, a line each: how it differs from the published."""
        return []

    def load(self, split: str) -> LabelledImages:
        """The images of a split; called by :meth:`split`."""
        raise NotImplementedError

    def videos(self) -> Sequence[Video]:
        """Its videos, sorted by name; where :attr:`names` has ``video``."""
        raise NotImplementedError

    def split(self, name: str) -> LabelledImages:
        """The images of a split.

        Raises:
            UserError: there is no such split.
        """
        if name not in self.splits:
            raise UserError(f"{LABELLED.name_of(type(self))} has no split '{name}'{closest(name, self.splits)}: "
                            f"it has {', '.join(self.splits) or 'none, only videos'}")
        return self.load(name)

    def require(self, kind: str, protocol: str) -> None:
        """Refuse a protocol whose kind of label is not there.

        Raises:
            UserError: it is not; the message says which sets have it.
        """
        if kind in self.names:
            return
        has = ", ".join(KINDS[name] for name in self.names)
        raise UserError(f"protocol '{protocol}' needs {KINDS[kind]}, and {LABELLED.name_of(type(self))} has {has}: "
                        "choose another --data.name, for example scenes, which has all")
