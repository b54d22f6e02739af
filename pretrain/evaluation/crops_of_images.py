"""Crops of labelled images, as images of their own: do their features tell more of the class or of the image?"""

from __future__ import annotations

import numpy as np
from PIL import Image

from harness.config import digest
from harness.seeding import numpy_generator
from pretrain.evaluation.labelled import LabelledImages


class CropsOfImages(LabelledImages):
    """Square crops at random places, several of each of some images.

    Args:
        images: the images.
        chosen: which of them.
        each: crops of one image; they follow one another.
        side: what a crop is resized to.
        seed: of their places.
        area: smallest and largest share of the largest square in the image.
    """

    def __init__(self, images: LabelledImages, chosen: np.ndarray, each: int, side: int, seed: int,
                 area: tuple[float, float] = (0.1, 0.4)) -> None:
        self.images, self.chosen, self.each, self.side, self.seed, self.area = images, chosen, each, side, seed, area

    def __len__(self) -> int:
        return len(self.chosen) * self.each

    def source(self, number: int) -> int:
        """Which of the images a crop is of."""
        return int(self.chosen[number // self.each])

    def image(self, number: int) -> np.ndarray:
        pixels = self.images.image(self.source(number))
        height, width = pixels.shape[:2]
        generator = numpy_generator(self.seed, "crops", self.source(number), number % self.each)
        length = max(1, round(min(height, width) * float(np.sqrt(generator.uniform(*self.area)))))
        top, left = int(generator.integers(height - length + 1)), int(generator.integers(width - length + 1))
        part = Image.fromarray(pixels[top : top + length, left : left + length])
        return np.asarray(part.resize((self.side, self.side), Image.Resampling.BICUBIC))

    def name(self, number: int) -> str:
        return self.images.name(self.source(number))

    def fingerprint(self) -> str:
        return digest(["crops", self.images.fingerprint(), self.chosen.tolist(), self.each, self.side, self.seed,
                       self.area])

    def classes(self) -> np.ndarray:
        return np.repeat(self.images.classes()[self.chosen], self.each)
