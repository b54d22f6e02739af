"""Many linear classifiers of the same features, trained at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.progress import progress
from harness.seeding import numpy_generator
from pretrain.evaluation.samples import CHUNK_BYTES


@dataclass(frozen=True)
class LinearHeads:
    """G classifiers of features that they standardise alike.

    Args:
        weight: ``[C, G, K]``, of standardised features.
        bias: ``[G, K]``.
        mean: of each channel, ``[C]``.
        scale: standard deviation of each channel, ``[C]``.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    @torch.no_grad()
    def scores(self, rows: np.ndarray) -> Tensor:
        """What the classifiers say of features ``[N, C]``: ``[N, G, K]``."""
        x = _standardise(rows, self.mean, self.scale)
        return torch.addmm(self.bias.flatten(), x, self.weight.flatten(1)).view(len(x), *self.bias.shape)

    def folded(self, number: int = 0) -> tuple[Tensor, Tensor]:
        """Weight ``[K, C]`` and bias ``[K]`` of one of them for features as they are, not standardised."""
        weight = (self.weight[:, number] / self.scale[:, None]).T.contiguous()
        return weight, self.bias[number] - weight @ self.mean


@torch.no_grad()
def train_heads(features: np.ndarray, labels: np.ndarray, classes: int, grid: Sequence[tuple[float, float]], *,
                rows: np.ndarray | None = None, epochs: int = 100, batch_size: int = 256, momentum: float = 0.9,
                seed: int = 0, device: torch.device | str = "cpu", label: str = "") -> LinearHeads:
    """Multinomial logistic regression by SGD, for all points of a grid in one pass over the features.

    The heads are one tensor: a minibatch is read and standardised once, and one matrix product each gives the scores
    and the gradients of all of them. Each takes exactly the steps that ``torch.optim.SGD`` would take with it alone:
    momentum, weight decay on the weights and not on the biases, learning rate falling to zero by half a cosine over
    all steps. Weights start at zero, where the loss, which is convex, needs no better start.

    Features are standardised with the mean and standard deviation of each channel over what is trained on (as batch
    normalisation without affine parameters would, with the statistics of all batches); so learning rates mean the
    same for every backbone. To the variance is added 1e-5 of its mean over channels, so that a channel that hardly
    ever fires does not become large.

    Args:
        features: float32 ``[N, C]``, may be mapped from a file.
        labels: int64 ``[N]``.
        classes: K.
        grid: learning rate and weight decay of each of the G heads.
        rows: which features to train on, ascending; all by default.
        epochs: passes over the features, each in another order.
        batch_size: images of a step; the batches of an epoch differ in size by one at most.
        momentum: of SGD.
        seed: of the orders.
        device: where it is computed.
        label: what the progress bar says.

    Returns:
        The heads; those whose training diverged hold what is not finite, and do not disturb the others.
    """
    rows = np.arange(len(features)) if rows is None else rows
    mean, scale = _statistics(features, rows, device)
    heads, columns = len(grid), len(grid) * classes
    weight = torch.zeros(features.shape[1], columns, device=device)
    bias = torch.zeros(columns, device=device)
    weight_speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    rate, decay = (torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(classes)
                   for values in zip(*grid, strict=True))
    truth = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
    batches = -(-len(rows) // batch_size)
    step, steps = 0, epochs * batches
    with progress(epochs, unit="epoch", description=label or "linear heads", leave=False, delay=1) as bar:
        for epoch in range(epochs):
            order = rows[numpy_generator(seed, "linear", epoch).permutation(len(rows))]
            for part in np.array_split(order, batches):
                part.sort()  # a file is read forwards
                x = _standardise(features[part], mean, scale)
                error = torch.addmm(bias, x, weight).view(len(part), heads, classes).softmax(2)
                error[torch.arange(len(part), device=device), :, truth[part]] -= 1
                error = error.div_(len(part)).view(len(part), columns)
                weight_speed.addmm_(x.T, error, beta=momentum).addcmul_(weight, decay)
                bias_speed.mul_(momentum).add_(error.sum(0))
                now = rate * (-(1 + np.cos(np.pi * step / steps)) / 2)
                weight.addcmul_(weight_speed, now)
                bias.addcmul_(bias_speed, now)
                step += 1
            bar.update()
    return LinearHeads(weight.view(-1, heads, classes), bias.view(heads, classes), mean, scale)


@torch.no_grad()
def score_heads(heads: LinearHeads, features: np.ndarray, labels: np.ndarray, rows: np.ndarray | None = None,
                most: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How well each head classifies.

    Args:
        heads: G of them.
        features: float32 ``[N, C]``.
        labels: int64 ``[N]``.
        rows: which features, ascending; all by default.
        most: of a head's classes with the highest scores.

    Returns:
        The classes with the highest scores, int64 ``[n, G, most]``; whether the truth is among the first 1, 2, …
        ``most`` of them follows from that. Cross-entropy of each head, float64 ``[G]``. Whether a head is finite,
        bool ``[G]``.
    """
    rows = np.arange(len(features)) if rows is None else rows
    count, classes = heads.bias.shape
    loss, best = torch.zeros(count, dtype=torch.float64), []
    step = max(1, CHUNK_BYTES // (4 * max(features.shape[1], count * classes)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        scores = heads.scores(features[part])
        truth = torch.from_numpy(np.ascontiguousarray(labels[part])).to(scores.device)
        own = scores.gather(2, truth[:, None, None].expand(-1, count, 1))[..., 0]
        loss += (scores.logsumexp(2) - own).double().sum(0).cpu()
        best.append(scores.topk(min(most, classes), 2).indices.cpu())
    loss /= max(1, len(rows))
    return torch.cat(best).numpy(), loss.numpy(), torch.isfinite(loss).numpy()


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split images by chance, alike in every class.

    Args:
        labels: int64 ``[N]``.
        share: of each class's images that are held out: rounded, and at least one where the class has two.
        seed: of the draw.

    Returns:
        Rows that are kept and rows that are held out, both ascending.
    """
    held = np.zeros(len(labels), bool)
    generator = numpy_generator(seed, "linear", "hold-out")
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(own))), len(own) - 1)
        held[generator.permutation(own)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _statistics(features: np.ndarray, rows: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, ``[C]``."""
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    shift = np.array(features[rows[0]], np.float64)  # else the difference below is of large numbers
    step = max(1, CHUNK_BYTES // (8 * max(1, features.shape[1])))
    for start in range(0, len(rows), step):
        some = features[rows[start : start + step]] - shift
        total += some.sum(0)
        squares += np.einsum("nc,nc->c", some, some)
    mean = total / len(rows)
    variance = np.maximum(squares / len(rows) - mean**2, 0)
    scale = np.sqrt(variance + 1e-5 * variance.mean())
    scale[scale == 0] = 1
    return tuple(torch.tensor(values, dtype=torch.float32, device=device) for values in (mean + shift, scale))


def _standardise(rows: np.ndarray, mean: Tensor, scale: Tensor) -> Tensor:
    return torch.from_numpy(np.array(rows)).to(mean.device).sub_(mean).div_(scale)
