"""Pictures: decoded late, at full scale as Pillow decodes them, at a reduced scale where that is asked for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from harness.images import UnreadableImage, read_image
from harness.pictures import REDUCTIONS, JpegPicture, Picture, read_picture


def texture(height, width, seed=0):
    """Noise of all scales, about as a photograph has it: uint8 ``[height, width, 3]``."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (4, 16, 64):
        coarse = generator.normal(0, 8 * cell**0.5, (height // cell + 2, width // cell + 2, 3))
        image += np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def encoded(image, kind="JPEG", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30},
                                     {"restart_marker_blocks": 2}])
def test_full_scale_is_what_pillow_gives(options):
    for image in (texture(61, 90), texture(61, 90)[..., 0]):
        content = encoded(image, **options)
        picture = read_picture(content)
        assert isinstance(picture, JpegPicture) and (picture.height, picture.width) == (61, 90)
        assert picture.decode().shape == (61, 90, 3)
        assert np.abs(picture.decode().astype(int) - read_image(content)).max() <= 1


def test_only_upright_jpegs_in_colour_or_grey_wait():
    image = texture(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (encoded(image, exif=exif), encoded(image, "JPEG", "CMYK"), encoded(image, "PNG")):
        picture = read_picture(content)
        whole = read_image(content)
        assert type(picture) is Picture and (picture.height, picture.width) == whole.shape[:2]
        assert np.array_equal(picture.decode(), whole) and np.array_equal(picture.decode(8), whole)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("size", [(64, 96), (61, 91)])
def test_reduced_scale_has_the_reduced_size(reduction, size):
    for image in (texture(*size), texture(*size)[..., 0]):
        pixels = read_picture(encoded(image)).decode(reduction)
        assert pixels.shape == (-(-size[0] // reduction), -(-size[1] // reduction), 3)
        assert abs(pixels.mean() - image.mean()) < 8


def test_damaged_jpegs_are_unreadable_at_every_scale(tmp_path):
    content = encoded(texture(200, 200))
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: len(content) // 2])
    for reduction in (1, *REDUCTIONS):
        with pytest.raises(UnreadableImage, match="cut.jpg"):
            read_picture(path).decode(reduction)
    for bad in (b"", b"text", content[:20]):
        with pytest.raises(UnreadableImage, match="image in memory"):
            read_picture(bad).decode()
    with pytest.raises(UnreadableImage, match="missing.jpg"):
        read_picture(tmp_path / "missing.jpg")


def test_both_decoders_judge_damage_alike(capfd):
    generator = np.random.default_rng(0)
    kinds = [encoded(texture(60, 80)), encoded(texture(60, 80), progressive=True), encoded(texture(60, 80)[..., 0])]
    verdicts = []
    for number in range(90):
        content = bytearray(kinds[number % 3])
        at = int(generator.integers(2, len(content) - 1))
        if number % 2:
            content[at] ^= int(generator.integers(1, 256))
        else:
            del content[at : at + int(generator.integers(1, 99))]
        found = [_read(read, bytes(content)) for read in (read_image, lambda data: read_picture(data).decode())]
        verdicts.append(found[0] is None)
        assert (found[0] is None) == (found[1] is None), number
        if found[0] is not None:
            assert np.abs(found[0].astype(int) - found[1]).max() <= 1, number
    assert 10 < sum(verdicts) < 80


def _read(read, content):
    try:
        return read(content)
    except UnreadableImage:
        return None
