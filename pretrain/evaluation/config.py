"""What an evaluation is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.config import Selection, selection, selections
from pretrain.evaluation.base import PROTOCOLS
from pretrain.evaluation.features import FeatureConfig
from pretrain.evaluation.labelled import LABELLED


@dataclass
class EvaluationConfig:
    """Measure what frozen backbones know, several side by side.

    Args:
        checkpoint: files or runs of any kind that pretrain.checkpoints knows; 'random:' and a timm name or a checkpoint
            is the same architecture with random weights.
        labels: what tables call them, in the same order; made from their names when none.
        architecture: timm name, for checkpoints that do not say theirs.
        tasks: the protocols to measure by.
        data: labelled images.
        features: features of whole images.
        output: folder of the results; measurements that are in it already are not made again.
        plugin: Python files that register something of yours.
        seed: of everything random.
        device: auto takes a GPU where there is one.
        threads: CPU threads; 0 takes all cores.
        workers: processes that read images.
    """

    checkpoint: list[str] | str = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    architecture: str | None = None
    tasks: dict[str, Selection] = selections(PROTOCOLS, ["knn"])
    data: Selection = selection(LABELLED, "scenes", help="labelled images")
    features: FeatureConfig = field(default_factory=FeatureConfig)
    output: str = "outputs/evaluation"
    plugin: list[str] = field(default_factory=list)
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    workers: int = 0
