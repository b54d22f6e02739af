"""Which features of a pyramid a network of several scales reads."""

from __future__ import annotations

from harness.errors import UserError
from mtl_heads.encoder import Pyramid


def finest_scales(pyramid: Pyramid, count: int | None, what: str, least: int = 1) -> list[int]:
    """Indices of one feature for each of the finest strides, fine to coarse.

    Features of equal stride (of a dilated backbone) are one scale: the last of them, which has seen
    the others, stands for it.

    Args:
        pyramid: shape of the features.
        count: number of scales; ``None`` takes all there are.
        what: how messages call the network.
        least: scales without which the network is none.

    Raises:
        UserError: the pyramid has fewer scales, or the count makes no sense.
    """
    last = {stride: index for index, stride in enumerate(pyramid.strides)}
    strides = sorted(last)
    if count is not None and count < least:
        raise UserError(f"{what} with scales={count}: give {least} or more")
    needed = least if count is None else count
    if len(strides) < needed:
        lower = f"set scales to {len(strides)}, " if count is not None and len(strides) >= least else ""
        raise UserError(
            f"{what} reads features of {needed} strides, {pyramid.name} gives {len(strides)} "
            f"({', '.join(map(str, strides))}): {lower}choose another neck or backbone, or dilate it less"
        )
    return [last[stride] for stride in strides[:count]]
