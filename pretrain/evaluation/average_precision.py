"""Average precision as PASCAL VOC defines it."""

from __future__ import annotations

import numpy as np

AVERAGES = {"eleven_points": "11 points", "area": "area"}
"""The two definitions, with what tables call them."""


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Average precision of a ranking by both definitions of VOC.

    ``eleven_points`` (VOC 2007; Everingham et al., 2010, section 4.2) is the mean over recalls 0, .1, …, 1 of the
    highest precision at that recall or a higher one. ``area`` (from VOC 2010 on) is the area under that precision over
    all recalls. What other libraries call average precision, the area without looking at higher recalls, is never above
    ``area``.

    Images of equal score enter the curve together, so that their order in the data does not matter.

    Args:
        scores: float ``[N]``, higher for what is more likely relevant.
        relevant: bool ``[N]``.

    Returns:
        Both in [0, 1]; NaN where nothing is relevant.
    """
    total = int(relevant.sum())
    if not total:
        return dict.fromkeys(AVERAGES, float("nan"))
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores
    found, shown = np.cumsum(relevant[order])[last], np.flatnonzero(last) + 1
    recall = found / total
    precision = np.maximum.accumulate((found / shown)[::-1])[::-1]  # the highest at this recall or a higher one
    # the first place whose recall reaches n/10; in whole numbers, else .3 or .7 are missed by a rounding
    places = np.searchsorted(10 * found, total * np.arange(11))
    return {"eleven_points": float(precision[places].mean()),
            "area": float((np.diff(recall, prepend=0) * precision).sum())}
