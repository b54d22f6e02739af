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
    drawn = with_and_without_limit(config.crops, config.height, config.width, config.draws, config.seed)
    print(f"{'IoU of positive and key':24s} {'mean':>7s} {'25 %':>7s} {'50 %':>7s} {'75 %':>7s}")
    for name, values in drawn.items():
        print(f"{name:24s} " + " ".join(f"{number:7.3f}" for number in summary(values).values()))
    print(f"wrote {draw(drawn, Path(config.output))}")
    return 0


def with_and_without_limit(crops: Selection, height: int, width: int, draws: int,
                           seed: int = 0) -> dict[str, np.ndarray]:
    """:func:`view_ious` of a crop setting without its limit, and with it where it has one; by what they are called."""
    options = dict(crops.options)
    if "local_crops" in options:
        options["local_crops"] = 0  # they play no part, and cost time
    limit = options.get("max_iou")
    limits = {"unlimited": None} if limit is None else {"unlimited": None, f"max_iou {limit:g}": limit}
    build = crops.registry.get(crops.name)
    return {name: view_ious(build(**options | ({"max_iou": most} if "max_iou" in options else {})), height, width,
                            draws, seed) for name, most in limits.items()}


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean and quartiles."""
    quartiles = np.quantile(values, (0.25, 0.5, 0.75))
    return {"mean": float(values.mean()), **dict(zip(("lower_quartile", "median", "upper_quartile"),
                                                     map(float, quartiles), strict=True))}


def draw(drawn: Mapping[str, np.ndarray], path: Path) -> Path:
    """Histograms of IoU, one over the other, as a PNG."""
    figure, axis = pyplot().subplots(figsize=(5, 3.2))
    bins = np.linspace(0, 1, 41)
    for name, values in drawn.items():
        axis.hist(values, bins, density=True, alpha=0.6, label=f"{name}, mean {values.mean():.2f}")
    axis.set_xlabel("intersection over union of the two views")
    axis.set_ylabel("density")
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=len(drawn))
    return save_figure(figure, path)


if __name__ == "__main__":
    run_program(main)
