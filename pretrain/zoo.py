"""Published backbones by name.

A file is kept where torch keeps those of its hub. Before every use its sha256 is compared with the published one;
where none is published, with the one that was recorded at its first use. Such a file is not fetched unasked: that takes
a sha256 from the user, or the user's word that none is needed (``python -m pretrain.checkpoints fetch``).

Addresses, licences, hashes and scores are what the authors' pages say; a licence is that of the authors' repository,
since none of them states another for the weights.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import torch

from harness.errors import closest
from harness.files import file_digests, locked, write_text
from pretrain.formats.base import CheckpointError

_META = "https://dl.fbaipublicfiles.com"
_MOCO, _SWAV, _DINO = (f"{_META}/{folder}" for folder in ("moco/moco_checkpoints", "deepcluster", "dino"))
_DRIVE = "https://drive.google.com/file/d"
_NON_COMMERCIAL = "CC BY-NC 4.0"


@dataclass(frozen=True)
class Entry:
    """A published backbone.

    Attributes:
        address: of the file, or of the page from which a person can get it.
        format: name of its layout.
        architecture: timm name.
        licence: of the authors' repository.
        scores: that the authors published, in percent.
        by_hand: the address is a page; no program can fetch the file.
        file: its name in the cache; the last part of the address by default.
        digest: published hash, ``sha256:`` or ``md5:`` and its first digits, where there is one.
    """

    address: str
    format: str
    architecture: str
    licence: str
    scores: str
    by_hand: bool = False
    file: str = ""
    digest: str = ""

    @property
    def checked_by(self) -> str:
        """What tells whether a file is the published one, in words."""
        kind, _, digits = self.digest.partition(":")
        published = f"{kind}, first {len(digits)} digits" if len(digits) < 32 else kind
        if kind == "sha256":
            return published
        return f"{published}; sha256 unknown" if digits else "sha256 unknown"

    @property
    def path(self) -> Path:
        """Where the file is or belongs."""
        name = self.file or Path(urlsplit(self.address).path).name
        return Path(torch.hub.get_dir()) / "checkpoints" / name


def _moco(name: str, top1: str, md5: str, version: int = 2) -> Entry:
    return Entry(f"{_MOCO}/{name}/{name}_pretrain.pth.tar", f"MoCo v{version}", "resnet50", _NON_COMMERCIAL,
                 f"ImageNet linear {top1}", digest=f"md5:{md5}")


def _swav(epochs: int, top1: str) -> Entry:
    return Entry(f"{_SWAV}/swav_{epochs}ep_pretrain.pth.tar", "SwAV", "resnet50", _NON_COMMERCIAL,
                 f"ImageNet linear {top1}")


def _dino(name: str, architecture: str, knn: str, linear: str, full: bool = False) -> Entry:
    file = f"{name}_pretrain{'_full_checkpoint' if full else ''}.pth"
    layout = "DINO training" if full else "state dict" if architecture == "resnet50" else "DINO backbone"
    return Entry(f"{_DINO}/{name}_pretrain/{file}", layout, architecture, "Apache-2.0",
                 f"ImageNet kNN {knn}, linear {linear}")


def _densecl(data: str, architecture: str, epochs: int, detection: str, segmentation: str) -> Entry:
    depth = architecture.removeprefix("resnet")
    return Entry("https://github.com/WXinlong/DenseCL", "DenseCL", architecture, "Apache-2.0",
                 f"VOC detection AP {detection}, segmentation mIoU {segmentation}", by_hand=True,
                 file=f"densecl_r{depth}_{data}_{epochs}ep.pth")


def _revisiting(identity: str, name: str, scores: str) -> Entry:
    layout = "MoCo v2" if name.startswith("moco_") else "Revisiting-Contrastive-SSL"
    return Entry(f"{_DRIVE}/{identity}/view", layout, "resnet50", _NON_COMMERCIAL, scores, by_hand=True,
                 file=f"revisiting_{name}.pth.tar")


@cache
def entries() -> dict[str, Entry]:
    """All published backbones that are known, by name."""
    from torchvision.models import ResNet18_Weights, ResNet50_Weights

    supervised = {
        f"torchvision_{name}": Entry(
            weights.url, "state dict", name, "BSD-3-Clause", f"ImageNet top-1 {top1}",
            digest=f"sha256:{Path(weights.url).stem.rpartition('-')[2]}")  # torch's hub has the hash in the name
        for name, weights, top1 in (("resnet18", ResNet18_Weights.IMAGENET1K_V1, "69.8"),
                                    ("resnet50", ResNet50_Weights.IMAGENET1K_V1, "76.1"))
    }
    return {
        "moco_v1_200ep": _moco("moco_v1_200ep", "60.6", "b251726a", version=1),
        "moco_v2_200ep": _moco("moco_v2_200ep", "67.7", "59fd9945"),
        "moco_v2_800ep": _moco("moco_v2_800ep", "71.1", "a04e12f8"),
        "swav_100ep": _swav(100, "72.1"),
        "swav_200ep": _swav(200, "73.9"),
        "swav_400ep": _swav(400, "74.6"),
        "swav_800ep": _swav(800, "75.3"),
        "densecl_coco_800ep": _densecl("coco", "resnet50", 800, "56.7", "67.5"),
        "densecl_coco_1600ep": _densecl("coco", "resnet50", 1600, "57.2", "68.0"),
        "densecl_imagenet_200ep": _densecl("imagenet", "resnet50", 200, "58.7", "69.4"),
        "densecl_imagenet_r101_200ep": _densecl("imagenet", "resnet101", 200, "61.3", "74.1"),
        "dino_resnet50": _dino("dino_resnet50", "resnet50", "67.5", "75.3"),
        "dino_resnet50_full": _dino("dino_resnet50", "resnet50", "67.5", "75.3", full=True),
        "dino_vits16": _dino("dino_deitsmall16", "vit_small_patch16_224", "74.5", "77.0"),
        "dino_vits16_full": _dino("dino_deitsmall16", "vit_small_patch16_224", "74.5", "77.0", full=True),
        "dino_vits8": _dino("dino_deitsmall8", "vit_small_patch8_224", "78.3", "79.7"),
        "dino_vitb16": _dino("dino_vitbase16", "vit_base_patch16_224", "76.1", "78.2"),
        "dino_vitb8": _dino("dino_vitbase8", "vit_base_patch8_224", "77.4", "80.1"),
        "revisiting_moco_coco_200ep": _revisiting(
            "1JcyLlsRzRPv2oAzeD9_Lj2ToT2LxwpxF", "moco_coco_200ep",
            "VOC SVM 76.1, VOC mIoU 66.2, Cityscapes mIoU 70.3"),
        "revisiting_coco_200ep": _revisiting(
            "1A6TWp5JpquJtlm9oG0ly1-JSiSnqh2Tl", "coco_200ep",
            "VOC SVM 85.1, VOC mIoU 71.9, Cityscapes mIoU 72.2"),
        "revisiting_moco_coco_800ep": _revisiting(
            "12vo1CbXwt1juKVxBJ6FInjwRADELdO_f", "moco_coco_800ep",
            "VOC SVM 81.0, VOC mIoU 71.1, Cityscapes mIoU 71.3, DAVIS J&F 63.2"),
        "revisiting_coco_800ep": _revisiting(
            "1sxlSV2Qs1j-Ey4HLsCM8PsD0W9lHJZf6", "coco_800ep",
            "VOC SVM 85.9, VOC mIoU 73.5, Cityscapes mIoU 72.3, DAVIS J&F 66.2"),
        **supervised,
    }


def fetch(name: str, entry: Entry | None = None, sha256: str | None = None, unverified: bool = False) -> Path:
    """The file of a published backbone, fetched if need be and checked.

    Args:
        name: of the backbone.
        entry: what is known of it; by default what :func:`entries` has.
        sha256: that the file must have, 64 hexadecimal digits.
        unverified: fetch it also where no sha256 is known; that of what came is recorded.

    Returns:
        Its path.

    Raises:
        CheckpointError: unknown; not there and no way to it (the message says which file to put where); of no known
            sha256; or not the file that was published or used before.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise CheckpointError(f"--sha256 {sha256} is no sha256: give its 64 hexadecimal digits")
    if entry is None:
        if name not in entries():
            raise CheckpointError(f"the zoo has no '{name}'{closest(name, entries())}: see python -m "
                                  "pretrain.checkpoints zoo")
        entry = entries()[name]
    path = entry.path
    if entry.by_hand and not path.is_file():
        raise CheckpointError(f"{name} cannot be fetched by a program: get it from {entry.address} and place it at "
                              f"{path}")
    with locked(path.with_name(f".{path.name}.lock")):  # several processes may want it at once
        if path.is_file():
            _check(name, entry, path, path, sha256)
        elif sha256 or unverified or entry.digest.startswith("sha256:") or _record(path).is_file():
            _download(name, entry, path, sha256)
        else:
            raise CheckpointError(f"no sha256 of {name} is published, so it is not fetched unasked: fetch it once with "
                                  f"python -m pretrain.checkpoints fetch {name} --sha256 HEX (or --unverified, to take "
                                  f"what comes from {entry.address}), or place the file at {path}")
    return path


def _download(name: str, entry: Entry, path: Path, sha256: str | None) -> None:
    arriving = path.with_name(f".{path.name}.arriving")
    try:
        torch.hub.download_url_to_file(entry.address, str(arriving), progress=_is_main())
    except (OSError, RuntimeError, ValueError) as error:
        arriving.unlink(missing_ok=True)
        reason = str(getattr(error, "reason", error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"cannot fetch {name} from {entry.address} ({reason}): get the file elsewhere and place "
                              f"it at {path}") from error
    try:
        _check(name, entry, arriving, path, sha256)
        os.replace(arriving, path)
    finally:
        arriving.unlink(missing_ok=True)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _check(name: str, entry: Entry, file: Path, path: Path, sha256: str | None) -> None:
    """Compare a file with what is published, with what the user expects and with its first use; record it then."""
    kind, _, published = entry.digest.partition(":")
    digests = file_digests(file, {"sha256", kind} - {""})
    if published and not digests[kind].startswith(published):
        raise CheckpointError(f"{file} is not the published {name}: its {kind} begins with "
                              f"{digests[kind][: len(published)]} and not with {published}; remove it, then fetch it "
                              "again")
    if sha256 and digests["sha256"] != sha256:
        raise CheckpointError(f"{file} is not what --sha256 says: its sha256 is {digests['sha256']}; remove it, or "
                              "give the right one")
    record = _record(path)
    if not record.is_file():
        write_text(record, f"{digests['sha256']}  {path.name}\n")
        return
    known = record.read_text(encoding="utf-8").split()[:1]
    if known != [digests["sha256"]]:
        raise CheckpointError(f"{file} has changed since its first use: its sha256 is not that in {record}; remove "
                              f"both to fetch {name} again, or the record alone if you changed the file yourself")


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
