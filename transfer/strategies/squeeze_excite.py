"""Squeeze-excitation by task."""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import UserError
from mtl_heads.blocks import PerTask
from mtl_heads.model import MultiTaskModel
from mtl_heads.squeeze_excitation import SqueezeExcitation
from transfer.strategies.filter_partition import FilterPartition
from transfer.strategies.registry import PARTITIONS


@PARTITIONS.register("squeeze_excite")
def squeeze_excite(model: nn.Module, *, seed: int, reduction: int = 16, bias: float = 3.0) -> nn.Module:
    """Every task scales the filters of each shared layer by gates of its own.

    See :class:`SqueezeExcite`.

    Args:
        reduction: filters for each hidden unit of a gate.
        bias: of the gates at first, before their sigmoid: 3 hardly changes what pretrained layers give; 0
            halves it.

    Raises:
        UserError: an option is out of bounds, or the network has no convolutional encoder that all tasks share.
    """
    return SqueezeExcite(model, reduction, bias).into(model)


class SqueezeExcite(FilterPartition):
    """A partition with values between 0 and 1: each task has a squeeze-excitation on every shared layer.

    With z_t the means of the layer's maps, m_t = sigmoid(W₂ ReLU(W₁ z_t)) scales these maps (Hu et al., 2018);
    W₁ and W₂ belong to the layer and the task. This is what Maninis et al., "Attentive single-tasking of
    multiple tasks", 2019, have of partitioning, as in Pascal (2021), section 3.4.2 (SE-MTL).

    Attributes:
        gates: for each layer, one for each task.
    """

    def __init__(self, model: MultiTaskModel, reduction: int = 16, bias: float = 3.0) -> None:
        if reduction < 1:
            raise UserError(f"partition.reduction is {reduction}: give a positive number")
        super().__init__(model)
        self.gates = nn.ModuleList(
            PerTask({task: SqueezeExcitation(layer.filters, reduction) for task in self.tasks}) for layer in self.layers
        )
        for part in self.gates.modules():
            if isinstance(part, SqueezeExcitation):
                nn.init.constant_(part.squeeze[-2].bias, bias)

    def modulate(self, layer: int, features: Tensor) -> Tensor:
        gate = self.gates[layer][self.task]
        if self.layers[layer].channels_last:
            return gate(features.movedim(-1, 1)).movedim(1, -1)
        return gate(features)
