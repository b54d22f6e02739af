"""The two losses of kNN-MoCo, from one similarity matrix.

Source: He et al. (2020), MoCo, equation 1; Vandenhende (2022), section 7.4.3, equation 7.2 and
algorithm 3 (the equation as printed lacks the logarithm).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import UserError
from pretrain.neighbors import Search, TorchSearch


@dataclass(frozen=True)
class ContrastiveTerms:
    """The losses of one batch and what its logits tell about the health of the run.

    Nothing here has waited for the device: read the tensors when they are logged.

    Attributes:
        instance_loss: scalar.
        neighbor_loss: scalar; 0 without neighbours.
        top1: scalar, percent of views whose key is more similar than every entry of the queue.
        top5: scalar, percent of views whose key is among the five most similar.
        neighbors: int64 ``[B, V, k]``, the slots of the queue that were taken as positives; or none.
    """

    instance_loss: Tensor
    neighbor_loss: Tensor
    top1: Tensor
    top5: Tensor
    neighbors: Tensor | None


def contrastive_losses(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    query_backbone: Tensor | None = None,
    queue_backbone: Tensor | None = None,
    *,
    temperature: float,
    neighbors: int = 0,
) -> tuple[Tensor, Tensor]:
    """Instance discrimination against the queue, and the same with the queue's nearest neighbours.

    With s = logsumexp(q·Q / τ): instance = mean of logaddexp(q·k / τ, s) − q·k / τ; neighbours = mean of
    s − (mean of q·Q_i / τ over the k entries whose backbone features are nearest).

    Args:
        query: ``[B, V, C]``, embeddings of the V views of B images, rows L2-normalised.
        key: ``[B, C]``, embeddings of the key views.
        queue: ``[K, C]``, earlier keys.
        query_backbone: ``[B, V, Cg]``, features before the head; needed with ``neighbors``.
        queue_backbone: ``[K, Cg]``, features before the head, aligned with ``queue``.
        temperature: τ.
        neighbors: k, nearest entries of the queue that are positives of a view; 0: none.

    Returns:
        Two scalars, in float32 (float64 for float64 input): the instance loss and the neighbour loss (0
        without neighbours). Gradients reach ``query`` only.

    Raises:
        UserError: shapes or settings that do not fit together.
    """
    terms = contrastive_terms(
        query, key, queue, query_backbone, queue_backbone, temperature=temperature, neighbors=neighbors
    )
    return terms.instance_loss, terms.neighbor_loss


def contrastive_terms(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    query_backbone: Tensor | None = None,
    queue_backbone: Tensor | None = None,
    *,
    temperature: float,
    neighbors: int = 0,
    search: Search | None = None,
) -> ContrastiveTerms:
    """:func:`contrastive_losses` with the statistics that the same logits give.

    Args:
        search: finds the neighbours (see :mod:`pretrain.neighbors`); matrix product and top-k by default.

    Returns:
        Losses, accuracies and the neighbours' slots. The other arguments are those of
        :func:`contrastive_losses`.
    """
    _check(query, key, queue, query_backbone, queue_backbone, temperature, neighbors)
    batch, views, _ = query.shape
    # Half-precision logits at temperature 0.2 would cost the loss three digits.
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    with torch.autocast(query.device.type, enabled=False):
        rows = query.flatten(0, 1).to(dtype) / temperature  # the small matrix takes the temperature
        positive = (rows.view(batch, views, -1) * key.detach().to(dtype)[:, None]).sum(-1).flatten()
        logits = rows @ queue.detach().to(dtype).T
        negatives = logits.logsumexp(1)
        instance_loss = (torch.logaddexp(positive, negatives) - positive).mean()
        slots = None
        neighbor_loss = instance_loss.new_zeros(())
        if neighbors:
            slots = (search or TorchSearch())(
                query_backbone.detach().flatten(0, 1), queue_backbone.detach(), neighbors
            )
            neighbor_loss = (negatives - logits.gather(1, slots).mean(1)).mean()
            slots = slots.view(batch, views, neighbors)
        with torch.no_grad():
            better = (logits > positive[:, None]).sum(1)
            top1, top5 = ((better < rank).to(dtype).mean() * 100 for rank in (1, 5))
    return ContrastiveTerms(instance_loss, neighbor_loss, top1, top5, slots)


def _check(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    query_backbone: Tensor | None,
    queue_backbone: Tensor | None,
    temperature: float,
    neighbors: int,
) -> None:
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}: set it above 0")
    if query.ndim != 3 or key.shape != (query.shape[0], query.shape[2]) or queue.shape[1:] != key.shape[1:]:
        raise UserError(
            f"contrastive losses: query {tuple(query.shape)}, key {tuple(key.shape)} and queue "
            f"{tuple(queue.shape)} do not fit: give [B, V, C], [B, C] and [K, C]"
        )
    if not neighbors:
        return
    if query_backbone is None or queue_backbone is None:
        raise UserError(
            f"contrastive losses: {neighbors} neighbours need query_backbone and queue_backbone: give both, "
            "or set neighbors to 0"
        )
    if query_backbone.shape[:2] != query.shape[:2] or len(queue_backbone) != len(queue):
        raise UserError(
            f"contrastive losses: backbone features {tuple(query_backbone.shape)} and their queue "
            f"{tuple(queue_backbone.shape)} do not fit query {tuple(query.shape)} and queue "
            f"{tuple(queue.shape)}: give [B, V, Cg] and [K, Cg]"
        )
