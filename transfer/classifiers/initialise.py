"""Heads that begin as combinations of the rows of a pretrained classifier."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from harness.config import Selection
from harness.errors import UserError
from harness.files import write_text
from harness.world import sum_over_processes
from mtl_heads.encoder import Encoder
from mtl_heads.heads.linear import Linear
from transfer.classifiers.base import Classes
from transfer.classifiers.choice import classified
from transfer.classifiers.combination import Neighbors, combine, nearest
from transfer.classifiers.names import source_names
from transfer.data.loading import Evaluated, evaluation_batches

if TYPE_CHECKING:
    from transfer.config import TransferConfig
    from transfer.engine import Transfer

FILE = "classifiers.json"
_OF_PYRAMIDS = ("feature_cls", "feature_location", "out_indices", "output_stride")  # whole networks have none of these


def of_single_task(config: TransferConfig, task: str) -> Selection:
    """The choice for one task's own network: that of the run where it concerns this task."""
    from transfer.config import TransferConfig

    chosen = config.classifier
    if chosen.name == "none":
        return chosen
    kinds = config.data.build().choose([task])
    if task in classified(dataclasses.replace(config, tasks=[task]), kinds):
        return dataclasses.replace(chosen, common=dataclasses.replace(chosen.common, tasks=None))
    return TransferConfig().classifier


def table_digests(config: TransferConfig) -> dict[str, str]:
    """Digests of the files that similarities are read from: their content counts, not the path."""
    from pretrain.checkpoints import content_digest

    if config.classifier.name == "none":
        return {}
    named = config.classifier.common.source_names
    files = [*config.classifier.build().files, *([named] if named else [])]
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"classifier.name is '{config.classifier.name}', and there is no file {file}: give the "
                            "path of its table")
    return {str(file): content_digest(file) for file in files}


def begin_classifiers(transfer: Transfer, folder: str | Path) -> None:
    """Set the heads as the configuration says, and write what they are made of into a run's folder.

    Raises:
        UserError: the weights have no classifier, or a head does not read what it reads.
    """
    config, model = transfer.config, transfer.model
    tasks = classified(config, transfer.tasks)
    if not tasks:
        return
    source = load_source(config, model.example_shape).to(transfer.world.device)
    layer = source.get_classifier()
    names, ids = source_names(config.classifier.common.source_names, layer.out_features)
    similarity, neighbors, told = config.classifier.build(), config.classifier.common.neighbors, {}
    for task in tasks:
        target = head_of(model, task)
        check_head(model, target, layer, task)
        classes = Classes(source, names, ids, transfer.tasks[task].classes,
                          lambda task=task: batches(transfer, task), sum_over_processes)
        chosen = nearest(similarity.similarities(classes), neighbors)
        begin(target, layer, chosen)
        told[task] = describe(chosen, transfer.tasks[task].classes, names)
        without = [name for name, made_of in told[task].items() if not made_of]
        said = f"; random weights for those without a similar one: {', '.join(without)}" if without else ""
        transfer.world.print(f"the head of {task} begins from {layer.out_features} classes by "
                             f"{config.classifier.name}, K = {neighbors} ({Path(folder) / FILE}){said}")
    if transfer.world.is_main_process:
        write_text(Path(folder) / FILE, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def load_source(config: TransferConfig, shape: Sequence[int]) -> nn.Module:
    """The pretrained network with its classifier, in evaluation mode.

    Args:
        config: names the weights.
        shape: of an image that the backbone takes, ``[1, C, H, W]``.

    Raises:
        UserError: the weights have none, or it is not a linear layer on the mean of the last feature map.
    """
    from pretrain import CheckpointError, load_backbone

    model, name = config.model.common, config.classifier.name
    options = {key: value for key, value in model.backbone_options.items() if key not in _OF_PYRAMIDS}
    try:
        source = load_backbone(model.weights, model.backbone, keep_classifier=True, min_matched=model.min_matched,
                               **options)
    except CheckpointError as error:
        raise UserError(f"classifier.name is '{name}', and the classes of model.weights cannot be had: {error} "
                        "(--classifier.name none)") from error
    source.eval()
    layer, read = source.get_classifier(), []
    if isinstance(layer, nn.Linear):
        hook = layer.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            images = torch.rand(2, *shape[1:])
            source(images)
            features = source.forward_features(images)
        hook.remove()
        if features.dim() == 4 and _same(features.mean((2, 3)), read[0]):
            return source
    raise UserError(f"classifier.name is '{name}', and the classifier of '{source.pretrained_cfg['architecture']}' is "
                    "not a linear layer on the mean of its last feature map, as heads of image tasks are: choose a "
                    "backbone such as a ResNet, or --classifier.name none")


def head_of(model: nn.Module, task: str) -> nn.Linear:
    """The last linear layer of a task's head.

    Raises:
        UserError: it has none.
    """
    own = {id(value) for value in model.task_parameters(task)}
    heads = [part for part in model.modules() if isinstance(part, Linear) and part.image
             and id(part.classifier.weight) in own]
    if not heads:
        raise UserError(f"the head of task '{task}' in {type(model).__name__} is not linear, so it cannot begin from a "
                        "classifier: set --classifier.name none")
    return heads[-1].classifier


@torch.no_grad()
def check_head(model: nn.Module, target: nn.Linear, layer: nn.Linear, task: str) -> None:
    """Refuse a head that does not read the mean of the backbone's last feature map, as the classifier does.

    Raises:
        UserError: it reads something else.
    """
    read, last = [], []
    encoders = [part for part in model.modules() if isinstance(part, Encoder)]
    hooks = [part.backbone.register_forward_hook(lambda _, __, output: last.append(list(output)[-1]))
             for part in encoders]
    hooks.append(target.register_forward_hook(lambda _, inputs, __: read.append(inputs[0])))
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            images = torch.rand(2, *model.example_shape[1:]).to(target.weight.device)
        model(images, [task])
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    fits = any(maps.dim() == 4 and _same(maps.mean((2, 3)), read[-1]) for maps in last)
    if not fits or target.in_features != layer.in_features:
        raise UserError(f"the head of task '{task}' does not read the mean of the backbone's last feature map, on "
                        "which the classes of model.weights stand: set --model.neck none, another --model.name, or "
                        "--classifier.name none")


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item())


@torch.no_grad()
def begin(target: nn.Linear, layer: nn.Linear, chosen: Neighbors) -> None:
    """Rows of the target's weight and bias from those of a classifier; a class without similar ones keeps its own."""
    has = (chosen.coefficients.sum(1) > 0).to(target.weight.device)
    target.weight[has] = combine(layer.weight.detach(), chosen).to(target.weight)[has]
    if target.bias is not None:
        source = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        target.bias[has] = combine(source.to(layer.weight.device), chosen).to(target.bias)[has]


def describe(chosen: Neighbors, targets: Sequence[str], names: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    """What each class is made of: ``{class: [[source class, coefficient], …]}``."""
    return {name: [(names[j] if names else str(j), round(value, 6)) for j, value in
                   zip(row.tolist(), coefficients.tolist(), strict=True) if value > 0]
            for name, row, coefficients in zip(targets, chosen.indices, chosen.coefficients, strict=True)}


def batches(transfer: Transfer, task: str) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of the training images, as evaluation shows them to the network, and their labels."""
    config, world = transfer.config, transfer.world
    samples = Evaluated(transfer.train_split, config.evaluation.size)
    mine = Subset(samples, range(world.process_index, len(samples), world.num_processes))
    for batch in evaluation_batches(mine, {task: transfer.tasks[task]}, config):
        yield (transfer.network.normalise(batch["image"].to(world.device)),
               batch["targets"][task].to(world.device))
