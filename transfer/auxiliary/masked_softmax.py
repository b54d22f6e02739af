"""Softmax among the subclasses of one class."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Probabilities of the auxiliary classes that belong to each image's primary class.

    p_k = M_k exp(z_k) / Σ_j M_j exp(z_j), where the mask M = B(y, ψ) is 1 for the ψ[y] auxiliary classes of primary
    class y, which stand from Σ_{i<y} ψ[i] on (Liu 2018, section 3.2.2). The source prints exp(M ⊙ z), by which the
    other classes would have mass exp(0); its text, "multiplying a binary mask on the original softmax", and its figure
    3.6 are this one.

    Args:
        logits: z ``[B, Σψ]``.
        labels: y ``[B]``; negative where unknown.
        counts: ψ ``[C]``, integers.

    Returns:
        ``[B, Σψ]``; a row of zeros where the label is unknown.
    """
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts,
                                    output_size=logits.shape[1])
    mask = owner == labels.clamp_min(0)[:, None]
    return logits.masked_fill(~mask, -torch.inf).softmax(1) * (labels >= 0).to(logits)[:, None]
