"""One class against the rest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transfer.metrics.base import SetMetric, ratio
from transfer.metrics.units import percent


class BinarySegmentation(SetMetric):
    """IoU, Dice, F1 and accuracy of the pixels of a whole set at probability ½, and the mean Dice of its images.

    Source: Pascal 2021, sections 3.4.4 and 5.3.2; Wu 2023, section 3 (which calls it F1). Over pooled pixels Dice and
    F1 are the same number, 2 TP / (2 TP + FP + FN). In an image without the class and without a pixel found Dice
    is 1.

    Args:
        largest: keep the largest connected region of each prediction only.
    """

    units = percent("IoU", "Dice", "F1", "pixel_accuracy", "image_Dice")

    def __init__(self, largest: bool = False) -> None:
        super().__init__()
        self.largest = largest
        self.add_sum("counts", 4)  # true positives, found, positives, right
        self.add_sum("pixels")
        self.add_sum("images")
        self.add_sum("dice", dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add logits ``[B, 1, H, W]`` and labels ``[B, H, W]`` (0, 1; 255 ignored)."""
        found = prediction[:, 0] > 0
        if self.largest:
            found = torch.stack([largest_region(one) for one in found])
        labelled, positive = target <= 1, target == 1
        found = found & labelled
        right = (found == positive) & labelled
        counts = torch.stack([(found & positive).flatten(1).sum(1), found.flatten(1).sum(1),
                              positive.flatten(1).sum(1), right.flatten(1).sum(1)])
        self.counts += counts.sum(1)
        self.pixels += labelled.sum()
        known, total = labelled.flatten(1).any(1), counts[1] + counts[2]
        dice = torch.where(total > 0, 2 * counts[0].double() / total.clamp_min(1), 1.0)
        self.images += known.sum()
        self.dice += (dice * known).sum()

    def compute(self) -> dict[str, float]:
        """``{"IoU", "Dice", "F1", "pixel_accuracy", "image_Dice"}`` in percent.

        Where the class neither occurs nor is found in the whole set, the first three are not defined.
        """
        hits, found, positives, right = self.counts
        dice = float(ratio(2 * hits, found + positives, 100))
        return {
            "IoU": float(ratio(hits, found + positives - hits, 100)), "Dice": dice, "F1": dice,
            "pixel_accuracy": float(ratio(right, self.pixels, 100)),
            "image_Dice": float(ratio(self.dice, self.images, 100)),
        }


def largest_region(mask: Tensor) -> Tensor:
    """The largest 8-connected region of a mask ``[H, W]``; of equal ones the first in reading order."""
    from scipy import ndimage

    regions, count = ndimage.label(mask.cpu().numpy(), structure=np.ones((3, 3)))
    if count <= 1:
        return mask
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return torch.from_numpy(regions == sizes.argmax()).to(mask.device)
