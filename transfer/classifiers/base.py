"""What a similarity of classes is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from harness.registry import Registry

SIMILARITIES: Registry[type[Similarity]] = Registry("similarity of classes", "transfer.classifiers")


@dataclass
class ClassifierConfig:
    """Options of every similarity.

    Args:
        neighbors: K, how many source classes a target class is made of.
        tasks: tasks whose heads begin so; all that classify images when none.
        source_names: text file with the name of a source class in each line; those of ImageNet-1k when none, where
            the classifier has 1000 classes.
    """

    neighbors: int = 1
    tasks: list[str] | None = None
    source_names: str | None = None


@dataclass
class Classes:
    """Source classes and target classes, and what there is to compare them by.

    Attributes:
        source: the pretrained network with its classifier, from normalised images to logits ``[B, M]``, in
            evaluation mode.
        source_names: of its classes; empty where unknown. Synonyms are separated by commas.
        source_ids: their WordNet ids (n01440764); empty where unknown.
        target_names: of the task's classes.
        batches: goes once through this process's share of the training images: normalised images ``[B, C, H, W]`` and
            labels ``[B]``, negative where unknown.
        pool: sums over the processes.
    """

    source: nn.Module
    source_names: Sequence[str]
    source_ids: Sequence[str]
    target_names: Sequence[str]
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    pool: Callable[[Tensor], Tensor]


class Similarity(ABC):
    """How similar target classes are to source classes; keyword parameters of its constructor are its options.

    Attributes:
        files: paths of what it reads, whose content results depend on.
    """

    files: Sequence[str] = ()

    @abstractmethod
    def similarities(self, classes: Classes) -> Tensor:
        """``[N, M]``, float64 on the CPU: of each target class to each source class; 0 or less is none.

        Raises:
            UserError: what it needs is not there.
        """
