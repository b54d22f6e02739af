"""Labels carried from frame to frame along the similarity of features (Jabri et al., 2020, section 3 and appendix)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_TILES = range(4, 25)


@dataclass
class _Frame:
    """A frame that labels come from: features by tile ``[rows, columns, places, C]``, labels ``[all places, L]``."""

    features: Tensor
    labels: Tensor


class Propagation:
    """Each place of a frame takes the labels of the places before it that look most like it.

    Of all places within the radius in the last frames and the first, the most similar ones count, weighted by
    exp(cosine / τ) to the sum of 1. The grid of places is cut into square tiles. A tile is compared with the tiles
    around it only, one row of tiles and one frame at a time: memory grows with the width of the grid, not with the
    square of its places.

    Args:
        features: of the first frame, ``[C, h, w]``.
        labels: of the first frame, ``[L, h, w]``: how much of each place belongs to each label.
        top: how many of the most similar places count.
        context: how many of the last frames they are searched in, beside the first.
        radius: how far from a place they may be, in places (Euclidean, the end included).
        temperature: τ.
        first_anywhere: the radius does not hold in the first frame.
        tile: side of a tile, in places; the one that takes the least time when none. It has no effect on the result.
    """

    def __init__(self, features: Tensor, labels: Tensor, *, top: int = 10, context: int = 20, radius: int = 12,
                 temperature: float = 0.05, first_anywhere: bool = False, tile: int | None = None) -> None:
        self.top, self.temperature, self.first_anywhere = top, temperature, first_anywhere
        self.height, self.width = features.shape[1:]
        self.side = tile or min(_TILES, key=lambda side: _cost(self.height, self.width, radius, side))
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)
        reach = -(-radius // self.side)
        below, beside = min(reach, self.rows - 1), min(reach, self.columns - 1)
        self.shifts = [(down, right) for down in range(-below, below + 1) for right in range(-beside, beside + 1)]
        device = features.device
        real = self._cut(torch.ones(1, self.height, self.width, device=device)).squeeze(3) > 0
        self._real = real.flatten().nonzero().squeeze(1)
        self._far = self._beyond(radius, device)
        self._outside = self._neighbours(~real, True)
        self._window = self._neighbours(torch.arange(real.numel(), device=device).view(real.shape), 0)
        self.first = _Frame(self._cut(F.normalize(features, dim=0)), self._cut(labels).flatten(0, 2))
        self.recent = deque([self.first], maxlen=context)

    def step(self, features: Tensor) -> Tensor:
        """The labels of the next frame.

        Args:
            features: of the frame, ``[C, h, w]``.

        Returns:
            ``[L, h, w]``.
        """
        query = self._cut(F.normalize(features, dim=0))
        frames = [*self.recent] if any(frame is self.first for frame in self.recent) else [self.first, *self.recent]
        known = torch.stack([frame.labels for frame in frames]).flatten(0, 1)
        found = torch.stack([self._row(query[row], row, frames, known) for row in range(self.rows)])
        # [rows, columns, places, L] -> [L, rows · side, columns · side]
        grid = found.unflatten(2, (self.side, self.side)).permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
        labels = grid[:, : self.height, : self.width].contiguous()
        self.recent.append(_Frame(query, self._cut(labels).flatten(0, 2)))
        return labels

    def _row(self, query: Tensor, row: int, frames: list[_Frame], known: Tensor) -> Tensor:
        """Labels of a row of tiles ``[columns, places, L]`` from its features ``[columns, places, C]``."""
        hidden = self._far | self._outside[row, :, None]
        similarities, sources = [], []
        for number, frame in enumerate(frames):
            if self.first_anywhere and frame is self.first:
                similar = query @ frame.features.flatten(0, 2)[self._real].T
                window = self._real.expand(self.columns, -1)
            else:
                similar = self._compare(query, frame.features, row).masked_fill_(hidden, -torch.inf)
                window = self._window[row]
            best, which = similar.topk(min(self.top, similar.shape[2]), dim=2, sorted=False)
            similarities.append(best)
            place = window[:, None].expand(-1, which.shape[1], -1).gather(2, which)
            sources.append(place + number * len(frame.labels))
        similar, source = torch.cat(similarities, 2), torch.cat(sources, 2)
        best, which = similar.topk(min(self.top, similar.shape[2]), dim=2)
        weights = (best / self.temperature).softmax(2)
        return torch.einsum("xpk,xpkl->xpl", weights, known[source.gather(2, which)])

    def _compare(self, query: Tensor, keys: Tensor, row: int) -> Tensor:
        """Similarity of a row's places with those of the tiles around: ``[columns, places, neighbours · places]``."""
        count = self.side**2
        similar = query.new_zeros(self.columns, count, len(self.shifts), count)
        for number, (down, right) in enumerate(self.shifts):
            start, stop = max(0, -right), min(self.columns, self.columns - right)
            if 0 <= row + down < self.rows:
                beside = keys[row + down, start + right : stop + right]
                similar[start:stop, :, number] = torch.bmm(query[start:stop], beside.transpose(1, 2))
        return similar.flatten(2)

    def _neighbours(self, tiles: Tensor, outside: float) -> Tensor:
        """What the tiles around each tile hold.

        Args:
            tiles: what tiles hold, ``[rows, columns, places]``.
            outside: what those beyond the grid do.

        Returns:
            ``[rows, columns, neighbours · places]``.
        """
        below, beside = self.shifts[-1]
        padded = F.pad(tiles, (0, 0, beside, beside, below, below), value=outside)
        return torch.stack([padded[below + down :, beside + right :][: self.rows, : self.columns]
                            for down, right in self.shifts], 2).flatten(2)

    def _beyond(self, radius: int, device: torch.device) -> Tensor:
        """Which places around are farther than the radius from a tile's: ``[places, neighbours · places]``."""
        inside = torch.arange(self.side, device=device)
        place = torch.cartesian_prod(inside, inside)
        other = (torch.tensor(self.shifts, device=device)[:, None] * self.side + place).flatten(0, 1)
        return (place[:, None] - other).square().sum(2) > radius**2

    def _cut(self, maps: Tensor) -> Tensor:
        """``[C, h, w]`` by tile: ``[rows, columns, places, C]``, zero beyond the grid."""
        right, bottom = self.columns * self.side - self.width, self.rows * self.side - self.height
        tiles = F.pad(maps, (0, right, 0, bottom)).unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))
        return tiles.permute(1, 3, 2, 4, 0).flatten(2, 3).contiguous()


def _cost(height: int, width: int, radius: int, side: int) -> float:
    """About how long comparing two frames takes with tiles of a side: products, which are slower when small."""
    rows, columns = -(-height // side), -(-width // side)
    span = 2 * -(-radius // side) + 1
    return rows * columns * min(span, rows) * min(span, columns) * side**4 * (1 + 12 / side)
