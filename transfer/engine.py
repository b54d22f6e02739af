"""Training a multi-task network, and evaluating it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from harness.checkpoint import load_file
from harness.errors import UserError, closest
from harness.loop import train
from harness.progress import progress
from harness.run import Run
from harness.sampling import Batches
from harness.seeding import derive_seed, seed_everything
from harness.world import broadcast, main_first, sum_over_processes
from mtl_heads.output import Output
from transfer.classifiers.choice import check_classifiers
from transfer.config import TransferConfig
from transfer.data.base import DataSet, unlabelled
from transfer.data.loading import Augmented, Evaluated, evaluation_batches, loader_options
from transfer.data.other_split import NumberedBatches
from transfer.gradients.objective import RunObjective
from transfer.gradients.passes import Part
from transfer.network import Network, build_network
from transfer.phases import Phases
from transfer.prediction.views import Views
from transfer.strategies import with_options
from transfer.strategies.base import Balance, BalanceConfig, LossBalance, Schedule, Training
from transfer.strategies.groups import task_groups
from transfer.strategies.registry import SCHEDULES
from transfer.tasks.base import Task
from transfer.transforms import as_size

FORMAT = "tasklift-transfer/1"


class Transfer:
    """One run: network, optimiser, strategy and data, and where in the run they are.

    Args:
        config: what to do.
        world: accelerate's view of the processes.

    Attributes:
        step: optimiser steps done.
        seconds: time spent training, over all resumptions.
        losses: of the last step by task, summed over the processes when they are logged.
        best: best validation score so far.
        trouble: what was first wrong with the gradients; empty while nothing is.
        others: batches of splits that the schedule learns from besides that of training.
    """

    def __init__(self, config: TransferConfig, world: Accelerator) -> None:
        self.config, self.world = config, world
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.trouble = ""
        self.others: list[NumberedBatches] = []
        self.first: dict[str, float] = {}
        self.data: DataSet = config.data.build()
        _check_evaluation(config, self.data)
        self.tasks = tasks_of(config, self.data)
        check_classifiers(config, self.tasks)
        names = list(self.tasks)
        self.train_split = main_first(world, lambda: self.data.split("train"))
        seed_everything(config.seed, "weights")
        self.network = build_network(config, self.tasks).to(world.device)
        model = self.network.model
        self.phases = Phases(model, config)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        if world.num_processes > 1:
            for value in model.unreached_parameters():  # the data-parallel wrapper would wait for them
                value.requires_grad_(False)
        if config.compile:
            model.compile()
        units = task_groups(names, config.schedule.common.groups, config.seed)
        self.balance = balance_of(config, list(units))
        if isinstance(self.balance, LossBalance):
            self.balance.to(world.device)  # rules on gradients think on the CPU
        groups = _groups_of(model, config.model.name)
        learned = list(self.balance.parameters())
        if learned:
            groups.append({"params": learned, "weight_decay": 0.0})
        self.optimizer = world.prepare(config.optimizer.build(groups))
        self.partition = getattr(model, "partition", None)
        together = SCHEDULES.get(config.schedule.name).joint and isinstance(self.balance, LossBalance)
        wraps = world.num_processes > 1 and together and self.partition is None
        self.wrapped = world.prepare(model) if wraps else model
        self.objective = RunObjective(self, self.balance, units, self.tasks, sum_over_processes,
                                      world.num_processes, config.seed)
        sizes = getattr(self.train_split, "sizes", {})
        self.training = Training(
            model, names, self.balance, self.objective, self.optimizer,
            lambda groups: world.prepare(config.optimizer.build(groups)),
            {name: sizes.get(name, len(self.train_split)) for name in names}, config.seed, units,
            config.schedule.common.track_distance, {name: task.family for name, task in self.tasks.items()},
            self.tasks, self.batches_of, sum_over_processes)
        self.schedule: Schedule = config.schedule.build(self.training)
        self.objective.check(config.accumulation * getattr(self.balance, "draws", 1))
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.schedule.optimizers]
        self.units = units
        self.batches = Batches(self.train_split.samples_per_epoch, config.batch_size, self.phases.epochs,
                               seed=config.seed, rank=world.process_index, world=world.num_processes,
                               order=self.train_split.order)
        self.lr_factor = config.lr_schedule.build()

    def remarks(self) -> list[str]:
        """What is known of the run's data before hours of training: tasks without any label."""
        config = self.config
        tested = main_first(self.world, lambda: self.data.split(config.evaluation.split))
        found = [unlabelled(self.train_split, "train", self.tasks),
                 unlabelled(tested, config.evaluation.split, config.tasks)]
        return [remark for remark in found if remark]

    @property
    def model(self) -> torch.nn.Module:
        """The network, without wrappers."""
        return self.network.model

    # -- one step ---------------------------------------------------------------------------------

    def train_step(self, batch: dict[str, Any]) -> None:
        """One step of the schedule on a collated batch (see :mod:`transfer.data.loading`)."""
        config, device = self.config, self.world.device
        seed_everything(config.seed, "step", self.step, self.world.process_index)  # dropout and the like
        trained, done = self.phases.enter(self.step // self.batches.steps_per_epoch)
        factor = self.lr_factor(done)
        for optimizer, rates in zip(self.schedule.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        parts = self._parts(batch, trained)
        if len(self.phases) > 1:
            self.training.tasks = trained
        self.objective.number = self.step
        self.losses = self.schedule.step(parts)
        self.objective.end_of_batch()
        if self.balance.looks_again and self.losses:
            self.objective.look_again(parts)
        self.loss = torch.stack([torch.zeros((), device=device), *self.losses.values()]).sum()
        self.step += 1
        if self.objective.trouble and self.world.scaler is None:  # a scaler skips such a step
            self.trouble = self.trouble or f"{self.objective.trouble} in step {self.step}"
            self.loss = self.loss * torch.nan
        if self.partition is not None:
            self.partition.after_step(self.step, self.batches.steps_per_epoch)

    def _parts(self, batch: dict[str, Any], trained: Sequence[str]) -> list[Part]:
        """A collated batch on the device, cut for gradient accumulation."""
        device = self.world.device
        images = batch["image"].to(device, non_blocking=True)
        targets = {name: value.to(device, non_blocking=True) for name, value in batch["targets"].items()
                   if name in trained}
        normalizers = self._normalizers(targets)
        pieces = min(self.config.accumulation * getattr(self.balance, "draws", 1), len(images))
        cut = {name: value.tensor_split(pieces) for name, value in targets.items()}
        share = 1 / (pieces * self.world.num_processes)
        return [Part(part, {name: cut[name][i] for name in cut}, normalizers, share, i == pieces - 1)
                for i, part in enumerate(images.tensor_split(pieces))]

    def batches_of(self, split: str) -> Callable[[int], list[Part]]:
        """Batches of another split by number, for a schedule that learns from two; made as those of training.

        Raises:
            UserError: there is no such split, or the run is evaluated on it.
        """
        config, world = self.config, self.world
        _check_other_split(config, self.data, split)
        samples, seed = main_first(world, lambda: self.data.split(split)), derive_seed(config.seed, split)
        batches = Batches(len(samples), config.batch_size, self.phases.epochs, seed=seed, rank=world.process_index,
                          world=world.num_processes)
        longest = self.train_split.samples_per_epoch // config.batch_size + 1  # steps of an epoch of training
        batches.epochs = -(-self.phases.epochs * longest // batches.steps_per_epoch)
        numbered = NumberedBatches(Augmented(samples, self.tasks, config.augmentation.build(), seed), batches,
                                   lambda: self._loading(persistent=False))
        self.others.append(numbered)
        return lambda number: self._parts(numbered(number), list(self.tasks))

    def _normalizers(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Counts of labels in the whole batch, over all processes, in one exchange.

        With these, the losses of parts and processes add up to the loss of the batch, whatever share
        of the labels each of them has.
        """
        counts = [self.tasks[name].normalizer(target).flatten() for name, target in targets.items()]
        if self.world.num_processes == 1:
            return dict(zip(targets, counts, strict=True))
        sizes = [len(count) for count in counts]
        pooled = sum_over_processes(torch.cat([count.double() for count in counts])).split(sizes)
        return {name: value.to(count.dtype) for name, value, count in zip(targets, pooled, counts, strict=True)}

    # -- what the objective is lent (see transfer.gradients.passes.Passes) -------------------------

    def images(self, part: Part) -> Tensor:
        """What the network takes."""
        images = self.network.normalise(part.images)
        return images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images

    def losses_of(self, output: Output, part: Part, names: Sequence[str]) -> dict[str, Tensor]:
        """Losses of tasks; those of all parts and processes add up to the batch's."""
        losses = {name: sum(self.tasks[name].loss(prediction, part.targets[name], part.normalizers[name])
                            for prediction in output.of(name)) for name in names}
        extra = self.model.penalty(names, losses)
        return {name: loss + extra[name] * part.share if name in extra else loss for name, loss in losses.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, where the run has it."""
        return self.world.autocast()

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients in the last part of a batch; forward and backward must both know."""
        return nullcontext() if last or self.wrapped is self.model else self.world.no_sync(self.wrapped)

    def scale(self) -> Tensor | None:
        """What losses are multiplied by in float16."""
        scaler = self.world.scaler
        return None if scaler is None else scaler.scale(torch.ones((), device=self.world.device))

    def log_values(self) -> dict[str, Any]:
        """Losses of the last step over the whole batch, and what its strategy tells."""
        found: dict[str, Any] = {}
        if self.losses:
            pooled = sum_over_processes(torch.stack(list(self.losses.values())))
            found = {f"loss_{name}": value for name, value in zip(self.losses, pooled.tolist(), strict=True)}
            units = self.objective.by_unit(dict(zip(self.losses, pooled, strict=True)))
            found = {"loss": float(self.objective.objective_value(units)), **found, **self.objective.log_values(units)}
        told = self.partition.log_values() if self.partition is not None else {}
        first, *others = self.schedule.optimizers[0].param_groups
        rates = {"lr": first["lr"], **{f"lr_{group['name']}": group["lr"] for group in others if "name" in group}}
        return {"loss": 0.0, **found, **self.schedule.log_values(), **told, **rates}

    # -- the loop ---------------------------------------------------------------------------------

    def train(self, run: Run, description: str = "transfer") -> int:
        """Train from ``self.step`` to the end; see :func:`harness.loop.train`."""
        config = self.config
        loader = DataLoader(Augmented(self.train_split, self.tasks, config.augmentation.build(), config.seed),
                            batch_sampler=self.batches, **self._loading(persistent=True))
        self.model.train()
        try:
            return train(self, loader, run, self.world, config.loop, description)
        finally:
            for source in self.others:
                source.close()

    def end_of_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """Validation, where it is due: its metrics, and whether they are the best so far."""
        self.objective.end_of_epoch()
        every = self.config.evaluation.every
        if not every or (epoch % every and epoch != self.batches.epochs):
            return {}, False
        metrics = self.evaluate("val")
        score = self._score(metrics)
        best = score > self.best
        self.best = max(self.best, score)
        return {"val": metrics, "score": score}, best

    def _score(self, metrics: dict[str, dict[str, float]]) -> float:
        """Mean over the tasks of the log ratio of the primary metric to its first value: free of units.

        A task without a value (no label of it in the split) is left out.
        """
        primary = {name: metrics[name][self.tasks[name].primary] for name in self.config.tasks}
        primary = {name: value for name, value in primary.items() if math.isfinite(value)}
        first = self.first = {**primary, **self.first}
        tiny = 1e-6
        gains = [(1 if self.tasks[name].higher_is_better else -1)
                 * math.log(max(value, tiny) / max(first[name], tiny)) for name, value in primary.items()]
        return math.fsum(gains) / len(gains) if gains else -math.inf

    @torch.no_grad()
    def evaluate(self, split: str, bar: bool = False) -> dict[str, dict[str, float]]:
        """Metrics of the main tasks, pooled over a split at the labels' own resolution.

        Every process sees its share of the samples, each exactly once; the sums are pooled. All take the
        batch statistics of the main process, which are those that are saved.
        """
        broadcast(self.model.buffers())
        world, tasks = self.world, {name: self.tasks[name] for name in self.config.tasks}
        samples = Evaluated(self.data.split(split), self.config.evaluation.size)
        mine = Subset(samples, range(world.process_index, len(samples), world.num_processes))
        loader = evaluation_batches(mine, tasks, self.config, pin=world.device.type == "cuda")
        metrics = {name: task.metric().to(world.device) for name, task in tasks.items()}
        model = Views(self.model, tasks, self.config.evaluation.flip, self.config.evaluation.scales)
        training = self.model.training
        self.model.eval()
        for batch in progress_over(loader, len(samples), world, f"evaluate {split}", bar):
            with world.autocast():
                output = model(self.network.normalise(batch["image"].to(world.device)), list(tasks))
            for name, task in tasks.items():
                target = batch["targets"][name]
                target = target.to(world.device) if isinstance(target, Tensor) else [t.to(world.device) for t in target]
                task.update(metrics[name], output.predictions[name], target)
        self.model.train(training)
        return {name: {key: float(value) for key, value in metric.compute().items()}
                for name, metric in metrics.items()}

    def _loading(self, persistent: bool) -> dict[str, Any]:
        pin = self.world.device.type == "cuda"
        return loader_options(self.tasks, self.config, persistent=persistent, pin=pin)

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain data."""
        state = {"format": FORMAT, "step": self.step, "seconds": self.seconds, "best": self.best, "first": self.first,
                 "data": self.data.fingerprint(), "model": self.model.state_dict(),
                 "balance": self.balance.state_dict(), "objective": self.objective.state_dict(),
                 "schedule": self.schedule.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.world.scaler is not None:
            state["scaler"] = self.world.scaler.state_dict()
        return state

    def load_state_dict(self, path: Any) -> None:
        """Continue from a checkpoint file.

        Raises:
            UserError: the file is not such a checkpoint, or does not fit.
        """
        state = load_file(path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise UserError(f"checkpoint {path} is not one of a transfer run ({FORMAT}): use --resume never, or give "
                            "the right file")
        if state["data"] != self.data.fingerprint():
            raise UserError(f"checkpoint {path} was trained on other data ({state['data']}) than data.name now gives "
                            f"({self.data.fingerprint()}): restore the folder, or start another --name")
        try:
            self.model.load_state_dict(state["model"])
            self.balance.load_state_dict(state["balance"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            learned = {id(value) for value in self.balance.parameters()}
            for optimizer in (self.optimizer, *self.schedule.optimizers):
                self.config.optimizer.apply_to(optimizer)  # a new run may go on with another recipe
                for group in optimizer.param_groups:
                    if any(id(value) in learned for value in group["params"]):
                        group["weight_decay"] = 0.0
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"checkpoint {path} does not fit this configuration: {reason}") from error
        if self.world.scaler is not None and "scaler" in state:
            self.world.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.first = state["best"], dict(state["first"])


def check(config: TransferConfig) -> None:
    """Build every part once, so that a mistake is found before the single-task networks are trained.

    Raises:
        UserError: the mistake.
    """
    data = config.data.build()
    _check_evaluation(config, data)
    tasks = tasks_of(config, data)
    network = build_network(config, tasks)
    check_classifiers(config, tasks)
    config.augmentation.build()
    config.lr_schedule.build()
    config.optimizer.build(_groups_of(network.model, config.model.name))
    Phases(network.model, config)
    _check_strategy(config, data, tasks, network)


def _check_strategy(config: TransferConfig, data: DataSet, tasks: dict[str, Task], network: Network) -> None:
    """Put the parts of the strategy together, as the run will, for what they refuse of one another.

    Raises:
        UserError: they do not go together, or with the network.
    """
    model, names = network.model, list(tasks)
    units = task_groups(names, config.schedule.common.groups, config.seed)
    balance = balance_of(config, list(units))
    passes = SimpleNamespace(model=model, wrapped=model)  # nothing passes through them
    objective = RunObjective(passes, balance, units, tasks, lambda value: value, 1, config.seed)

    def batches_of(split: str) -> Callable[[int], list[Part]]:
        _check_other_split(config, data, split)
        return lambda number: []

    config.schedule.build(Training(
        model, names, balance, objective, config.optimizer.build(_groups_of(model, config.model.name)),
        config.optimizer.build, dict.fromkeys(names, 1), config.seed, units,
        families={name: task.family for name, task in tasks.items()}, kinds=tasks, batches_of=batches_of))
    objective.check(config.accumulation * getattr(balance, "draws", 1))


def _check_other_split(config: TransferConfig, data: DataSet, split: str) -> None:
    """Refuse a split that a schedule cannot learn from."""
    name = config.schedule.name
    if split not in data.splits:
        raise UserError(f"schedule '{name}' learns from split '{split}', and data set '{config.data.name}' has "
                        f"{', '.join(data.splits)}: hold samples out for it (--data.val_count, where the data set has "
                        "that), or let the schedule take the training samples")
    if split == config.evaluation.split:
        raise UserError(f"schedule '{name}' learns from split '{split}', and evaluation.split is the same: evaluate "
                        "on another split")


def tasks_of(config: TransferConfig, data: DataSet) -> dict[str, Task]:
    """The tasks of a run by name: main ones, auxiliary ones, and those that its schedule adds.

    Raises:
        UserError: a task that the data set has not or that is main and auxiliary, or options that do not fit.
    """
    both = [name for name in config.tasks if name in config.auxiliary]
    if both:
        raise UserError(f"task '{both[0]}' is in --tasks and in --auxiliary: name it in one of them")
    tasks = data.choose([*config.tasks, *config.auxiliary], config.task_options)
    schedule = SCHEDULES.get(config.schedule.name)
    return tasks | schedule.added_tasks(tasks, data.labels, config.schedule.options)


def balance_of(config: TransferConfig, units: Sequence[str]) -> Balance:
    """The balance that is configured, for tasks or groups of them.

    Raises:
        UserError: options that do not fit it.
    """
    return with_options(config.balance.build(units), config.balance.common or BalanceConfig())


def _groups_of(model: Any, name: str) -> list[dict[str, Any]]:
    """The architecture's parameter groups.

    Raises:
        UserError: they leave a trainable parameter out, or have one twice.
    """
    groups = model.parameter_groups()
    given = [id(value) for group in groups for value in group["params"]]
    trainable = [id(value) for value in model.parameters() if value.requires_grad]
    if sorted(given) != sorted(trainable):
        raise UserError(f"architecture '{name}': parameter_groups() has {len(given)} parameters, {len(set(given))} of "
                        f"them different, and {len(trainable)} are trainable: each must be in one group")
    return groups


def _check_evaluation(config: TransferConfig, data: DataSet) -> None:
    """Refuse before training what would only be found after it."""
    split = config.evaluation.split
    if split not in data.splits:
        raise UserError(f"evaluation.split: the data set has no split '{split}'{closest(split, data.splits)}: it has "
                        f"{', '.join(data.splits)}")
    if config.evaluation.every and "val" not in data.splits:
        raise UserError("evaluation.every: the data set has no split 'val' to validate on: set it to 0")
    if config.evaluation.select == "best" and not config.evaluation.every:
        raise UserError("evaluation.select is best, and nothing is validated: set --evaluation.every to the epochs "
                        "between two validations")
    as_size(config.evaluation.size, "evaluation")


def progress_over(loader: Iterable[dict[str, Any]], images: int, world: Accelerator, description: str,
                  enabled: bool) -> Any:
    """Iterate over a loader with a progress bar that counts images over all processes."""
    with progress(images, description=description, enabled=enabled and world.is_main_process, leave=False) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch["ids"]) * world.num_processes)

