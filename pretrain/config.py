"""What a pretraining run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harness.config import Selection, selection, volatile
from harness.loop import LoopConfig
from harness.optimization import LR_SCHEDULES, OptimizerConfig
from harness.registry import Registry
from harness.seeding import default_workers
from pretrain.augmentation import AUGMENTATIONS
from pretrain.crops import MultiCrop
from pretrain.neighbors import NEIGHBORS
from pretrain.sources import SOURCES

CROPS: Registry[type] = Registry("crop transform")
CROPS.register("multi_crop")(MultiCrop)


@dataclass
class ModelConfig:
    """The encoder.

    Args:
        backbone: any timm model.
        backbone_options: options of that timm model, for example {channels: [32, 64, 128, 256]}.
        embedding: C, dimensions of the embedding that the losses compare.
        head_width: width of the head's hidden layer; the backbone's own width when 0.
        batch_norm_splits: parts of a process's batch that are normalised apart (1: none). With more
            than one, or with several processes, keys are shuffled among them (shuffle-BN).
    """

    backbone: str = "resnet50"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    embedding: int = 128
    head_width: int = 0
    batch_norm_splits: int = 1


@dataclass
class QueueConfig:
    """The queues of keys.

    Args:
        size: K, how many earlier keys are negatives.
        precision: of the stored vectors; half precision takes half the memory.
        fill: before the first step, fill the queues with keys of images instead of random vectors.
            Against random vectors the first steps are solved by giving all images one embedding; long
            runs recover from that, short ones do not.
    """

    size: int = 65536
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    fill: bool = False


@dataclass
class NeighborsConfig:
    """Nearest neighbours as positives.

    Args:
        k: neighbours of each view; 0 switches the loss off.
        weight: λ of their loss.
    """

    k: int = 20
    weight: float = 0.4


@dataclass
class ProbeConfig:
    """Weighted kNN accuracy on labelled scenes during the run (never trained on).

    Args:
        every: epochs between two measurements; 0 switches it off.
        images: labelled scenes that vote, and as many are classified.
        k: neighbours that vote.
    """

    every: int = 0
    images: int = 256
    k: int = 20


@dataclass
class PretrainConfig:
    """Pretrain a backbone on unlabelled images: MoCo with multi-crop, AutoAugment mix and neighbours.

    Args:
        name: name of the run; its folder is outputs/NAME.
        output: folder of the run, instead of outputs/NAME.
        resume: auto continues the run in its folder; never refuses a used folder; a path starts from
            that checkpoint.
        plugin: Python files that register something of yours.
        model: the encoder.
        momentum: m of the key encoder's moving average.
        temperature: τ of both losses.
        queue: the queues of keys.
        optimizer: the optimiser.
        epochs: passes over the images.
        batch_size: images in a step, over all processes.
        accumulation: parts into which a process cuts its batch; gradients add up to those of the whole.
        drop_last: leave out the last partial batch of an epoch.
        seed: of everything random.
        mixed_precision: bf16 or fp16 (GPU).
        channels_last: memory layout of images and weights; often faster.
        compile: compile both encoders with torch.compile.
        threads: CPU threads of each process; 0 shares the cores out.
        workers: data-loading processes of each process; by default four, or as many as there are cores.
        prefetch: batches that each worker keeps ready.
        probe: kNN accuracy on scenes.
        loop: when to log and save.
        max_unreadable: share of unreadable images at which the run stops.
    """

    name: str | None = volatile(None)
    output: str | None = volatile(None)
    resume: str = volatile("auto")
    plugin: list[str] = volatile(default_factory=list)
    data: Selection = selection(SOURCES, "scenes", help="where the images come from")
    model: ModelConfig = field(default_factory=ModelConfig)
    crops: Selection = selection(CROPS, "multi_crop", help="how views are cut")
    augmentation: Selection = selection(AUGMENTATIONS, "mix", help="photometric augmentation of views")
    momentum: float = 0.995
    temperature: float = 0.2
    queue: QueueConfig = field(default_factory=QueueConfig)
    neighbors: Selection = selection(NEIGHBORS, "torch", common=NeighborsConfig, help="how neighbours are searched")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: Selection = selection(LR_SCHEDULES, "cosine", help="learning rate, per epoch")
    epochs: int = 200
    batch_size: int = 256
    accumulation: int = 1
    drop_last: bool = True
    seed: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    compile: bool = False
    threads: int = 0
    workers: int = volatile(default_factory=default_workers)
    prefetch: int = volatile(2)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    max_unreadable: float = volatile(0.1)
