"""Units of metrics: each family of metrics states those of its own."""

from __future__ import annotations

PERCENT, METRES, INVERSE_METRES, PIXELS, DEGREES, PLAIN = "%", "m", "1/m", "px", "°", ""

#: Decimals that a value is shown with.
DECIMALS = {PERCENT: 2, METRES: 3, INVERSE_METRES: 4, PIXELS: 2, DEGREES: 2, PLAIN: 4}


def percent(*names: str) -> dict[str, str]:
    """These metrics, all in percent."""
    return dict.fromkeys(names, PERCENT)
