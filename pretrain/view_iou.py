"""How much the positive and the key view of an image overlap: a histogram of their intersection over union.

    python -m pretrain.view_iou [--crops.OPTION VALUE …] [--width 640] [--height 480] [--draws N] [--output FILE.png]

Source: Vandenhende (2022), figure 7.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config import Selection, load, selection
from harness.errors import UserError
from harness.program import run_program
from harness.report import pyplot, save_figure
from harness.seeding import numpy_generator
from pretrain.config import CROPS


@dataclass
class ViewIoUConfig:
    """Histogram of the intersection over union of the positive and the key crop.

    Args:
        width: of the images, in pixels.
        height: of the images, in pixels.
        draws: pairs to draw.
        seed: of the draws.
        output: PNG to write.
    """

    crops: Selection = selection(CROPS, "multi_crop", help="how views are cut")
    width: int = 640
    height: int = 480
    draws: int = 10000
    seed: int = 0
    output: str = "view_iou.png"


def view_ious(crops: object, height: int, width: int, draws: int, seed: int = 0) -> np.ndarray:
    """Intersection over union of (positive, key) pairs.

    Args:
        crops: draws the boxes; see :class:`pretrain.crops.MultiCrop`.
        height: of the image, in pixels.
        width: of the image, in pixels.
        draws: number of pairs.
        seed: of the draws.

    Returns:
        float64 ``[draws]``, in [0, 1].
    """
    generator = numpy_generator(seed, "view iou")
    pairs = (crops.sample(height, width, generator)[:2] for _ in range(draws))
    return np.array([positive.iou(key) for positive, key in pairs])


def main() -> int:
    """The command ``python -m pretrain.view_iou``."""
    config = load(ViewIoUConfig, prog="python -m pretrain.view_iou")
    for name in ("width", "height", "draws"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}: set it to 1 or more")
    crops = config.crops
    if "local_crops" in crops.options:
        crops.options["local_crops"] = 0  # they play no part, and cost time
    limit = crops.options.get("max_iou")
    settings = {"unlimited": crops.build() if limit is None else crops.build(max_iou=None)}
    if limit is not None:
        settings[f"max_iou {limit:g}"] = crops.build()
    drawn = {name: view_ious(build, config.height, config.width, config.draws, config.seed)
             for name, build in settings.items()}
    print(f"{'IoU of positive and key':24s} {'mean':>7s} {'25 %':>7s} {'50 %':>7s} {'75 %':>7s}")
    for name, values in drawn.items():
        numbers = [values.mean(), *np.quantile(values, (0.25, 0.5, 0.75))]
        print(f"{name:24s} " + " ".join(f"{number:7.3f}" for number in numbers))
    print(f"wrote {draw(drawn, Path(config.output))}")
    return 0


def draw(drawn: Mapping[str, np.ndarray], path: Path) -> Path:
    """Histograms of IoU, one over the other, as a PNG."""
    figure, axis = pyplot().subplots(figsize=(5, 3.2))
    bins = np.linspace(0, 1, 41)
    for name, values in drawn.items():
        axis.hist(values, bins, density=True, alpha=0.6, label=f"{name}, mean {values.mean():.2f}")
    axis.set_xlabel("intersection over union of the two views")
    axis.set_ylabel("density")
    axis.legend(frameon=False)
    return save_figure(figure, path)


if __name__ == "__main__":
    run_program(main)
