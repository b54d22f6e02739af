"""Attention networks beside SegNet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask, PooledBatchNorm2d


class AttentionModule(nn.Module):
    """Attends to the features of one block (Liu, 2018, section 2.2.3).

    The mask a = h(g([u; f(â)])), with u what goes into the block's change of resolution and â the
    attended features of the block before, and then (a + 1) ⊙ p with p what comes out of the block. f
    and g are 3x3, g with stride 2 to follow the pooling, or transposed to follow the unpooling; h is
    1x1. All have batch norm; f and g end in ReLU, h in a sigmoid.

    The text leaves open how wide f and g are. With a quarter and half of u's channels an attention
    network has 0.33 times SegNet's parameters, as in its table 2.1 (0.32).

    Args:
        inputs: channels of u.
        previous: channels of â; 0 for the first module, which reads u alone.
        outputs: channels of p.
        up: the block doubles the resolution; otherwise it halves it.
        f_reduction: u's channels per channel of f.
        g_reduction: u's channels per channel of g.
    """

    def __init__(
        self, inputs: int, previous: int, outputs: int, up: bool, f_reduction: int = 4, g_reduction: int = 2
    ) -> None:
        super().__init__()
        narrow, middle = max(1, inputs // f_reduction), max(1, inputs // g_reduction)
        if previous:
            self.f = _layer(nn.Conv2d(previous, narrow, 3, padding=1, bias=False), nn.ReLU(inplace=True))
            inputs += narrow
        else:
            self.f = None
        resampling = nn.ConvTranspose2d if up else nn.Conv2d
        self.resample = resampling(inputs, middle, 3, stride=2, padding=1, bias=False)
        self.g = nn.Sequential(PooledBatchNorm2d(middle), nn.ReLU(inplace=True))
        self.h = _layer(nn.Conv2d(middle, outputs, 1, bias=False), nn.Sigmoid())

    def mask(self, before: Tensor, previous: Tensor | None, size: Sequence[int]) -> Tensor:
        """The mask ``[B, outputs, *size]``, in [0, 1]."""
        seen = before if self.f is None else torch.cat([before, self.f(previous)], 1)
        if isinstance(self.resample, nn.ConvTranspose2d):
            seen = self.resample(seen, output_size=list(size))
        else:
            seen = self.resample(seen)
        return self.h(self.g(seen))

    def forward(self, before: Tensor, after: Tensor, previous: Tensor | None) -> Tensor:
        """Attended features.

        Args:
            before: u, ``[B, inputs, h, w]``.
            after: p, ``[B, outputs, h', w']``.
            previous: â of the module before, at the size of ``before``.
        """
        return torch.addcmul(after, self.mask(before, previous, after.shape[-2:]), after)


class AttentionNetwork(nn.Module):
    """Attention modules on one block after another.

    Args:
        before: channels of each block before it changes the resolution.
        after: channels of each block.
        previous: channels of the attended features that the first module reads; 0: of none.
        up: the blocks double the resolution; otherwise they halve it.
        f_reduction: see :class:`AttentionModule`.
        g_reduction: see :class:`AttentionModule`.
    """

    def __init__(
        self,
        before: Sequence[int],
        after: Sequence[int],
        previous: int = 0,
        *,
        up: bool,
        f_reduction: int = 4,
        g_reduction: int = 2,
    ) -> None:
        super().__init__()
        sources = (previous, *after[:-1])
        self.blocks = nn.ModuleList(
            AttentionModule(u, source, p, up, f_reduction, g_reduction)
            for u, source, p in zip(before, sources, after, strict=True)
        )

    def forward(
        self, before: Sequence[Tensor], after: Sequence[Tensor], attended: Tensor | None = None
    ) -> Tensor:
        """Attended features of the last block; ``attended`` are those that the first module reads."""
        for block, u, p in zip(self.blocks, before, after, strict=True):
            attended = block(u, p, attended)
        return attended


def attention_networks(
    tasks: Iterable[str],
    before: Sequence[int],
    after: Sequence[int],
    previous: int = 0,
    *,
    up: bool,
    f_reduction: int,
    g_reduction: int,
) -> PerTask:
    """An attention network for each task; see :class:`AttentionNetwork`.

    Raises:
        UserError: a reduction is below 1.
    """
    if min(f_reduction, g_reduction) < 1:
        raise UserError(f"attention has f_reduction {f_reduction} and g_reduction {g_reduction}: give 1 or more")
    reductions = {"f_reduction": f_reduction, "g_reduction": g_reduction}
    return PerTask({task: AttentionNetwork(before, after, previous, up=up, **reductions) for task in tasks})


def _layer(convolution: nn.Conv2d, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, PooledBatchNorm2d(convolution.out_channels), activation)
