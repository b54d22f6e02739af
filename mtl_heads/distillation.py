"""Multi-modal distillation by spatial attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mtl_heads.blocks import PerTask


class SpatialAttention(nn.Module):
    """What one task takes of another's features: ``sigmoid(W F) * F``, or ``sigmoid(W F) * (W' F)``.

    Args:
        channels: of the task features.
        transform: the second form, where what is attended to is convolved as well.
    """

    def __init__(self, channels: int, transform: bool) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.Sigmoid())
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False) if transform else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, h, w]`` of the one task from ``[B, C, h, w]`` of the other."""
        return self.attention(features) * self.conv(features)


class SpatialAttentionDistillation(nn.Module):
    """Each task's features plus what it takes of all others' (thesis, equations 3.2 and 5.1).

    Args:
        targets: tasks whose features are refined.
        sources: tasks whose features are read, the targets and auxiliary ones.
        channels: of the task features.
        transform: equation 5.1, with a convolution of the attended features; else equation 3.2.
    """

    def __init__(
        self, targets: Iterable[str], sources: Iterable[str], channels: int, *, transform: bool
    ) -> None:
        super().__init__()
        sources = tuple(sources)
        self.self_attention = PerTask(
            {
                target: PerTask(
                    {source: SpatialAttention(channels, transform) for source in sources if source != target}
                )
                for target in targets
            }
        )

    def forward(self, features: Mapping[str, Tensor], targets: Iterable[str]) -> dict[str, Tensor]:
        """Distilled features ``[B, C, h, w]`` of the targets.

        Args:
            features: of all sources, ``[B, C, h, w]``.
            targets: whose features to refine.
        """
        distilled: dict[str, Tensor] = {}
        for target in targets:
            attentions = self.self_attention[target]
            total = features[target]
            for source in attentions.tasks:
                total = total + attentions[source](features[source])
            distilled[target] = total
        return distilled

    def vandenhende_prefixes(self, theirs: str, ours: str) -> dict[str, str]:
        """Prefixes of state-dict keys in files of the original code base, and ours in their place.

        Args:
            theirs: what stands before their names of this module's parameters.
            ours: what stands before ours.
        """
        key = PerTask.key
        return {
            f"{theirs}self_attention.{target}.{source}.": f"{ours}self_attention.{key(target)}.{key(source)}."
            for target in self.self_attention.tasks
            for source in self.self_attention[target].tasks
        }
