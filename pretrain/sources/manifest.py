"""A list of images: one path a line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.errors import UserError
from pretrain.sources._files import Files
from pretrain.sources.base import SOURCES, Paths, existing_folder


@SOURCES.register("list")
class Manifest(Files):
    """The images that a text file names, in its order.

    Args:
        manifest: the text file, UTF-8, one path relative to ``root`` a line; blank lines do not count.
        root: the folder that the paths are relative to; the list's own folder by default.
        labels: ``folders``: the first folder on the path is the image's class, for statistics only.
    """

    def __init__(self, manifest: str | None = None, root: str | None = None,
                 labels: Literal["none", "folders"] = "none") -> None:
        if not manifest:
            raise UserError("data.manifest is not set: give the list of images with --data.manifest FILE")
        path = Path(manifest).expanduser()
        folder = existing_folder(root) if root else path.parent
        try:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise UserError(
                f"cannot read the list {path}: {error.strerror}: give the list of images with "
                "--data.manifest FILE"
            ) from error
        # Not splitlines: some of the characters that it splits at may stand in names.
        paths = Paths(name for line in text.split("\n") if (name := line.strip(" \t\r")))
        if not len(paths):
            raise UserError(f"the list {path} names no images: write one path a line, relative to data.root")
        first = folder / paths[0]
        if not _is_file(first):
            raise UserError(
                f"the list {path} names {paths[0]}, and there is no file {first}: set --data.root "
                "to the folder that the paths are relative to"
            )
        super().__init__("list", folder, paths, labels == "folders")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a list of something else: too long for a name, or binary
        return False
