"""How many images each class of a subset has.

Source: Vandenhende (2022), sections 7.3.1 and 7.3.3: subsets of ImageNet with as many images as COCO, one uniform over
the classes and one whose classes "follow the Pareto distribution with power value α = 6", made as the long-tailed
ImageNet of Liu et al. (2019, Large-scale long-tailed recognition in an open world): 1000 classes, 115.8 thousand
images, 1280 in the largest class and 5 in the smallest.
"""

from __future__ import annotations

import math

import numpy as np

from harness.errors import UserError


def pareto_law(size: int, classes: int, alpha: float = 6.0, minimum: int = 5, maximum: int | None = None) -> np.ndarray:
    """The long-tailed law, before rounding.

    The class of rank k = 1, …, K (the largest first) has

        n_k = min(M, m + s · (((k − ½) / K)^(−1/α) − 1))

    images: the quantiles, at the middles of K equal parts, of the Pareto distribution with power α that starts at
    zero (Pareto II, or Lomax, with P(n − m > x) = (1 + x/s)^−α), moved up by the smallest count m. Its scale s is
    the one that makes the sum N.

    That it is this Pareto distribution, and not the one that starts at its scale (Pareto I), follows from the
    published numbers: with α = 6 the largest of 1000 classes would be 3.6 times the smallest in the latter, and 1280
    to 5 are 256 times. With this one the second class of 115.8 thousand images has 1092, and the first 1420 where
    1280, about what ImageNet has, do not limit it. Counts drawn at random would have another sum and another head for
    every seed; quantiles give the law itself.

    Args:
        size: N, images in all.
        classes: K.
        alpha: power of the law; the smaller, the longer the tail.
        minimum: m, images of the smallest class, and a little less than the law's last.
        maximum: M, images of the largest class; not limited when none.

    Returns:
        float64 ``[K]``, not increasing, with sum N.

    Raises:
        UserError: no such law has N images.
    """
    top = size if maximum is None else maximum
    if not 0 < alpha < math.inf:
        raise UserError(f"--alpha is {alpha}: set a number above 0")
    if minimum < 0 or top < max(1, minimum):
        raise UserError(f"--minimum is {minimum} and --maximum {top}: set 0 <= minimum <= maximum")
    if not minimum * classes <= size <= top * classes:
        few, many = minimum * classes, top * classes
        raise UserError(f"{classes} classes of {minimum} to {top} images have {few} to {many}, not {size}: set --size "
                        "in that range, or change --minimum or --maximum")
    with np.errstate(over="ignore"):
        shape = ((np.arange(classes) + 0.5) / classes) ** (-1 / alpha) - 1
    shape = np.minimum(shape, np.finfo(np.float64).max / (2 * classes))  # of a tiny α; it is cut at M anyway

    def law(scale: float) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.minimum(top, minimum + scale * shape)

    low, high = 0.0, 1.0
    while law(high).sum() < size and high < 1e300:
        high *= 2
    for _ in range(2000):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if law(middle).sum() < size else (low, middle)
    return law(high)


def pareto_counts(size: int, classes: int, alpha: float = 6.0, minimum: int = 5,
                  maximum: int | None = None) -> list[int]:
    """:func:`pareto_law` in whole images: each rounded down or up, those nearest to the next number up, so that the
    sum is N.

    Returns:
        ``[K]``, not increasing.
    """
    law = pareto_law(size, classes, alpha, minimum, maximum)
    counts = np.floor(law + 1e-9).astype(np.int64)
    order = np.argsort(-(law - counts), kind="stable")
    counts[order[: size - int(counts.sum())]] += 1
    return counts.tolist()


def uniform_counts(size: int, classes: int) -> list[int]:
    """N images over K classes as evenly as can be.

    Returns:
        ``[K]``, not increasing; the first ones have one more where K does not divide N.
    """
    each, more = divmod(size, classes)
    return [each + (number < more) for number in range(classes)]
