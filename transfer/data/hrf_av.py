"""HRF with arteries and veins: photographs of the retina."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from harness.seeding import numpy_generator
from transfer.data._files import read_colours
from transfer.data._folder import Field, FolderData, Lacking
from transfer.data.base import DATASETS, Label

VESSELS = ("background", "artery", "vein")
_KINDS = ("h", "dr", "g")
_FOLDERS = ("HRF_AV_groundtruth", "HRF_AV_groundtruth/HRF_AV_groundtruth", "HRF_AV", "AV", "av")
_TRAINED = 15


@DATASETS.register("hrf_av")
class HrfAv(FolderData):
    """HRF (Budai et al., 2013) with the arteries and veins of Hemelings et al. (2019): 45 images of 3504×2336.

    Tasks: ``vessels`` (binary), ``artery_vein`` (background, artery, vein), and ``artery`` and ``vein`` as binary
    tasks; Wu et al. (2023, section 3.1) train vessels with arteries and veins. Crossings are both artery and vein, so
    they have no label of ``artery_vein``; vessels of unknown kind have none of these three.

    Args:
        root: folder with ``images``, ``manual1`` and ``HRF_AV_groundtruth``.
        division: of the 45 images into 15 to train on and 30 to test: ``first``: the first five of each kind (healthy,
            diabetic retinopathy, glaucoma); ``random``: drawn by ``seed``, as Wu et al. do.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "vessels, artery_vein, artery, vein"
    about = About(
        "HRF-AV", "https://www5.cs.fau.de/research/data/fundus-images/ (images, vessels) and "
        "https://github.com/rubenhx/av-segmentation (arteries and veins)", 
        "HRF: CC BY 4.0; arteries and veins: for research",
        """\
ROOT/
  images/01_h.jpg, 01_dr.JPG, 01_g.jpg … 15_g.jpg
  manual1/01_h.tif                       0 background, 255 vessel
  HRF_AV_groundtruth/01_h_AV.png         red artery, blue vein, green crossing, white vessel of unknown kind""",
        {"train": 15, "test": 30})
    image = "images/{}"
    published = {"train": "train", "test": "test"}

    def __init__(self, root: str | None = None, division: Literal["first", "random"] = "first", seed: int = 0,
                 size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("hrf_av", root, lacking, size)
        if division not in ("first", "random"):
            raise UserError(f"hrf_av: division is '{division}': choose first or random")
        self.division, self.draw = division, seed
        folder = self.listing.folder_of(*_FOLDERS)
        colours = tuple(f"{folder}/{{stem}}{end}" for end in ("_AV.png", "_av.png", ".png", "_AVmanual.png"))
        self.fields = {
            "vessels": Field(Label("binary_segmentation"), read_vessels,
                             ("manual1/{stem}.tif", "manual1/{stem}.png", "manual1/{stem}.TIF")),
            "artery_vein": Field(Label("semseg", VESSELS), read_kinds, colours),
            "artery": Field(Label("binary_segmentation"), read_arteries, colours),
            "vein": Field(Label("binary_segmentation"), read_veins, colours),
        }
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        names = sorted(name for name in self.listing.names("images") if name.lower().endswith((".jpg", ".png", ".tif")))
        if self.division == "random":
            chosen = set(numpy_generator(self.draw, "hrf_av").permutation(len(names))[:_TRAINED].tolist())
            return [name for place, name in enumerate(names) if (place in chosen) == (split == "train")]
        kinds = [[name for name in names if name.partition(".")[0].endswith(f"_{kind}")] for kind in _KINDS]
        first = {name for group in kinds for name in group[: _TRAINED // len(_KINDS)]}
        return [name for name in names if (name in first) == (split == "train")]

    def options(self) -> tuple[object, ...]:
        return (self.division,)


def read_vessels(path: Path) -> np.ndarray:
    """1 on vessels."""
    return (read_colours(path).max(2) > 127).view(np.uint8)


def _colours(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where arteries, veins, crossings and vessels of unknown kind are drawn."""
    red, green, blue = (read_colours(path) > 127).transpose(2, 0, 1)
    return red & ~green & ~blue, blue & ~red & ~green, green & ~red & ~blue, red & green | red & blue | green & blue


def read_kinds(path: Path) -> np.ndarray:
    """0, 1 on arteries, 2 on veins, 255 on crossings and unknown vessels."""
    artery, vein, crossing, unknown = _colours(path)
    return np.where(crossing | unknown, 255, artery + np.uint8(2) * vein).astype(np.uint8)


def read_arteries(path: Path) -> np.ndarray:
    """1 on arteries and crossings, 255 on unknown vessels."""
    artery, _, crossing, unknown = _colours(path)
    return np.where(unknown, 255, artery | crossing).astype(np.uint8)


def read_veins(path: Path) -> np.ndarray:
    """1 on veins and crossings, 255 on unknown vessels."""
    _, vein, crossing, unknown = _colours(path)
    return np.where(unknown, 255, vein | crossing).astype(np.uint8)
