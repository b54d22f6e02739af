"""Kinds of images are tested with the views that are cut from them; here is what they do not reach."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from harness.images import UnreadableImage, image_files, read_image, to_rgb


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_reads_bytes_and_names_them():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (read_image(encoded(Image.fromarray(pixels), format="PNG")) == pixels).all()
    with pytest.raises(UnreadableImage, match="^image in memory: cannot identify"):
        read_image(b"nothing")
    with pytest.raises(UnreadableImage, match="^shard 3: ") as caught:
        read_image(b"nothing", "shard 3")
    assert caught.value.source == "shard 3"


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_orientation_comes_out_upright(turn):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, :, 0], upright[:, 0, 1] = 200, 100
    stored = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
              5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1),
              7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}[turn](upright)
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), format="PNG", exif=exif)
    assert (read_image(content) == upright).all()


def test_transparency_is_laid_on_white():
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert np.abs(np.asarray(to_rgb(half)).astype(int) - 127).max() <= 1
    grey = Image.new("LA", (2, 2), (10, 0))
    assert (np.asarray(to_rgb(grey)) == 255).all()
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    assert (read_image(encoded(palette, format="PNG", transparency=0)) == 255).all()
    assert (read_image(encoded(palette, format="PNG")) == 9).all()


def test_values_beyond_the_range_are_clipped():
    floats = np.array([[-1.0, 0.5, np.nan, np.inf]], np.float32)
    assert np.asarray(to_rgb(Image.fromarray(floats)))[0, :, 0].tolist() == [0, 128, 0, 0]
    integers = np.array([[-5, 65535, 70000]], np.int32)
    assert np.asarray(to_rgb(Image.fromarray(integers)))[0, :, 0].tolist() == [0, 255, 255]


def test_image_files_are_sorted_below_links_and_without_hidden_ones(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/notes.txt", ".hidden/d.png", ".e.png", "a.webp"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.tif").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "link")
    os.symlink(tmp_path / "root", tmp_path / "root" / "a" / "cycle")
    assert image_files(tmp_path / "root") == ["a.webp", "a/c.png", "b.JPG", "link/z.tif"]
