"""The pretraining loop: from bytes to an optimiser step, logged, saved and resumable."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from harness.checkpoint import load_file
from harness.errors import UserError
from harness.interrupts import quiet_worker
from harness.loop import train
from harness.progress import progress
from harness.run import Run
from harness.sampling import Batches
from harness.seeding import derive_seed, note_workers, seed_everything
from harness.world import SharedFlag, main_first
from pretrain.backbones import create_backbone, try_size, unreached_parameters
from pretrain.config import PretrainConfig
from pretrain.health import effective_rank
from pretrain.losses import ContrastiveTerms, contrastive_terms
from pretrain.moco import Encoder, MoCo, join_parts, own_rows, rank_
from pretrain.probe import Probe
from pretrain.queues import Queues
from pretrain.sources.base import Source
from pretrain.views import Views, collate

FORMAT = "tasklift-pretrain/1"
FEW = 500
"""Before so many images have been seen, the share of unreadable ones says little."""


class Pretraining:
    """One run: model, optimiser and data, and where in the run they are.

    Args:
        config: what to do.
        world: accelerate's view of the processes.
        source: the images; made from ``config.data`` when none.

    Attributes:
        step: optimiser steps done.
        seconds: time spent training, over all resumptions.
        unreadable: reasons by image, for those that could not be read; those that other processes met
            come in when something is logged or saved.
    """

    def __init__(self, config: PretrainConfig, world: Accelerator, source: Source | None = None) -> None:
        self.config, self.world = config, world
        self.step, self.seconds = 0, 0.0
        self.unreadable: dict[str, str] = {}
        self.flag = SharedFlag()
        self.source = main_first(world, config.data.build) if source is None else source
        self._compare_sources()
        seed_everything(config.seed, "weights")
        self.moco = build_moco(config)
        if config.channels_last:
            self.moco = self.moco.to(memory_format=torch.channels_last)
        self.optimizer = config.optimizer.build(self.moco.query.parameters())
        self.moco.to(world.device)
        if world.num_processes > 1:
            self._freeze_unreached()
        self.augmentation = config.augmentation.build().to(world.device)
        self.search = config.neighbors.build() if self.neighbors else None
        labels = self.source.labels() if self.neighbors else None
        self.labels = None if labels is None else torch.as_tensor(labels).to(world.device)
        self.encode_queries, self.optimizer = world.prepare(self._compiled(self.moco.query), self.optimizer)
        self.crops = config.crops.build()
        self.batches = Batches(self.source.samples_per_epoch, config.batch_size, config.epochs, seed=config.seed,
                               rank=world.process_index, world=world.num_processes, drop_last=config.drop_last,
                               order=self.source.order)
        self.lr_factor = config.lr_schedule.build()
        self.probe = None
        with self.flag.together():
            if config.probe.every:
                try_size(self.moco.key.backbone, config.model.backbone, Probe.size,
                         "its scenes are of that size, so set --probe.every to 0, or change --model.backbone_options")
                if world.is_main_process:
                    self.probe = Probe(config.probe, world.device, self.augmentation.convention)

    @property
    def neighbors(self) -> int:
        """k, or 0 when the neighbour loss is off."""
        return self.config.neighbors.common.k if self.config.neighbors.common.weight else 0

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to."""
        return self.step // self.batches.steps_per_epoch

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The input convention of the weights, in timm's terms."""
        size = self.crops.global_size
        return {**self.augmentation.convention, "input_size": (3, size, size)}

    # -- one step ---------------------------------------------------------------------------------

    def train_step(self, batch: dict[str, Any]) -> None:
        """Algorithm 3 for one batch of uint8 views; see :mod:`pretrain.views` for its keys."""
        config, moco, device = self.config, self.moco, self.world.device
        self._note_unreadable(batch)
        self._set_learning_rate()
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "augment", self.step, rank_()))
        seed_everything(config.seed, "step", self.step, rank_())
        moco.update_key()
        rows, written, queries, values = len(batch["index"]), [], [], 0
        indices = torch.arange(rows).tensor_split(min(config.accumulation, rows))
        for number, part in enumerate(indices):
            last = number == len(indices) - 1
            chunk = slice(int(part[0]), int(part[-1]) + 1)
            shared = batch["global"][chunk].to(device, non_blocking=True)
            local = batch["local"][chunk].to(device, non_blocking=True)
            key_images = self._augment(shared[:, 1:], generator, key=True)[:, 0]
            views = [self._augment(shared[:, :1], generator)]
            if local.shape[1]:
                views.append(self._augment(local, generator))
            with self.world.autocast():
                everyones = moco.encode_keys(key_images, self.step * len(indices) + number)
            with nullcontext() if last else self.world.no_sync(self.encode_queries):
                query, query_features = self.encode_queries(views)
                terms = contrastive_terms(
                    query, own_rows(everyones[0]), moco.queues.head, query_features, moco.queues.backbone,
                    temperature=config.temperature, neighbors=self.neighbors, search=self.search,
                )
                loss = terms.instance_loss + config.neighbors.common.weight * terms.neighbor_loss
                self.world.backward(loss * (len(part) / rows))
            written.append(everyones)
            queries.append(query.detach())
            now = torch.stack([loss, terms.instance_loss, terms.neighbor_loss, terms.top1, terms.top5])
            values = values + now.detach() * (len(part) / rows)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.query, self.loss = torch.cat(queries), values[0]
        self.features = query_features  # of the last part of the batch
        self.values = dict(zip(("loss", "instance_loss", "neighbor_loss", "top1", "top5"), values, strict=True))
        # Only now: what was just written must not be among the negatives or neighbours of this batch.
        keys, features = (join_parts(parts) for parts in zip(*written, strict=True))
        # Of the last part of the batch, when it is cut into several.
        self.shared_neighbors = self._shared_neighbors(terms, batch["index"][indices[-1]])
        moco.enqueue(keys, features, batch["index"].to(device, non_blocking=True))
        self.step += 1

    def _augment(self, images: Tensor, generator: torch.Generator, key: bool = False) -> Tensor:
        augmented = self.augmentation(images.flatten(0, 1), key=key, generator=generator)
        if self.config.channels_last:
            augmented = augmented.contiguous(memory_format=torch.channels_last)
        return augmented.unflatten(0, images.shape[:2])

    def _shared_neighbors(self, terms: ContrastiveTerms, index: Tensor) -> dict[str, Tensor]:
        """Share of neighbours that come from the view's own image, and from its class where known."""
        last = self.step + 1 == self.batches.epochs * self.batches.steps_per_epoch
        if terms.neighbors is None or (self.step + 1) % self.config.loop.log_steps and not last:
            return {}
        found = self.moco.queues.index[terms.neighbors]
        own = index.to(found.device, non_blocking=True)[:, None, None]
        share = {"neighbors_same_image": (found == own).float().mean()}
        if self.labels is not None:
            known = (found >= 0) & (own >= 0)  # slots not filled yet, and images that could not be read, have none
            same = known & (self.labels[found.clamp(min=0)] == self.labels[own.clamp(min=0)])
            share["neighbors_same_class"] = same.float().mean()
        return share

    # -- the loop ---------------------------------------------------------------------------------

    def train(self, run: Run) -> int:
        """Train from ``self.step`` to the end; see :func:`harness.loop.train`.

        Raises:
            UserError: the loss is not finite, or too many images cannot be read.
        """
        config = self.config
        note_workers(config.workers)
        parallel = {"prefetch_factor": config.prefetch, "persistent_workers": True} if config.workers else {}
        loading = {"collate_fn": collate, "num_workers": config.workers,
                   "worker_init_fn": quiet_worker if config.workers else None,
                   "pin_memory": self.world.device.type == "cuda", **parallel}
        views = Views(self.source, self.crops, config.seed)
        self.moco.train()
        if config.queue.fill and self.step == 0:
            self._fill_queues(DataLoader(views, batch_sampler=self._filling(), **loading))
        loader = DataLoader(views, batch_sampler=self.batches, **loading)
        return train(self, loader, run, self.world, config.loop, "pretrain", before_save=self._judge_unreadable)

    def _filling(self) -> list[list[tuple[int, int]]]:
        """Batches whose keys fill the queues once; all of them full."""
        config, world = self.config, self.world

        def sampler(epochs: int) -> Batches:
            return Batches(self.source.samples_per_epoch, config.batch_size, epochs,
                           seed=derive_seed(config.seed, "fill"), rank=world.process_index,
                           world=world.num_processes, drop_last=True, order=self.source.order)

        batches = -(-config.queue.size // config.batch_size)
        return list(islice(sampler(-(-batches // sampler(1).steps_per_epoch)), batches))

    def _fill_queues(self, loader: DataLoader) -> None:
        with progress(len(loader) * self.config.batch_size, description="fill the queues",
                      enabled=self.world.is_main_process, leave=False) as bar:
            for number, batch in enumerate(loader):
                self._note_unreadable(batch)
                self._fill_from(batch, number)
                bar.update(self.config.batch_size)
        self._judge_unreadable()

    def _fill_from(self, batch: dict[str, Any], number: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "fill", number, rank_()))
        images = self._augment(batch["global"][:, 1:].to(self.world.device), generator, key=True)[:, 0]
        with self.world.autocast():
            keys, features = self.moco.encode_keys(images, -1 - number)
        self.moco.enqueue(keys, features, batch["index"].to(self.world.device))

    def end_of_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        """The probe's accuracy, where one is due."""
        if self.probe is None or (epoch % self.probe.every and epoch != self.config.epochs):
            return {}, False  # on the other processes as well: the line is the main one's, and so is the work
        return {"knn_accuracy": self.probe.accuracy(self.moco.key.backbone)}, False

    def _compare_sources(self) -> None:
        """Tell what is wrong with the images, and refuse processes that see other ones."""
        with self.flag.together():
            for remark in self.source.remarks() if self.world.is_main_process else ():
                print(f"note: {remark}", file=sys.stderr)
        found = self.flag.gather(self.source.fingerprint())
        if len(set(found)) > 1:
            other = next(rank for rank, one in enumerate(found) if one != found[0])
            raise UserError(f"process 0 and process {other} see different images ({found[0]} and {found[other]}): give "
                            "every machine the same --data")

    def _set_learning_rate(self) -> None:
        """Per epoch, as the published recipe."""
        rate = self.config.optimizer.lr * self.lr_factor(self.epoch / self.config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _freeze_unreached(self) -> None:
        """The data-parallel wrapper would wait for gradients of parameters that no loss reaches."""
        size = self.config.crops.build().global_size
        images = torch.zeros(2, 1, 3, size, size, device=self.world.device)
        for value in unreached_parameters(self.moco.query, [images]):
            value.requires_grad_(False)

    def _note_unreadable(self, batch: dict[str, Any]) -> None:
        for entry in batch["unreadable"]:
            name, _, reason = entry.partition(": ")
            if name not in self.unreadable:
                self.unreadable[name] = reason
                print(f"skipped an unreadable image: {entry}", file=sys.stderr)

    def _judge_unreadable(self) -> None:
        """Pool what the processes could not read, and stop all of them when it is too much."""
        if not self.flag.largest(len(self.unreadable)):
            return
        self.unreadable = {name: why for part in self.flag.gather(self.unreadable) for name, why in part.items()}
        size, config = len(self.source), self.config
        filled = -(-config.queue.size // config.batch_size) * config.batch_size if config.queue.fill else 0
        seen = min(size, filled + self.batches.images_before(self.step))
        bad = len(self.unreadable)
        if bad > max(3, config.max_unreadable * max(seen, min(size, FEW))):
            name, reason = next(iter(self.unreadable.items()))
            raise UserError(f"{bad} of the {seen} images seen cannot be read, the first being {name} ({reason}): mend "
                            "the folder, or raise --max_unreadable")

    def log_values(self) -> dict[str, float]:
        """Losses and the health of the run, averaged over the processes."""
        self._judge_unreadable()
        queues = self.moco.queues
        spread = self.query.flatten(0, 1).std(0).mean() * self.query.shape[-1] ** 0.5
        values = {**self.values, "embedding_std": spread,
                  "feature_rank": effective_rank(self.features.flatten(0, 1)), **self.shared_neighbors,
                  "queue_age": queues.age(), "queue_filled": queues.filled()}
        stacked = torch.stack([value.detach().float().to(self.world.device) for value in values.values()])
        means = self.world.reduce(stacked, "mean").tolist()
        return {**dict(zip(values, means, strict=True)), "lr": self.optimizer.param_groups[0]["lr"]}

    def _compiled(self, module: nn.Module) -> nn.Module:
        if not self.config.compile:
            return module
        self.moco.key.compile()
        module.compile()  # in place: the module, its parameters and its names stay the same
        return module

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain data."""
        moco = self.moco
        state = {
            "format": FORMAT, "step": self.step, "seconds": self.seconds, "unreadable": self.unreadable,
            "source": self.source.fingerprint(), "backbone": self.config.model.backbone,
            "backbone_options": self.config.model.backbone_options, "pretrained_cfg": self.pretrained_cfg,
            "query": moco.query.state_dict(), "key": moco.key.state_dict(), "queues": moco.queues.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.world.scaler is not None:
            state["scaler"] = self.world.scaler.state_dict()
        return state

    def load_state_dict(self, path: Any) -> None:
        """Continue from a checkpoint file.

        Raises:
            UserError: the file is not such a checkpoint, or the images have changed since.
        """
        state = load_file(path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise UserError(f"checkpoint {path} is not one of a pretraining run ({FORMAT}): use --resume never, or "
                            "give the right file")
        if state["source"] != self.source.fingerprint():
            raise UserError(f"checkpoint {path} was trained on other images ({state['source']}) than data.name now "
                            f"gives ({self.source.fingerprint()}): restore the folder, or start another --name")
        try:
            self.moco.query.load_state_dict(state["query"])
            self.moco.key.load_state_dict(state["key"])
            self.moco.queues.load_state_dict(state["queues"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.config.optimizer.apply_to(self.optimizer)  # a new run may go on with another recipe
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"checkpoint {path} does not fit this configuration: {reason}") from error
        if self.world.scaler is not None and "scaler" in state:
            self.world.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.unreadable = state["step"], state["seconds"], dict(state["unreadable"])


def build_moco(config: PretrainConfig) -> MoCo:
    """The model of a configuration, from random weights.

    Raises:
        UserError: timm has no such backbone, or it refuses its options or the sizes of the views.
    """
    model, queue, crops = config.model, config.queue, config.crops.build()
    sizes = {crops.global_size, *([crops.local_size] if crops.local_crops else [])}
    backbone = create_backbone(model.backbone, model.backbone_options, sorted(sizes))
    encoder = Encoder(backbone, model.embedding, model.head_width, model.batch_norm_splits)
    neighbors = config.neighbors.common
    width = encoder.width if neighbors.k and neighbors.weight else None
    queues = Queues(queue.size, model.embedding, width, getattr(torch, queue.precision), seed=config.seed)
    return MoCo(encoder, queues, momentum=config.momentum, seed=config.seed)
