"""PASCAL-Context with five tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._files import plane, read_colours, read_indices, read_matlab
from transfer.data._folder import Field, FolderData, Lacking, read_list, size_text
from transfer.data._pascal_lists import CLASSES, INDOOR, PART_OF, PARTS, PERSON
from transfer.data._values import NO_CLASS, class_map, shifted, unit_vectors
from transfer.data.base import DATASETS, Label

_TABLE = shifted(len(CLASSES))
_LABELLED = np.isin(np.arange(460), INDOOR)


@DATASETS.register("pascal")
class Pascal(FolderData):
    """PASCAL-Context as ASTMT has it (Maninis et al., 2019; Vandenhende 2022, section 2.2): five tasks.

    Human parts, edges and segmentation were annotated by people; normals and saliency are predictions of networks. The
    list ``val.txt`` is the split ``test``, since results are reported on it; there is no split to choose by unless one
    is held out.

    Args:
        root: folder with ``JPEGImages``, ``semseg``, ``human_parts``, ``pascal-context``, ``normals_distill``,
            ``sal_distill`` and ``ImageSets/Context``.
        normals_on: ``indoor``: normals are labels only on classes that NYUD has too, where the network they come from
            was trained (as in the publications); ``all``: everywhere.
        parts_on: ``people``: images without a part of a person have no label of parts (as in the publications);
            ``all``: they are background.
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg, parts, edge, normals, saliency"
    about = About(
        "PASCAL-Context, multi-task version", "https://github.com/facebookresearch/astmt",
        "images as PASCAL VOC (Flickr's terms), labels of PASCAL-Context and PASCAL-Part for research, distilled "
        "labels CC BY-NC 4.0", """\
ROOT/
  ImageSets/Context/train.txt, val.txt    one name a line: 4998 and 5105
  JPEGImages/NAME.jpg
  semseg/VOC12/NAME.png                   0 to 20, 255 none; where there is none:
  semseg/pascal-context/NAME.png          the same classes
  human_parts/NAME.mat                    PASCAL-Part's anno.objects
  pascal-context/trainval/NAME.mat        LabelMap of 459 classes: edges are its boundaries
  normals_distill/NAME.png                (x + 1) / 2 in 8 bits
  sal_distill/NAME.png                    above half: salient""",
        {"train": 4998, "val": 5105}, "the archive is called PASCAL_MT")
    image = "JPEGImages/{}.jpg"

    def __init__(self, root: str | None = None, normals_on: Literal["indoor", "all"] = "indoor",
                 parts_on: Literal["people", "all"] = "people", val_count: int = 0, seed: int = 0,
                 size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("pascal", root, lacking, size, val_count, seed)
        if normals_on not in ("indoor", "all"):
            raise UserError(f"pascal: normals_on is '{normals_on}': choose indoor or all")
        if parts_on not in ("people", "all"):
            raise UserError(f"pascal: parts_on is '{parts_on}': choose people or all")
        self.normals_on, self.parts_on = normals_on, parts_on
        context = self.root / "pascal-context" / "trainval"
        self.fields = {
            "semseg": Field(Label("semseg", CLASSES), _semseg, ("semseg/VOC12/{}.png", "semseg/pascal-context/{}.png")),
            "parts": Field(Label("parts", PARTS), read_parts if parts_on == "all" else read_parts_of_people,
                           ("human_parts/{}.mat",)),
            "edge": Field(Label("edge"), _edge, ("pascal-context/trainval/{}.mat",)),
            "normals": Field(Label("normals"), Normals(context if normals_on == "indoor" else None),
                             ("normals_distill/{}.png",)),
            "saliency": Field(Label("saliency"), _saliency, ("sal_distill/{}.png",)),
        }
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        return read_list(self.name, self.root / "ImageSets" / "Context" / f"{split}.txt", self.hint)

    def options(self) -> tuple[str, ...]:
        return self.normals_on, self.parts_on


def _semseg(path: Path) -> np.ndarray:
    return class_map(read_indices(path), _TABLE, path)


def _saliency(path: Path) -> np.ndarray:
    return (plane(read_indices(path), path) > 127).view(np.uint8)  # above half of 255


def _context(path: Path) -> np.ndarray:
    labels = read_matlab(path, "LabelMap")
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: LabelMap is no map of class numbers: get the file again")
    for number in (labels.min(), labels.max()) if labels.size else ():
        if not 0 <= number < len(_LABELLED):
            raise UserError(f"{path} has class {number}, and PASCAL-Context has 459: get the file again")
    return labels


def _edge(path: Path) -> np.ndarray:
    return boundaries(_context(path))


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Pixels with another label to the right, below, or at the lower right: uint8 ``[H, W]``.

    So the published evaluation draws the boundaries that it compares with (``seg2bmap`` of Martin et al. 2004, on
    PASCAL's label maps), slanted ones two pixels wide. Without the third neighbour those of one direction are thin.
    """
    found = np.zeros(labels.shape, bool)
    found[:, :-1] = labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    found[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return found.view(np.uint8)


@dataclass(frozen=True)
class Normals:
    """Reader of distilled normals.

    Args:
        context: folder of the maps of classes, to keep those of :data:`INDOOR`; all are kept when none.
    """

    context: Path | None

    def __call__(self, path: Path) -> np.ndarray:
        colours = read_colours(path)
        vectors = unit_vectors(colours.astype(np.float32) * np.float32(2 / 255) - 1, path)
        if self.context is not None:
            labels = _context(self.context / f"{path.stem}.mat")
            if labels.shape != vectors.shape[:2]:
                raise UserError(f"{path} is {size_text(vectors)} pixels and the map of its classes "
                                f"{size_text(labels)}: get the files again")
            vectors[~_LABELLED[labels]] = 0
        return vectors


def read_parts(path: Path) -> np.ndarray:
    """Parts of people in a file of PASCAL-Part; an image without people is background.

    Raises:
        UserError: the file has another structure, or a part of a person that is not known.
    """
    annotation = read_matlab(path, "anno")
    try:
        objects = annotation["objects"][0, 0].ravel()
        shape = objects[0]["mask"].shape if len(objects) else None
        parts = np.zeros(shape or (0, 0), np.uint8)
        for one in objects:
            if int(one["class_ind"].ravel()[0]) != PERSON:
                continue
            for part in one["parts"].ravel():
                name = str(part["part_name"].ravel()[0])
                if name not in PART_OF:
                    raise UserError(f"{path} has a person's part '{name}': there are {', '.join(PART_OF)}")
                parts[part["mask"].astype(bool)] = PART_OF[name]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no annotation of PASCAL-Part ({type(error).__name__}: {error}): get the file "
                        "again") from error
    if shape is None:
        raise UserError(f"{path} has no objects, so the size of its image is not known: get the file again")
    return parts


def read_parts_of_people(path: Path) -> np.ndarray:
    """Parts of people; no label where the image has none.

    Raises:
        UserError: as :func:`read_parts`.
    """
    parts = read_parts(path)
    return parts if parts.any() else np.full_like(parts, NO_CLASS)
