"""What every kind of exported file has, and the registry of kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import nn

from harness.registry import Registry
from pretrain.formats.base import CheckpointError

EXPORTS: Registry[type[Export]] = Registry("export", "pretrain.exports")


class Export(ABC):
    """A kind of file that a backbone is written to.

    Attributes:
        suffixes: what its files end in.
    """

    suffixes: tuple[str, ...] = ()

    @abstractmethod
    def write(self, path: Path, model: nn.Module, source: str) -> str:
        """Write a file, atomically.

        Args:
            path: of the file.
            model: a timm model with ``pretrained_cfg`` as :func:`pretrain.load_backbone` leaves it.
            source: where the weights come from.

        Returns:
            What the user of the file has to know beside it; may be empty.
        """


def export_for(target: str | Path) -> Export:
    """The kind of file that a name stands for.

    Raises:
        CheckpointError: no kind has this ending.
    """
    kinds = {name: EXPORTS.get(name)() for name in EXPORTS.names()}
    for kind in kinds.values():
        if Path(target).suffix in kind.suffixes:
            return kind
    known = "; ".join(f"{' or '.join(kind.suffixes)} ({name})" for name, kind in kinds.items())
    raise CheckpointError(f"cannot export to {target}: name a file that ends in {known}")
