"""Images per second that one core reads: views of ours beside the transforms of torchvision and lightly.

    python -m benchmarks.data [--images DIR] [--count N] [--rounds N] [--width W] [--height H]

Everything reads the same files in the same process, by turns, with one thread. Times are of the processor, not of
the clock, so that other work on the machine counts little; ratios are taken within a round. lightly takes part
where it is installed (``pip install tasklift[bench]``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from harness.errors import UserError
from harness.images import open_image
from harness.pictures import read_picture
from harness.program import run_program
from harness.progress import progress
from pretrain.crops import MultiCrop
from pretrain.sources import SOURCES
from pretrain.views import Views, collate, cut

BATCH = 32
PEER = "lightly, MoCoV2Transform: 2 views of 224"
Reader = Callable[[Sequence[Path]], object]


def write_pictures(folder: Path, count: int, width: int, height: int) -> None:
    """JPEGs of noise whose spectrum falls as that of photographs does, about as large as those of COCO.

    Args:
        folder: where to.
        count: how many.
        width: in pixels.
        height: in pixels.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / max(width, height)
    for number in range(count):
        generator = np.random.default_rng(number)
        grey, colour = generator.normal(size=(1, height, width)), generator.normal(size=(3, height, width))
        spectrum = np.fft.rfft2(grey + 0.25 * colour) / frequency**1.3
        texture = np.fft.irfft2(spectrum, s=(height, width))
        texture = 128 + 50 * (texture - texture.mean()) / texture.std()
        pixels = np.clip(texture, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=92)


def readers(root: Path) -> dict[str, Reader]:
    """What is measured, by what the table calls it.

    Args:
        root: folder of the images.

    Returns:
        Functions that read all files of a list.
    """
    crops, boxes = MultiCrop(), np.random.default_rng(0)
    pair = MultiCrop(global_size=224, local_crops=0)

    def each(read: Callable[[Path], object]) -> Reader:
        return lambda files: [read(file) for file in files]

    def six_crops(decode: Callable[[Path], np.ndarray], cut: Callable) -> Reader:
        def read(file: Path) -> None:
            pixels = decode(file)
            drawn = crops.sample(*pixels.shape[:2], boxes)
            cut(pixels, drawn[:2], crops.global_size)
            cut(pixels, drawn[2:], crops.local_size)

        return each(read)

    found = {
        "decode, Pillow": each(_decode_with_pillow),
        "decode": each(_decode),
        "decode + 6 crops, Pillow": six_crops(_decode_with_pillow, _cut_with_pillow),
        "decode + 6 crops": six_crops(_decode, cut),
        "whole pipeline: 6 views (2 of 160, 4 of 96), in batches": _pipeline(root, crops),
        "whole pipeline: 2 views of 224, in batches": _pipeline(root, pair),
        "torchvision, the transform of MoCo v2: 2 views of 224": each(_torchvision_transform()),
    }
    transform = _lightly_transform()
    if transform is not None:
        found[PEER] = each(transform)
    return found


def _decode(file: Path) -> np.ndarray:
    return read_picture(file).decode()


def _decode_with_pillow(file: Path) -> np.ndarray:
    return np.asarray(open_image(file))


def _cut_with_pillow(pixels: np.ndarray, boxes: Sequence, size: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    corners = [(box.left, box.top, box.left + box.width, box.top + box.height) for box in boxes]
    views = [image.resize((size, size), Image.Resampling.BILINEAR, box=box) for box in corners]
    return np.stack([np.asarray(view).transpose(2, 0, 1) for view in views])


def _pipeline(root: Path, crops: MultiCrop) -> Reader:
    views = Views(SOURCES.get("folder")(root=str(root)), crops)
    epochs = iter(range(sys.maxsize))

    def read(files: Sequence[Path]) -> None:
        epoch = next(epochs)  # other boxes in every round
        for start in range(0, len(files), BATCH):
            collate([views[epoch, number] for number in range(start, min(start + BATCH, len(files)))])

    return read


def _torchvision_transform() -> Callable[[Path], object]:
    from torchvision import transforms
    from torchvision.datasets.folder import default_loader

    one = transforms.Compose([
        transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])

    def read(file: Path) -> list[torch.Tensor]:
        image = default_loader(str(file))
        return [one(image), one(image)]

    return read


def _lightly_transform() -> Callable[[Path], object] | None:
    try:
        from lightly.transforms import MoCoV2Transform
    except ImportError:
        return None
    from torchvision.datasets.folder import default_loader

    transform = MoCoV2Transform()
    return lambda file: transform(default_loader(str(file)))


def measure(named: dict[str, Callable[[Sequence[Any]], object]], files: Sequence[Any],
            rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor that each reader takes for an image, in every round, by turns.

    Args:
        named: the readers.
        files: that each of them reads in a round, or numbers of samples; a first round is not counted.
        rounds: that are counted.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in named}
    try:
        with progress(rounds + 1, unit="round", description="read", leave=False) as bar:
            for turn in range(rounds + 1):
                for name, read in named.items():
                    started = time.process_time()
                    read(files if turn else files[:4])
                    if turn:
                        seconds[name].append((time.process_time() - started) / len(files))
                bar.update()
    finally:
        torch.set_num_threads(threads)
    return seconds


def table(seconds: dict[str, list[float]]) -> list[str]:
    """The lines of a Markdown table: medians over the rounds, and of the ratios within a round their range."""
    base = seconds.get(PEER)
    lines = ["| one core, one thread | ms/image | images/s |" + (" × lightly | of rounds |" if base else ""),
             "|---|---:|---:|" + ("---:|---:|" if base else "")]
    for name, values in seconds.items():
        median = statistics.median(values)
        line = f"| {name} | {median * 1e3:.2f} | {1 / median:.0f} |"
        if base:
            ratios = sorted(peer / own for peer, own in zip(base, values, strict=True))
            line += f" {statistics.median(ratios):.2f} | {ratios[0]:.2f}–{ratios[-1]:.2f} |"
        lines.append(line)
    return lines


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder of images, at any depth (by default some are made)")
    parser.add_argument("--count", type=int, default=64, help="images read in a round")
    parser.add_argument("--rounds", type=int, default=7, help="that are counted")
    parser.add_argument("--width", type=int, default=640, help="of the images that are made, in pixels")
    parser.add_argument("--height", type=int, default=480, help="of the images that are made, in pixels")
    options = parser.parse_args()
    for name in ("count", "rounds", "width", "height"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: set it to 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(options.images or folder).expanduser()
        if not options.images:
            write_pictures(root, options.count, options.width, options.height)
        source = SOURCES.get("folder")(root=str(root))
        files = [Path(source.root) / source.name(number) for number in range(min(options.count, len(source)))]
        sizes = [read_picture(file) for file in files]
        pixels = statistics.mean(picture.height * picture.width for picture in sizes)
        kilobytes = statistics.mean(file.stat().st_size for file in files) / 1024
        named = readers(root)
        if PEER not in named:
            print("lightly is not installed: no ratios (pip install lightly)", file=sys.stderr)
        print(f"{len(files)} images, {pixels / 1e6:.2f} megapixels and {kilobytes:.0f} KiB on average, "
              f"{options.rounds} rounds\n")
        print("\n".join(table(measure(named, files, options.rounds))))
    return 0


if __name__ == "__main__":
    run_program(main)
