"""How much several predictions of the same thing disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError


def divergence(samples: Sequence[Tensor], family: str) -> Tensor:
    """The mean Kullback-Leibler divergence of M predictions from their mean: 1/M Σ_j KL(ŷ^{(j)} ‖ 1/M Σ_n ŷ^{(n)}).

    The mean is over images, and pixels where there are any; labels take no part in it.

    Args:
        samples: M outputs ``[B, C, …]`` of a network.
        family: categorical (logits of C exclusive classes), bernoulli (logits of C separate attributes, which are
            averaged) or gaussian (C continuous values with unit variance, where KL is half the squared distance).

    Returns:
        A scalar, float32 (float64 for float64 samples).

    Raises:
        UserError: another family.
    """
    outputs = torch.stack([value if value.dtype is torch.float64 else value.float() for value in samples])
    if family == "categorical":
        logs = outputs.log_softmax(2)
        return (logs.exp() * (logs - _mean_of_logs(logs))).sum(2).mean()
    if family == "bernoulli":
        present, absent = F.logsigmoid(outputs), F.logsigmoid(-outputs)
        terms = [logs.exp() * (logs - _mean_of_logs(logs)) for logs in (present, absent)]
        return (terms[0] + terms[1]).mean()
    if family == "gaussian":
        return (outputs - outputs.mean(0)).square().sum(2).mean() / 2
    raise UserError(f"no divergence is known for predictions of the family '{family}': choose one of categorical, "
                    "bernoulli, gaussian")


def _mean_of_logs(logs: Tensor) -> Tensor:
    """log 1/M Σ exp, over the first dimension."""
    return logs.logsumexp(0) - math.log(len(logs))
