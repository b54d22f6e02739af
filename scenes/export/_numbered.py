"""Numbered npy files in a folder for each kind."""

from __future__ import annotations

import numpy as np

from scenes.export.base import Layout, View


class NumberedLayout(Layout):
    """``{train,val}/{image,label,…}/{i}.npy``."""

    def save(self, split: str, number: int, kind: str, array: np.ndarray) -> None:
        """One array."""
        self.numbers(f"{split}/{kind}/{number}.npy", array)

    def picture(self, split: str, number: int, view: View) -> None:
        """Shares of 1, float32; 8 bits come back exactly."""
        self.save(split, number, "image", view["image"].astype(np.float32) / 255)
