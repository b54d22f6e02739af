"""Sums that make up the losses of tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(prediction: Tensor) -> Tensor:
    """Half-precision predictions as float32, so that long sums keep their digits."""
    return prediction if prediction.element_size() >= 4 else prediction.float()


def count(labelled: Tensor) -> Tensor:
    """How many entries are true: float64 ``[1]``."""
    return labelled.sum().double().reshape(1)


def per_label(total: Tensor, normalizer: Tensor) -> Tensor:
    """A sum divided by a count, which is at least one so that no labels give zero."""
    return total / normalizer.sum().clamp_min(1).to(total.dtype)


def focal_cross_entropy_sum(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """−Σ y (1 − p)^γ log p over images and classes, p the softmax of the logits (Lin et al., 2017).

    Args:
        logits: ``[B, K]``.
        target: y ``[B, K]``, one-hot or soft; a row of zeros adds nothing.
        gamma: γ, which turns towards what is not learned yet; cross-entropy at 0.
    """
    log = logits.log_softmax(1)
    focus = (-torch.expm1(log)) ** gamma if gamma else 1.0
    return -(target.to(log.dtype) * focus * log).sum()


def binary_cross_entropy_sum(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum over entries of weight · BCE; the weight of an entry without label must be 0."""
    target, weight = target.to(logits.dtype), weight.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
