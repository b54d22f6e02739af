"""The queues of earlier keys: head embeddings and, aligned with them, backbone features.

Source: He et al. (2020), MoCo, section 3.2; Vandenhende (2022), section 7.4.3 (the queue of backbone
features). Entries are rows: a product with a batch reads them in order, and a slice writes them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError


class Queues(nn.Module):
    """First in, first out, of fixed length; full of random unit vectors at the start.

    All queues are written at the same slots by :meth:`enqueue`, so that slot ``i`` of each belongs to the
    same image. The state dict holds everything, the place of the next entry included.

    Args:
        size: K, entries.
        channels: C, of the head's embeddings.
        backbone_channels: Cg, of the features before the head; none: no such queue.
        dtype: of the stored vectors: ``torch.float32``, or ``torch.float16`` / ``torch.bfloat16`` for half
            the memory.
        seed: of the random vectors.

    Attributes:
        head: buffer ``[K, C]``.
        backbone: buffer ``[K, Cg]``, or none.
        index: int64 buffer ``[K]``, which image a slot holds; -1 where nothing has been enqueued.
        pointer: the slot that is written next.
        batches: batches enqueued so far.
    """

    head: Tensor
    backbone: Tensor | None
    index: Tensor
    stamp: Tensor

    def __init__(
        self,
        size: int,
        channels: int,
        backbone_channels: int | None = None,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"the queue's size is {size}: set it to 1 or more")
        generator = torch.Generator().manual_seed(seed)

        def unit_vectors(width: int | None) -> Tensor | None:
            if width is None:
                return None
            return F.normalize(torch.randn(size, width, generator=generator), dim=1).to(dtype)

        self.size = size
        self.pointer = 0
        self.batches = 0
        self.register_buffer("head", unit_vectors(channels))
        self.register_buffer("backbone", unit_vectors(backbone_channels))
        self.register_buffer("index", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("stamp", torch.full((size,), -1, dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, head: Tensor, backbone: Tensor | None = None, index: Tensor | None = None) -> None:
        """Replace the oldest entries by a batch, in place; call it after the backward pass.

        Args:
            head: ``[N, C]``, any N; of more than K rows the last K stay, as if they came one at a time.
            backbone: ``[N, Cg]``; needed exactly if there is such a queue.
            index: int64 ``[N]``, which image each row is; -1 (unknown) by default.

        Raises:
            UserError: rows that do not fit the queues.
        """
        rows = len(head)
        self._check(head, backbone, index)
        pairs = [(self.head, head)]
        if self.backbone is not None:
            pairs.append((self.backbone, backbone))
        pairs.append((self.index, -1 if index is None else index))
        pairs.append((self.stamp, self.batches))
        kept = min(rows, self.size)
        start = (self.pointer + rows - kept) % self.size
        first = min(kept, self.size - start)  # rows before the end of the queue; the rest goes to its front
        for queue, values in pairs:
            if isinstance(values, int):
                queue[start : start + first] = values
                queue[: kept - first] = values
            else:
                values = values[rows - kept :]
                queue[start : start + first].copy_(values[:first], non_blocking=True)
                queue[: kept - first].copy_(values[first:], non_blocking=True)
        self.pointer = (self.pointer + rows) % self.size
        self.batches += 1

    @torch.no_grad()
    def age(self) -> Tensor:
        """Mean age of the filled entries, in batches: 0 for those of the last batch; nan when empty."""
        filled = self.stamp >= 0
        ages = torch.where(filled, self.batches - 1 - self.stamp, 0).sum().float()
        return ages / filled.sum()

    def filled(self) -> Tensor:
        """Share of the slots that hold an image's key rather than the random start, 0 to 1."""
        return (self.stamp >= 0).float().mean()

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        width = None if self.backbone is None else self.backbone.shape[1]
        return f"size={self.size}, channels={self.head.shape[1]}, backbone_channels={width}"

    def get_extra_state(self) -> dict[str, int]:
        """What the state dict needs beside the buffers."""
        return {"pointer": self.pointer, "batches": self.batches}

    def set_extra_state(self, state: Any) -> None:
        """Inverse of :meth:`get_extra_state`."""
        self.pointer, self.batches = int(state["pointer"]), int(state["batches"])

    def _check(self, head: Tensor, backbone: Tensor | None, index: Tensor | None) -> None:
        if (backbone is None) != (self.backbone is None):
            has = "no" if self.backbone is None else "a"
            given = "none was" if backbone is None else "some were"
            raise UserError(f"there is {has} queue of backbone features, and {given} given to enqueue")
        for name, queue, rows in (("head", self.head, head), ("backbone", self.backbone, backbone)):
            if rows is not None and rows.shape != (len(head), queue.shape[1]):
                raise UserError(
                    f"enqueue: {name} rows are {tuple(rows.shape)}: give [{len(head)}, {queue.shape[1]}]"
                )
        if index is not None and index.shape != (len(head),):
            raise UserError(f"enqueue: index is {tuple(index.shape)}: give [{len(head)}]")
