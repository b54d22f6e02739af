"""The network that makes up auxiliary labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_heads.encoder import Encoder
from mtl_heads.heads.linear import Linear
from transfer.auxiliary.masked_softmax import masked_softmax


class LabelGenerator(nn.Module):
    """g_θ₂(x, y, ψ): an encoder, a linear layer, and a softmax among the subclasses of y (Liu 2018, section 3.2).

    Args:
        encoder: from images to features.
        counts: ψ, the number of subclasses of each class.
    """

    def __init__(self, encoder: Encoder, counts: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = Linear(encoder.pyramid, sum(counts), image=True)
        self.register_buffer("counts", torch.tensor(list(counts)), persistent=False)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Soft labels ``[B, Σψ]``.

        Args:
            images: ``[B, C, H, W]``, normalised as for the main network.
            labels: primary classes ``[B]``; negative where unknown.
        """
        return masked_softmax(self.head(self.encoder(images)), labels, self.counts)


def build_generator(model: nn.Module, counts: Sequence[int], backbone: str | None = None) -> LabelGenerator:
    """A generator for a main network.

    Args:
        model: the main network.
        counts: ψ.
        backbone: timm name of the generator's own; by default its encoder is a copy of the main network's, with the
            weights that this has now.

    Raises:
        UserError: timm has no such backbone.
    """
    main = next(part for part in model.modules() if isinstance(part, Encoder))
    channels = main.example_shape[1]
    options = {} if channels == 3 else {"in_chans": channels}
    encoder = copy.deepcopy(main) if backbone is None else Encoder(backbone, backbone_options=options)
    for value in encoder.parameters():
        value.requires_grad_(True)
    device = next(model.parameters()).device
    return LabelGenerator(encoder, counts).to(device).train()
