"""Momentum Contrast with several views and backbone-feature neighbours.

Source: He et al. (2020), MoCo; Vandenhende (2022), algorithms 2 and 3.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.seeding import derive_seed
from pretrain.queues import Queues


class Encoder(nn.Module):
    """f = h ∘ g: a timm backbone with pooled features and a two-layer head without batch norm.

    Args:
        backbone: timm model that gives pooled features ``[N, Cg]``.
        embedding: C, output width of the head.
        head_width: hidden width; the backbone's own when 0.
        batch_norm_splits: parts of the batch that go through the backbone one after another, so that
            each has batch statistics of its own.
    """

    def __init__(self, backbone: nn.Module, embedding: int = 128, head_width: int = 0,
                 batch_norm_splits: int = 1) -> None:
        super().__init__()
        if batch_norm_splits < 1:
            raise UserError(f"model.batch_norm_splits is {batch_norm_splits}: set it to 1 or more")
        self.backbone = backbone
        self.width: int = getattr(backbone, "head_hidden_size", backbone.num_features)
        hidden = head_width or self.width
        self.head = nn.Sequential(nn.Linear(self.width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, embedding))
        self.batch_norm_splits = batch_norm_splits

    def forward(self, resolutions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings of views, one pass per resolution (each with its own batch statistics).

        Args:
            resolutions: for each resolution ``[B, v, 3, H, W]``, v views of every image.

        Returns:
            L2-normalised embeddings ``[B, V, C]`` and backbone features ``[B, V, Cg]``, float32, with
            V the sum of all v, in the order given.
        """
        features = []
        for views in resolutions:
            images = views.flatten(0, 1)
            parts = [self.backbone(part) for part in images.tensor_split(min(self.batch_norm_splits, len(images)))]
            features.append(torch.cat(parts).unflatten(0, views.shape[:2]))
        features = torch.cat(features, dim=1)
        embeddings = F.normalize(self.head(features).float(), dim=-1)
        return embeddings, F.normalize(features.detach().float(), dim=-1)


class MoCo(nn.Module):
    """Query encoder, its moving average the key encoder, and the queues of keys.

    Args:
        query: the encoder that is trained.
        queues: heads and backbone features of earlier keys.
        momentum: m.
        seed: of the shuffling of keys.
    """

    def __init__(self, query: Encoder, queues: Queues, *, momentum: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f"momentum is {momentum}: set it between 0 and 1")
        self.query = query
        self.key = copy.deepcopy(query).requires_grad_(False)
        self.queues = queues
        self.momentum = momentum
        self.seed = seed

    @torch.no_grad()
    def update_key(self) -> None:
        """θ_k ← m θ_k + (1 − m) θ_q; buffers of batch norm stay the key encoder's own."""
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), 1 - self.momentum)

    @torch.no_grad()
    def encode_keys(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Embeddings and features of the key views.

        With several processes, or several splits, images are shuffled among them before the pass and
        restored after it, so that batch statistics do not tell which images belong together
        (shuffle-BN, He et al. 2020, section 3.3).

        Args:
            images: ``[B, 3, H, W]``; every process has the same B.
            step: seeds the permutation, the same on all processes.

        Returns:
            ``[B, C]`` and ``[B, Cg]``, L2-normalised; with W processes ``[W * B, …]``, those of all of them
            in the order of their ranks. :func:`own_rows` are the ones of ``images``.
        """
        world = torch.distributed.get_world_size() if _many() else 1
        if world == 1 and self.key.batch_norm_splits == 1:
            keys, features = self.key([images[:, None]])
            return keys[:, 0], features[:, 0]
        batch = len(images)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "shuffle", step))
        order = torch.randperm(batch * world, generator=generator).to(images.device)
        back = order.argsort()
        mine = slice(*(batch * (rank_() + offset) for offset in (0, 1)))
        shuffled = gather(images)[order[mine]]
        if images.is_contiguous(memory_format=torch.channels_last):
            shuffled = shuffled.contiguous(memory_format=torch.channels_last)
        keys, features = self.key([shuffled[:, None]])
        return gather(keys[:, 0])[back], gather(features[:, 0])[back]

    def enqueue(self, keys: Tensor, features: Tensor, index: Tensor) -> None:
        """Append a batch's keys.

        Args:
            keys: as :meth:`encode_keys` returns them, of all processes.
            features: the same.
            index: int64 ``[B]``, the numbers of this process's images.
        """
        self.queues.enqueue(keys, None if self.queues.backbone is None else features, gather(index))


def rank_() -> int:
    """Rank of this process."""
    return torch.distributed.get_rank() if _many() else 0


def own_rows(tensor: Tensor) -> Tensor:
    """This process's share of rows that lie in the order of ranks."""
    if not _many():
        return tensor
    rows = len(tensor) // torch.distributed.get_world_size()
    return tensor[rows * rank_() : rows * (rank_() + 1)]


def join_parts(parts: Sequence[Tensor]) -> Tensor:
    """Rows of the parts of a batch, each in the order of ranks, as rows of the batch in that order."""
    if len(parts) == 1:
        return parts[0]
    world = torch.distributed.get_world_size() if _many() else 1
    return torch.cat([part.unflatten(0, (world, -1)) for part in parts], dim=1).flatten(0, 1)


def gather(tensor: Tensor) -> Tensor:
    """Rows of ``tensor`` from all processes, by rank; every process must have as many. No gradient."""
    if not _many():
        return tensor
    tensor = tensor.detach().contiguous()
    rows = tensor.new_empty((torch.distributed.get_world_size() * len(tensor), *tensor.shape[1:]))
    torch.distributed.all_gather_into_tensor(rows, tensor)
    return rows


def _many() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized() \
        and torch.distributed.get_world_size() > 1
