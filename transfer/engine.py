"""Training a multi-task network, and evaluating it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from harness.checkpoint import load_file
from harness.errors import UserError, closest
from harness.interrupts import quiet_worker
from harness.loop import train
from harness.progress import progress
from harness.run import Run
from harness.sampling import Batches
from harness.seeding import seed_everything
from harness.world import broadcast, main_first, sum_over_processes
from transfer.config import TransferConfig
from transfer.data.base import DataSet
from transfer.data.loading import Augmented, Evaluated, collate
from transfer.network import build_network
from transfer.phases import Phases
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
    """

    def __init__(self, config: TransferConfig, world: Accelerator) -> None:
        self.config, self.world = config, world
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.first: dict[str, float] = {}
        self.data: DataSet = config.data.build()
        _check_evaluation(config, self.data)
        names = [*config.tasks, *config.auxiliary]
        self.tasks = self.data.choose(names, config.task_options)
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
            if len(self.phases) > 1:  # nor must it wait for what another phase trains
                world.ddp_handler.find_unused_parameters = True
        if config.compile:
            model.compile()
        self.balance = config.balance.build(names).to(world.device)
        groups = _groups_of(model, config.model.name)
        learned = list(self.balance.parameters())
        if learned:
            groups.append({"params": learned, "weight_decay": 0.0})
        self.balance_groups = slice(len(groups) - bool(learned), len(groups))
        self.optimizer = config.optimizer.build(groups)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.forward, self.optimizer = world.prepare(model, self.optimizer)
        self.schedule = config.schedule.build(self._losses, self.balance, self._backward, self.optimizer,
                                              sum_over_processes)
        self.batches = Batches(len(self.train_split), config.batch_size, self.phases.epochs, seed=config.seed,
                               rank=world.process_index, world=world.num_processes)
        self.lr_factor = config.lr_schedule.build()

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
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        images = batch["image"].to(device, non_blocking=True)
        targets = {name: value.to(device, non_blocking=True) for name, value in batch["targets"].items()
                   if name in trained}
        normalizers = self._normalizers(targets)
        pieces = min(config.accumulation, len(images))
        self.share = 1 / (pieces * self.world.num_processes)  # of the batch, that a part of it counts for
        cut = {name: value.tensor_split(pieces) for name, value in targets.items()}
        parts = [(part, {name: cut[name][i] for name in cut}, normalizers, i == pieces - 1)
                 for i, part in enumerate(images.tensor_split(pieces))]
        self.losses = self.schedule.step(parts, list(targets))
        self.loss = torch.stack(list(self.losses.values())).sum()
        self.step += 1

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

    def _losses(self, part: tuple[Tensor, dict[str, Tensor], dict[str, Tensor], bool],
                names: list[str]) -> dict[str, Tensor]:
        images, targets, normalizers, last = part
        images = self.network.normalise(images)
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        # Every task is asked for unless a schedule takes them apart: None also has the auxiliary ones.
        with self._exchanging(last):
            output = self.forward(images, None if len(names) == len(self.tasks) else names)
        losses = {name: sum(self.tasks[name].loss(prediction, targets[name], normalizers[name])
                            for prediction in output.of(name)) for name in names}
        extra = self.model.penalty(names, losses)
        return {name: loss + extra[name] * self.share if name in extra else loss for name, loss in losses.items()}

    def _backward(self, total: Tensor, last: bool) -> None:
        with self._exchanging(last):
            # Processes average their gradients, and these losses are shares of a sum.
            self.world.backward(total * self.world.num_processes)

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients in the last part of a batch; forward and backward must both know."""
        return nullcontext() if last else self.world.no_sync(self.forward)

    def log_values(self) -> dict[str, Any]:
        """Losses of the last step over the whole batch."""
        pooled = sum_over_processes(torch.stack(list(self.losses.values())))
        losses = {f"loss_{name}": value for name, value in zip(self.losses, pooled.tolist(), strict=True)}
        with torch.no_grad():
            objective = self.balance.total(pooled)
        return {"loss": float(objective), **losses, "lr": self.optimizer.param_groups[0]["lr"]}

    # -- the loop ---------------------------------------------------------------------------------

    def train(self, run: Run, description: str = "transfer") -> int:
        """Train from ``self.step`` to the end; see :func:`harness.loop.train`."""
        config = self.config
        loader = DataLoader(Augmented(self.train_split, self.tasks, config.augmentation.build(), config.seed),
                            batch_sampler=self.batches, **self._loading(persistent=True))
        self.model.train()
        return train(self, loader, run, self.world, config.loop, description)

    def end_of_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """Validation, where it is due: its metrics, and whether they are the best so far."""
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
        loader = DataLoader(mine, batch_size=self.config.evaluation.batch_size, **self._loading(persistent=False))
        metrics = {name: task.metric().to(world.device) for name, task in tasks.items()}
        training = self.model.training
        self.model.eval()
        for batch in progress_over(loader, len(samples), world, f"evaluate {split}", bar):
            with world.autocast():
                output = self.model(self.network.normalise(batch["image"].to(world.device)), list(tasks))
            for name, task in tasks.items():
                target = batch["targets"][name]
                target = target.to(world.device) if isinstance(target, Tensor) else [t.to(world.device) for t in target]
                task.update(metrics[name], output.predictions[name], target)
        self.model.train(training)
        return {name: {key: float(value) for key, value in metric.compute().items()}
                for name, metric in metrics.items()}

    def _loading(self, persistent: bool) -> dict[str, Any]:
        config = self.config
        workers = config.workers
        parallel = {"prefetch_factor": config.prefetch, "persistent_workers": persistent} if workers else {}
        return {"collate_fn": partial(collate, tasks=self.tasks), "num_workers": workers,
                "worker_init_fn": quiet_worker if workers else None,
                "pin_memory": self.world.device.type == "cuda", **parallel}

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain data."""
        state = {"format": FORMAT, "step": self.step, "seconds": self.seconds, "best": self.best, "first": self.first,
                 "data": self.data.fingerprint(), "model": self.model.state_dict(),
                 "balance": self.balance.state_dict(), "optimizer": self.optimizer.state_dict()}
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
            self.optimizer.load_state_dict(state["optimizer"])
            self.config.optimizer.apply_to(self.optimizer)  # a new run may go on with another recipe
            for group in self.optimizer.param_groups[self.balance_groups]:
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
    names = [*config.tasks, *config.auxiliary]
    network = build_network(config, data.choose(names, config.task_options))
    config.balance.build(names)
    config.augmentation.build()
    config.lr_schedule.build()
    config.optimizer.build(_groups_of(network.model, config.model.name))
    Phases(network.model, config)


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


def progress_over(loader: DataLoader, images: int, world: Accelerator, description: str, enabled: bool) -> Any:
    """Iterate over a loader with a progress bar that counts images over all processes."""
    with progress(images, description=description, enabled=enabled and world.is_main_process, leave=False) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch["ids"]) * world.num_processes)

