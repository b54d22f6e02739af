"""The loop around every training step: progress, log, checkpoints, signals, the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from harness.config import volatile
from harness.errors import UserError
from harness.interrupts import Interrupts
from harness.progress import progress
from harness.run import Run
from harness.sampling import Batches
from harness.world import SharedFlag


@dataclass
class LoopConfig:
    """When to log and save.

    Args:
        log_steps: steps between two lines of metrics.jsonl.
        save_steps: steps between two checkpoints; 0: at the end of every epoch.
        save_minutes: also a checkpoint after so many minutes; 0: not by time.
        keep: checkpoints to keep.
        trackers: of accelerate, each used when it is installed (tensorboard, wandb, ...).
    """

    log_steps: int = volatile(10)
    save_steps: int = volatile(0)
    save_minutes: float = volatile(10.0)
    keep: int = volatile(1)
    trackers: list[str] = volatile(default_factory=lambda: ["tensorboard"])


class Trainee(Protocol):
    """What the loop trains.

    Attributes:
        step: optimiser steps done; :meth:`train_step` advances it.
        seconds: time spent training, over all resumptions.
        batches: which samples make up which step.
        loss: of the last step, a scalar on the device.
        optimizer: its parameters are what is trained.
    """

    step: int
    seconds: float
    batches: Batches
    loss: Tensor
    optimizer: torch.optim.Optimizer

    def train_step(self, batch: dict[str, Any]) -> None:
        """One optimiser step."""

    def log_values(self) -> dict[str, float]:
        """What the last step tells, the same on all processes; may wait for the device."""

    def end_of_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """After epoch number ``epoch``: a line for the log (or nothing), and whether this is the best so far."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain data."""


def train(trainee: Trainee, loader: Iterable[dict[str, Any]], run: Run, world: Accelerator, config: LoopConfig,
          description: str, before_save: Callable[[], None] | None = None) -> int:
    """Train from ``trainee.step`` to the end of its batches.

    Weights are saved after their step, and how good they are shows in the loss of the next. So nothing
    is saved whose norm is not finite, and the checkpoint before stays until the next loss is (see
    :class:`harness.checkpoint.CheckpointStore`).

    Args:
        trainee: what is trained.
        loader: of its batches.
        run: where to log and save.
        world: accelerate's view of the processes.
        config: when to log and save.
        description: stands before the progress bar.
        before_save: called on all processes before the main one saves.

    Returns:
        0 when done, or 128 + the signal that asked to stop; everything is saved then.

    Raises:
        UserError: the loss or the weights are not finite; the last good checkpoint stays.
    """
    batches = trainee.batches
    steps, total = batches.steps_per_epoch, batches.epochs * batches.steps_per_epoch
    if trainee.step >= total:
        if run.main:
            run.checkpoints.settle()
        return 0
    batches.start = trainee.step
    flag, health = SharedFlag(), _Health(trainee, world.device)
    trial = True  # whether last.pt is on trial; a run that was stopped may have left it so
    bar = progress(batches.epochs * batches.images_per_epoch, initial=batches.images_before(trainee.step),
                   description=description, enabled=run.main)
    clock = _Clock()
    with Interrupts() as interrupts, bar:
        data = iter(loader)
        while trainee.step < total:
            with clock.waiting():
                batch = next(data)
            before = batches.images_before(trainee.step)
            trainee.train_step(batch)
            step = trainee.step
            images = batches.images_before(step) - before
            health.see(trainee.loss)
            clock.images += images
            bar.update(images)
            end_of_epoch, last = step % steps == 0, step == total
            due = step % config.log_steps == 0 or last
            if due or end_of_epoch or trial:
                _check(health.loss(), flag, run, step, steps, trainee)
            if trial:
                if run.main:
                    run.checkpoints.settle()
                trial = False
            if due:
                values = {"step": step, "epoch": (step - 1) // steps, **trainee.log_values()}
                speed = clock.restart(world.device)
                with flag.together():
                    run.log({**values, "time": speed})
                if world.trackers:
                    world.log(flattened({**values, "time": speed}), step=step)
                bar.set_postfix_str(f"epoch {values['epoch'] + 1}/{batches.epochs}, loss {values['loss']:.3f}", False)
            best = False
            if end_of_epoch:
                with clock.paused():
                    line, best = trainee.end_of_epoch(step // steps)
                with flag.together():
                    if line:
                        run.log({"step": step, "epoch": step // steps - 1, **line})
            asked = flag.largest(interrupts.asked() or int(run.main and clock.minutes_due(config.save_minutes)))
            periodic = step % config.save_steps == 0 if config.save_steps else end_of_epoch
            if periodic or best or asked or last:
                _check(health.loss_and_weights(), flag, run, step, steps, trainee)
                if before_save is not None:
                    before_save()
                trainee.seconds += clock.lap()
                with flag.together():
                    if run.main:
                        run.checkpoints.save(trainee.state_dict(), best=best)
                trial = True
            if asked > 1:
                return 128 + asked
    if run.main:
        run.checkpoints.settle()  # no step is left to try it
    return 0


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A line of the log without dictionaries in it, as trackers take it: ``{"weights/depth": 1.0, …}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flattened(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


class _Health:
    """Whether all losses so far, and the weights, are finite; the device is asked only when something is due."""

    def __init__(self, trainee: Trainee, device: torch.device) -> None:
        self._trainee = trainee
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def see(self, loss: Tensor) -> None:
        """After every step."""
        self._finite &= torch.isfinite(loss)

    def loss(self) -> int:
        """0, or 1 if a loss was not finite."""
        return int(not self._finite.item())

    @torch.no_grad()
    def loss_and_weights(self) -> int:
        """0, or 1 if a loss was not finite, or 2 if the weights are not; one wait for the device for both."""
        weights = [value for group in self._trainee.optimizer.param_groups for value in group["params"]]
        norm = torch.stack([value.float() for value in torch._foreach_norm(weights)]).sum()
        losses, weights = torch.stack([self._finite, norm.isfinite().to(self._finite.device)]).tolist()
        return 0 if losses and weights else 1 if not losses else 2


def _check(found: int, flag: SharedFlag, run: Run, step: int, steps_per_epoch: int, trainee: Trainee) -> None:
    found = flag.largest(found)
    if not found:
        return
    if run.main:
        run.checkpoints.go_back()
    last = run.checkpoints.last
    what = "the loss is not finite any more by" if found == 1 else "the weights are not finite any more after"
    cure = "Lower --optimizer.lr, or set --mixed_precision to no or bf16, "
    cure += f"and go on from the last good checkpoint with --resume {last} --name NEW" if last.exists() else \
        "and start again with --name NEW"
    why = getattr(trainee, "trouble", "")
    why = f": {why}" if why else ""
    raise UserError(f"{what} step {step} (epoch {(step - 1) // steps_per_epoch}){why}. {cure}")


class _Clock:
    """Time since the last checkpoint, and throughput since the last line of the log."""

    def __init__(self) -> None:
        self.images = 0
        self._saved = self._lap = self._start = time.monotonic()
        self._waited = 0.0

    def waiting(self) -> _Span:
        def add(seconds: float) -> None:
            self._waited += seconds

        return _Span(add)

    def paused(self) -> _Span:
        """Evaluation is not training: leave it out of the throughput and of the training time."""

        def shift(seconds: float) -> None:
            self._start += seconds
            self._lap += seconds

        return _Span(shift)

    def restart(self, device: torch.device) -> dict[str, float]:
        elapsed = max(1e-9, time.monotonic() - self._start)
        speed = {"images_per_second": self.images / elapsed, "waiting_for_data": self._waited / elapsed}
        if device.type == "cuda":
            speed["gpu_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        self.images, self._waited, self._start = 0, 0.0, time.monotonic()
        return speed

    def minutes_due(self, minutes: float) -> bool:
        return bool(minutes) and time.monotonic() - self._saved >= 60 * minutes

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._lap, self._saved = now - self._lap, now, now
        return seconds


class _Span:
    """Calls back with the seconds spent inside."""

    def __init__(self, done: Any) -> None:
        self._done = done

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._done(time.monotonic() - self._entered)
