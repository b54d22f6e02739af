"""What a protocol is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from harness.registry import Registry
from pretrain.evaluation.features import Features
from pretrain.evaluation.labelled import Labelled

PROTOCOLS: Registry[type[Protocol]] = Registry("evaluation protocol", "pretrain.evaluation.protocols")


@dataclass
class Finding:
    """What a protocol found of one backbone.

    Args:
        metrics: by name; IoU, accuracy, average precision and F in percent.
        figures: pictures (PNG) with their captions.
        files: what else was written, with what it is for.
        remarks: what a reader of the numbers should know, a line each.
        tables: for the report: heading -> (names of columns, rows).
    """

    metrics: dict[str, float]
    figures: list[tuple[Path, str]] = field(default_factory=list)
    files: list[tuple[Path, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    tables: Mapping[str, tuple[tuple[str, ...], list[tuple[object, ...]]]] = field(default_factory=dict)


class Protocol(ABC):
    """One way to measure; the keyword parameters of a subclass's constructor are its options.

    Attributes:
        needs: kind of label that it needs (:data:`pretrain.evaluation.labelled.KINDS`); None: no labelled images.
        backbone: whether it looks at a backbone at all.
        columns: metrics that tables show, with their headings, most important first; all higher-is-better but for
            those in :attr:`descriptive`. A constructor may set it, where options decide what is measured.
        descriptive: metrics that have no better and worse.
    """

    needs: ClassVar[str | None] = None
    backbone: ClassVar[bool] = True
    columns: Mapping[str, str] = {}
    descriptive: ClassVar[frozenset[str]] = frozenset()

    def inputs(self) -> object:
        """What figures depend on beyond options, data and backbone, as plain data: what is in a file that an option
        names."""
        return None

    @abstractmethod
    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        """Measure one backbone.

        Args:
            features: of the backbone; None for a protocol without.
            data: the labelled images; None for a protocol that needs none.
            folder: exists; pictures and files go here, and a second measurement overwrites them.
            seed: of everything random.

        Raises:
            UserError: the data or the backbone do not allow it.
        """
