"""A list of images: one path a line."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from harness.errors import UserError
from harness.images import open_image
from pretrain.sources.base import SOURCES, Paths, Source, existing_folder


@SOURCES.register("list")
class Manifest(Source):
    """The images that a text file names, in its order.

    Args:
        manifest: the text file, UTF-8, one path relative to ``root`` a line; blank lines do not count.
        root: the folder that the paths are relative to; the list's own folder by default.
    """

    def __init__(self, manifest: str | None = None, root: str | None = None) -> None:
        if not manifest:
            raise UserError("data.manifest is not set: give the list of images with --data.manifest FILE")
        path = Path(manifest).expanduser()
        self.root = existing_folder(root) if root else path.parent
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError as error:
            raise UserError(
                f"cannot read the list {path}: {error.strerror}: give the list of images with "
                "--data.manifest FILE"
            ) from error
        self.paths = Paths(line.strip() for line in lines if line.strip())
        if not len(self.paths):
            raise UserError(f"the list {path} names no images: write one path a line, relative to data.root")
        first = self.root / self.paths[0]
        if not first.is_file():
            raise UserError(
                f"the list {path} names {self.paths[0]}, and there is no file {first}: set --data.root "
                "to the folder that the paths are relative to"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, number: int) -> Image.Image:
        """Read an image; see :meth:`Source.open`."""
        path = self.paths[number]
        return open_image(self.root / path, path)

    def name(self, number: int) -> str:
        """The path in the list."""
        return self.paths[number]

    def fingerprint(self) -> str:
        """Hash of the list's paths."""
        return f"list-{len(self)}-{self.paths.digest()}"
