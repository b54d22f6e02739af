"""Overlap of the two views that are compared in pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.config import Selection, as_dict, load, option_defaults
from harness.errors import UserError
from pretrain.config import CROPS, PretrainConfig
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled
from pretrain.view_iou import draw, summary, with_and_without_limit

_CROPS = {"max_iou": None, "global_scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}


@PROTOCOLS.register("view_iou")
class ViewIoU(Protocol):
    """Intersection over union of the positive and the key view over many draws (Vandenhende, 2022, figure 7.2).

    It looks at no backbone and no image; python -m pretrain.view_iou is the same for a crop setting of one's own.

    Args:
        width: of the images, in pixels.
        height: of the images, in pixels.
        draws: pairs to draw.
        config: configuration file of a pretraining, whose crops are drawn; instead of the three options below.
        max_iou: largest intersection over union of the positive and the key crop; none: not limited.
        global_scale: smallest and largest share of the image's area in a crop.
        ratio: smallest and largest aspect ratio (width over height).
    """

    backbone = False
    columns: Mapping[str, str] = {"mean": "view IoU [%]", "median": "view IoU, median [%]"}
    descriptive = frozenset({"mean", "lower_quartile", "median", "upper_quartile"})

    def __init__(self, width: int = 640, height: int = 480, draws: int = 10000, config: str | None = None,
                 max_iou: float | None = None, global_scale: tuple[float, float] = _CROPS["global_scale"],
                 ratio: tuple[float, float] = _CROPS["ratio"]) -> None:
        for name, value in (("width", width), ("height", height), ("draws", draws)):
            if value < 1:
                raise UserError(f"view_iou.{name} is {value}: set it to 1 or more")
        self.width, self.height, self.draws = width, height, draws
        options = {"max_iou": max_iou, "global_scale": tuple(global_scale), "ratio": tuple(ratio)}
        if config is None:
            defaults = option_defaults(CROPS.get("multi_crop"))
            self.crops = Selection("multi_crop", {**defaults, **options}, None, CROPS)
        else:
            if given := [name for name, value in options.items() if value != _CROPS[name]]:
                raise UserError(f"view_iou: config and {given[0]} are given, and the file says how crops are cut: give "
                                "one of them")
            self.crops = load(PretrainConfig, ["--config", config], prog="view_iou.config").crops
        self.crops.build()  # refuses numbers that make no sense

    def inputs(self) -> object:
        return as_dict(self.crops)

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        drawn = with_and_without_limit(self.crops, self.height, self.width, self.draws, seed)
        found = {name: {key: 100 * number for key, number in summary(values).items()} for name, values in drawn.items()}
        rows = [(name, *(f"{number:.1f}" for number in numbers.values())) for name, numbers in found.items()]
        *_, chosen = found.values()
        caption = (f"Intersection over union of the positive and the key view of an image of {self.width} × "
                   f"{self.height} pixels, {self.draws} pairs.")
        return Finding(chosen, [(draw(drawn, folder / "view_iou.png"), caption)],
                       tables={"settings": (("crops", "mean [%]", "25 % below", "50 % below", "75 % below"), rows)})
