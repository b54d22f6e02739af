"""What a transfer run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harness.config import Selection, selection, volatile
from harness.loop import LoopConfig
from harness.optimization import LR_SCHEDULES, OptimizerConfig
from harness.registry import Registry
from harness.seeding import default_workers
from mtl_heads.registry import ARCHITECTURES
from transfer.classifiers.base import SIMILARITIES, ClassifierConfig
from transfer.data.base import DATASETS
from transfer.strategies.base import BalanceConfig
from transfer.strategies.groups import ScheduleConfig
from transfer.strategies.registry import BALANCES, PARTITIONS, SCHEDULES
from transfer.transforms import Augmentation

AUGMENTATIONS: Registry[type] = Registry("geometric augmentation")
AUGMENTATIONS.register("geometric")(Augmentation)


@dataclass
class ModelConfig:
    """The network.

    Args:
        backbone: any timm model; what the weights say when none is given, resnet18 without weights.
        backbone_options: options of that timm model.
        weights: checkpoint file, folder or name of a pretraining run; random weights when none.
        min_matched: least share of the backbone's tensors that the weights must have.
        from_single_task: where architectures with a network per task (cross_stitch, nddr) start from: auto
            trains (once, cached) or reuses the single-task networks; none leaves it at the backbone's weights;
            otherwise folders of single-task runs.
    """

    backbone: str | None = None
    backbone_options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = volatile(None)  # the content counts, not the path: see transfer.single_run
    min_matched: float = 1.0
    from_single_task: list[str] | str = volatile("auto")  # as weights


@dataclass
class EvaluationConfig:
    """Evaluation.

    Args:
        split: whose figures are the run's results.
        every: epochs between two evaluations on the validation split; 0: none before the end.
        select: last takes the weights of the last epoch; best those of the best validation score.
        size: side, or height and width, of the images that the network sees; their own when none.
        batch_size: images at once, in each process.
        flip: average over the mirrored images too.
        scales: average over enlargements of the images; 1 is the image itself.
        panels: images of the split that the report shows.
    """

    split: str = "test"
    every: int = 0
    select: Literal["last", "best"] = "last"
    size: int | list[int] | None = None
    batch_size: int = 16
    flip: bool = False
    scales: list[float] = field(default_factory=lambda: [1.0])
    panels: int = volatile(6)


@dataclass
class TransferConfig:
    """Fine-tune a multi-task network and compare it with one network per task.

    Args:
        name: name of the run; its folder is outputs/NAME.
        output: folder of the run, instead of outputs/NAME.
        resume: auto continues the run in its folder; never refuses a used folder; a path starts from
            that checkpoint.
        plugin: Python files that register something of yours.
        tasks: names of the data set's tasks to learn.
        auxiliary: tasks that are trained only to help the others, where the architecture uses them.
        task_options: options of tasks, by name, for example {normals: {loss: cosine}}.
        baseline: auto trains (once, cached) or reuses the single-task networks that Δ_MTL is measured
            against; none leaves Δ_MTL out; otherwise folders of single-task runs, separated by commas.
        baseline_head: head of those that auto trains; by default the network's own, or where its architecture has no
            choice of head (pad_net, mti_net, unet, ...) the one that it is published against.
        optimizer: the optimiser.
        epochs: passes over the training split; for each task, where the architecture trains them in turn.
        batch_size: images in a step, over all processes.
        accumulation: parts into which a process cuts its batch; gradients add up to those of the whole.
        seed: of everything random.
        mixed_precision: bf16 or fp16 (GPU).
        channels_last: memory layout of images and weights; often faster.
        compile: compile the network with torch.compile.
        threads: CPU threads of each process; 0 shares the cores out.
        workers: data-loading processes of each process; by default four, or as many as there are cores.
        prefetch: batches that each worker keeps ready.
        evaluation: what is evaluated, and when.
        loop: when to log and save.
    """

    name: str | None = volatile(None)
    output: str | None = volatile(None)
    resume: str = volatile("auto")
    plugin: list[str] = volatile(default_factory=list)
    data: Selection = selection(DATASETS, "scenes", help="labelled data set")
    tasks: list[str] = field(default_factory=lambda: ["semseg", "depth", "normals"])
    auxiliary: list[str] = field(default_factory=list)
    task_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: Selection = selection(ARCHITECTURES, "baseline", common=ModelConfig, help="where features are shared")
    balance: Selection = selection(BALANCES, "equal", common=BalanceConfig,
                                   help="how losses or gradients are combined")
    schedule: Selection = selection(SCHEDULES, "shared", common=ScheduleConfig,
                                    help="whose step is taken when")
    partition: Selection = selection(PARTITIONS, "full", help="which parameters a task may use")
    classifier: Selection = selection(SIMILARITIES, "none", common=ClassifierConfig,
                                      help="how heads that classify images begin: from the classes of the weights' own "
                                           "classifier, by which similarity")
    baseline: str = volatile("auto")
    baseline_head: str | None = volatile(None)
    augmentation: Selection = selection(AUGMENTATIONS, "geometric", help="augmentation of training samples")
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", 1e-4))
    lr_schedule: Selection = selection(LR_SCHEDULES, "poly", help="learning rate, per epoch")
    epochs: int = 100
    batch_size: int = 8
    accumulation: int = 1
    seed: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    compile: bool = False
    threads: int = 0
    workers: int = volatile(default_factory=default_workers)
    prefetch: int = volatile(2)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
