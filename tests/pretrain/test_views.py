"""Views: what is cut, any image a user may have, unreadable files, workers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from harness.images import UnreadableImage, open_image, read_image
from harness.pictures import JpegPicture, read_picture
from pretrain.crops import Box, MultiCrop
from pretrain.sources import SOURCES, Source
from pretrain.views import REPLACEMENTS, Views, collate, cut, largest_reduction


class Memory(Source):
    """Images in memory; numbers in ``broken`` cannot be read."""

    def __init__(self, images, broken=()):
        self.images, self.broken = images, set(broken)

    def __len__(self):
        return len(self.images)

    def open(self, number):
        if number in self.broken:
            raise UnreadableImage(self.name(number), "damaged")
        return self.images[number]

    def fingerprint(self):
        return "memory"


def gradient(height, width, shift=0):
    """An image whose red is the column and green the row, in parts of its size."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[..., 2] = shift
    return image


def texture(height, width, seed=0):
    """Noise of all scales, about as a photograph has it: uint8 ``[height, width, 3]``."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (4, 16, 64):
        coarse = generator.normal(0, 8 * cell**0.5, (height // cell + 2, width // cell + 2, 3))
        image += np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


SMALL = MultiCrop(global_size=16, local_size=8, local_crops=3)


def test_shapes_and_collate():
    views = Views(Memory([gradient(40, 50, i) for i in range(5)]), SMALL, seed=1)
    batch = collate([views[(0, i)] for i in range(5)])
    assert batch["global"].shape == (5, 2, 3, 16, 16) and batch["local"].shape == (5, 3, 3, 8, 8)
    assert batch["global"].dtype == batch["local"].dtype == torch.uint8
    assert batch["index"].tolist() == list(range(5)) and batch["unreadable"] == []
    assert [int(b[0, 2, 0, 0]) for b in batch["global"]] == list(range(5))
    two = collate([Views(Memory([gradient(40, 50)]), MultiCrop(16, 8, 0))[(0, 0)]])
    assert two["local"].shape == (1, 0, 3, 8, 8)


def test_views_depend_on_seed_epoch_and_number_alone():
    source = Memory([gradient(40, 50)] * 3)
    views = Views(source, SMALL, seed=1)
    assert torch.equal(views[(0, 1)]["global"], Views(source, SMALL, seed=1)[(0, 1)]["global"])
    for other in (views[(1, 1)], views[(0, 2)], Views(source, SMALL, seed=2)[(0, 1)]):
        assert not torch.equal(views[(0, 1)]["global"], other["global"])


def test_workers_do_not_matter():
    views = Views(Memory([gradient(40, 50, i) for i in range(12)]), SMALL)
    order = [[(2, i) for i in range(start, start + 4)] for start in range(0, 12, 4)]
    plain, forked = (
        list(DataLoader(views, batch_sampler=order, collate_fn=collate, num_workers=workers))
        for workers in (0, 2)
    )
    for one, two in zip(plain, forked, strict=True):
        assert torch.equal(one["global"], two["global"]) and torch.equal(one["local"], two["local"])


def test_cut_takes_the_box():
    image = Image.fromarray(gradient(256, 256))
    whole, part = cut(image, [Box(0, 0, 256, 256), Box(128, 64, 64, 128)], 32)
    assert whole[0, 0, 0] < 8 and whole[0, 0, -1] > 247
    assert abs(int(part[0, 0, 0]) - 64) < 4 and abs(int(part[0, 0, -1]) - 192) < 4
    assert abs(int(part[1, 0, 0]) - 128) < 4 and abs(int(part[1, -1, 0]) - 192) < 4
    expected = image.crop((64, 128, 192, 192)).resize((32, 32), Image.Resampling.BILINEAR)
    difference = part.transpose(1, 2, 0).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("box", [Box(0, 0, 97, 131), Box(3, 5, 64, 64), Box(20, 9, 30, 17), Box(96, 130, 1, 1)])
def test_cut_is_pillows_resize_of_what_the_box_holds(box):
    image = Image.fromarray(texture(97, 131))
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    for size in (8, 33, 64):
        expected = np.asarray(image.crop(corners).resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(cut(image, [box], size)[0].transpose(1, 2, 0).astype(int) - expected).max() <= 1


def test_largest_reduction_leaves_two_pixels_for_one():
    def reduction(*sides):
        return largest_reduction([Box(0, 0, 999, side) for side in sides], [10] * len(sides))

    assert [reduction(side) for side in (5, 39, 40, 79, 80, 159, 160, 5000)] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert reduction(5000, 90) == 4 and reduction(5000, 5000, 30) == 1


def test_views_at_reduced_scale_lose_nothing():
    """Less than what a box one pixel narrower would change, and a hundredth of the range at most."""
    large = MultiCrop(global_size=40, local_size=24)
    used = set()
    for number in range(6):
        picture = read_picture(jpeg(texture(480, 640, number)))
        boxes = large.sample(480, 640, np.random.default_rng(number))
        reduction = largest_reduction(boxes, [40] * 2 + [24] * 4)
        used.add(reduction)
        pixels, small = picture.decode(), picture.decode(reduction)
        for part, size in ((boxes[:2], 40), (boxes[2:], 24)):
            whole = cut(pixels, part, size).astype(int)
            difference = np.abs(whole - cut(small, part, size, reduction))
            narrower = np.abs(whole - cut(pixels, [box._replace(width=box.width - 1) for box in part], size))
            assert difference.mean() < min(1.0, narrower.mean()) and np.quantile(difference, 0.99) <= 4
    assert used == {2}


def test_views_decode_large_jpegs_at_reduced_scale(tmp_path, monkeypatch):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(texture(480, 640, number)))
    decoded = []
    plain = JpegPicture.decode
    monkeypatch.setattr(JpegPicture, "decode", lambda self, scale=1: decoded.append(scale) or plain(self, scale))
    source = SOURCES.get("folder")(root=str(tmp_path))
    small = Views(source, MultiCrop(40, 24), seed=3)[0, 1]
    monkeypatch.setattr("pretrain.views.REDUCTIONS", ())
    full = Views(source, MultiCrop(40, 24), seed=3)[0, 1]
    assert decoded == [2, 1]
    for name in ("global", "local"):
        assert (small[name].int() - full[name].int()).abs().float().mean() < 1


def test_unreadable_image_is_replaced_and_reported():
    views = Views(Memory([gradient(40, 50, i) for i in range(20)], broken=[3, 4]), SMALL)
    sample = views[(0, 3)]
    assert sample["unreadable"][0] == "3: damaged"
    assert sample["index"] not in (3, 4) and int(sample["global"][0, 2, 0, 0]) == sample["index"]
    assert torch.equal(sample["global"], views[(0, 3)]["global"])
    assert {views[(epoch, 3)]["index"] for epoch in range(20)} != {sample["index"]}
    assert collate([views[(0, i)] for i in range(5)])["unreadable"].count("3: damaged") >= 1


def test_all_unreadable_gives_grey_views_and_the_names():
    sample = Views(Memory([gradient(40, 50)] * 3, broken=[0, 1, 2]), SMALL)[(0, 0)]
    assert sample["index"] == -1 and len(sample["unreadable"]) == 1 + REPLACEMENTS
    assert (sample["global"] == 128).all()


def save_odd_images(folder):
    """One file of each kind; every one shows the gradient, or is grey."""
    image = gradient(60, 90)
    pillow = Image.fromarray(image)
    pillow.convert("L").save(folder / "grey.png")
    pillow.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(image[..., 0].astype(np.float32) / 255).save(folder / "float.tif")
    pillow.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    pillow.convert("1").save(folder / "one_bit.png")
    alpha = pillow.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.full((60, 90), 255, np.uint8)))
    alpha.save(folder / "opaque.png")
    Image.new("RGBA", (90, 60), (255, 0, 0, 0)).save(folder / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise
    pillow.save(folder / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(gradient(20, 20)).save(folder / "tiny.png")
    Image.fromarray(gradient(1, 1)).save(folder / "pixel.png")
    Image.fromarray(gradient(8000, 40)).save(folder / "tall.png")
    pillow.save(folder / "plain.jpg", quality=95)
    return image


def test_every_kind_of_image_is_read_and_cut(tmp_path):
    image = save_odd_images(tmp_path)
    source = SOURCES.get("folder")(root=str(tmp_path))
    assert len(source) == 13
    read = {source.name(i): np.asarray(source.open(i)) for i in range(len(source))}
    assert all(array.dtype == np.uint8 and array.shape[2] == 3 for array in read.values())
    for name in ("plain.jpg", "cmyk.jpg", "palette.png", "opaque.png"):
        assert np.abs(read[name].astype(int) - image).mean() < 12, name
    assert np.abs(read["sixteen.png"][..., 1].astype(int) - image[..., 0]).max() <= 1
    assert np.abs(read["float.tif"][..., 2].astype(int) - image[..., 0]).max() <= 1
    assert (read["transparent.png"] == 255).all()
    turned = np.rot90(image, -1)
    assert read["turned.jpg"].shape == turned.shape
    assert np.abs(read["turned.jpg"].astype(int) - turned).mean() < 4
    assert read["tall.png"].shape == (8000, 40, 3)
    views = Views(source, SMALL)
    for number in range(len(source)):
        sample = views[(0, number)]
        assert sample["unreadable"] == [] and sample["index"] == number
        assert sample["global"].shape == (2, 3, 16, 16) and sample["local"].shape == (3, 3, 8, 8)


def test_eight_thousand_pixels_each_way(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (8000, 8000), 77).save(path)
    assert read_image(path).shape == (8000, 8000, 3)


def test_damaged_files_are_unreadable(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    huge = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 2**20, 2**20, 8, 2, 0, 0, 0)
    bad = {
        "truncated.jpg": whole[: len(whole) // 2], "empty.png": b"", "text.jpg": b"not an image",
        "bomb.png": b"\x89PNG\r\n\x1a\n" + huge,
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImage, match=name):
            open_image(tmp_path / name)
    source = SOURCES.get("folder")(root=str(tmp_path))
    views = Views(source, SMALL)
    for number in range(len(source)):
        sample = views[(0, number)]
        assert source.name(number) == "good.jpg" or sample["unreadable"][0].startswith(source.name(number))
        assert sample["index"] == -1 or source.name(sample["index"]) == "good.jpg"
