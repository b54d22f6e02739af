"""One training step of MoCo: what moves, what does not, and in which order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

import pretrain.engine
from harness.config import load
from harness.errors import UserError
from harness.world import start
from pretrain.backbones import create_backbone, unreached_parameters
from pretrain.config import PretrainConfig
from pretrain.engine import Pretraining
from pretrain.losses import contrastive_terms
from pretrain.moco import Encoder, MoCo
from pretrain.queues import Queues
from pretrain.sources import Source
from pretrain.views import Views, collate

TINY = ["--model.backbone", "resnet18", "--model.backbone_options", "{channels: [8, 8, 16, 16], stem_width: 8}",
        "--model.embedding", "16", "--crops.global_size", "32", "--crops.local_size", "16", "--crops.local_crops", "2",
        "--queue.size", "10", "--neighbors.k", "2", "--momentum", "0.9", "--optimizer.lr", "0.1", "--epochs", "2",
        "--batch_size", "4", "--workers", "0", "--threads", "1", "--augmentation.name", "none", "--probe.every", "0"]


class Noise(Source):
    """Random images in memory."""

    def __init__(self, count: int = 12, size: int = 40) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def open(self, number: int) -> np.ndarray:
        return self.images[number]

    def fingerprint(self) -> str:
        return f"noise-{len(self)}"


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def make(*options: str, source: Source | None = None) -> Pretraining:
    config = load(PretrainConfig, [*TINY, *options])
    world = start(mixed_precision=config.mixed_precision, threads=config.threads, cpu=True)
    pretraining = Pretraining(config, world, source or Noise())
    pretraining.moco.train()
    return pretraining


def batches(pretraining: Pretraining):
    views = Views(pretraining.source, pretraining.crops, pretraining.config.seed)
    for indices in pretraining.batches:
        yield collate([views[index] for index in indices])


def parameters(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().double().flatten() for value in module.parameters()])


# -- the key encoder --------------------------------------------------------------------------------


def test_key_encoder_is_the_closed_form_of_its_moving_average():
    pretraining = make()
    m, start_ = pretraining.config.momentum, parameters(pretraining.moco.query)
    history = []
    for batch in batches(pretraining):
        history.append(parameters(pretraining.moco.query))  # θ_q before each step
        pretraining.train_step(batch)
    n = len(history)
    assert n == 6 and (history[-1] - history[0]).abs().max() > 1e-2
    expected = m**n * start_ + sum((1 - m) * m ** (n - 1 - i) * weights for i, weights in enumerate(history))
    torch.testing.assert_close(parameters(pretraining.moco.key), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_at_its_ends(momentum):
    pretraining = make("--momentum", str(momentum))
    first = parameters(pretraining.moco.query)
    for batch in batches(pretraining):
        before = parameters(pretraining.moco.query)
        pretraining.train_step(batch)
    expected = before if momentum == 0 else first
    torch.testing.assert_close(parameters(pretraining.moco.key), expected, rtol=0, atol=1e-7)


def test_batch_statistics_of_the_key_encoder_are_its_own():
    pretraining = make()
    key = pretraining.moco.key
    for number, batch in enumerate(batches(pretraining), start=1):
        pretraining.moco.update_key()  # once more is no harm here: the copy below has the same weights
        reference = copy.deepcopy(key)
        pretraining.config.momentum = pretraining.moco.momentum = 1.0
        images = pretraining.augmentation(batch["global"][:, 1], key=True)
        reference([images[:, None]])
        pretraining.train_step(batch)
        for (name, mine), theirs in zip(key.named_buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, msg=name)
        counts = [dict(part.named_buffers())["backbone.bn1.num_batches_tracked"] for part in
                  (pretraining.moco.key, pretraining.moco.query)]
        assert [int(count) for count in counts] == [number, 2 * number]  # the query sees two resolutions
    means = [dict(part.named_buffers())["backbone.layer4.1.bn2.running_mean"] for part in
             (pretraining.moco.key, pretraining.moco.query)]
    assert not torch.allclose(*means)


def test_no_gradient_reaches_keys_or_queues(monkeypatch):
    pretraining = make()
    moco, seen = pretraining.moco, []

    def terms(query, key, queue, query_backbone, queue_backbone, **options):
        seen.append((query.requires_grad, key.requires_grad, queue.requires_grad, query_backbone.requires_grad,
                     queue_backbone.requires_grad))
        return contrastive_terms(query, key, queue, query_backbone, queue_backbone, **options)

    monkeypatch.setattr(pretrain.engine, "contrastive_terms", terms)
    gradients = {}
    for name, value in moco.query.named_parameters():
        value.register_hook(lambda gradient, name=name: gradients.update({name: float(gradient.abs().sum())}))
    pretraining.train_step(next(batches(pretraining)))
    assert seen == [(True, False, False, False, False)]
    assert set(gradients) == {name for name, _ in moco.query.named_parameters()}  # the whole query encoder learns
    assert gradients["backbone.conv1.weight"] > 0 and gradients["head.0.weight"] > 0
    assert all(value.grad is None and not value.requires_grad for value in moco.key.parameters())
    assert not any(buffer.requires_grad or buffer.grad_fn for buffer in moco.queues.buffers())
    trained = {id(value) for group in pretraining.optimizer.param_groups for value in group["params"]}
    assert trained == {id(value) for value in moco.query.parameters()}


def test_one_pass_for_each_resolution():
    pretraining, shapes = make(), {"query": [], "key": []}
    for name in shapes:
        getattr(pretraining.moco, name).backbone.register_forward_pre_hook(
            lambda _, inputs, name=name: shapes[name].append(tuple(inputs[0].shape)))
    pretraining.train_step(next(batches(pretraining)))
    assert shapes == {"query": [(4, 3, 32, 32), (8, 3, 16, 16)], "key": [(4, 3, 32, 32)]}


# -- neighbours and queues --------------------------------------------------------------------------

GROUPS = ["--model.backbone_options", "{channels: [32, 32, 64, 64], norm_layer: groupnorm, output_stride: 8}"]


def test_neighbours_are_mined_before_the_keys_are_written(monkeypatch):
    # Query and key see the same pixels through the same weights: had the keys been written first, every
    # view's nearest neighbour would be the slot of its own image.
    pretraining = make(*GROUPS, "--neighbors.k", "1", "--crops.local_crops", "0", "--loop.log_steps", "1")
    queues, found = pretraining.moco.queues, []

    def terms(*arguments, **options):
        found.append((contrastive_terms(*arguments, **options), arguments))
        return found[-1][0]

    monkeypatch.setattr(pretrain.engine, "contrastive_terms", terms)
    batch = next(batches(pretraining))
    batch["global"][:, 0] = batch["global"][:, 1]
    before = queues.backbone.clone()
    pretraining.train_step(batch)
    mined, (_, _, _, features, _) = found[0]
    expected = (features @ before.T).argmax(-1)
    assert torch.equal(mined.neighbors[..., 0], expected)
    own = (features @ queues.backbone.T).argmax(-1)
    assert own[:, 0].tolist() == [0, 1, 2, 3]  # the test has power: afterwards each finds itself
    assert not torch.equal(expected, own)
    assert pretraining.log_values()["neighbors_same_image"] == 0


def test_losses_are_against_the_queue_before_this_batch(monkeypatch):
    pretraining, queries, keys = make("--crops.local_crops", "1"), [], []
    moco = pretraining.moco

    def terms(query, key, *rest, **options):
        queries.append(query.detach())
        keys.append(key)
        return contrastive_terms(query, key, *rest, **options)

    monkeypatch.setattr(pretrain.engine, "contrastive_terms", terms)
    for batch in batches(pretraining):
        queue = moco.queues.head.clone()
        pretraining.train_step(batch)
        query, key, tau = queries[-1].double(), keys[-1].double(), pretraining.config.temperature
        logits = torch.cat([(query * key[:, None]).sum(-1, keepdim=True), query @ queue.double().T], -1) / tau
        expected = F.cross_entropy(logits.flatten(0, 1), torch.zeros(logits.shape[0] * 2, dtype=torch.int64))
        assert float(pretraining.values["instance_loss"]) == pytest.approx(float(expected), abs=1e-5)


def test_queues_stay_aligned_when_the_batch_does_not_divide_them(monkeypatch):
    pretraining = make("--epochs", "3")
    moco, record = pretraining.moco, []
    enqueue = moco.enqueue

    def recorded(keys, features, index):
        record.extend(zip(keys.clone(), features.clone(), index.tolist(), strict=True))
        enqueue(keys, features, index)

    monkeypatch.setattr(moco, "enqueue", recorded)
    for batch in batches(pretraining):
        pretraining.train_step(batch)
        for slot in range(10):
            newest = [entry for number, entry in enumerate(record) if number % 10 == slot]
            if newest:
                head, backbone, image = newest[-1]
                assert torch.equal(moco.queues.head[slot], head)
                assert torch.equal(moco.queues.backbone[slot], backbone)
                assert moco.queues.index[slot] == image
    assert len(record) == 36 and moco.queues.pointer == 6
    # A key's head embedding is that of its backbone features: the two queues tell of the same image.
    assert int(moco.queues.index.min()) >= 0


def test_without_neighbours_there_is_no_backbone_queue():
    pretraining = make("--neighbors.k", "0", "--loop.log_steps", "1")
    pretraining.train_step(next(batches(pretraining)))
    assert pretraining.moco.queues.backbone is None
    values = pretraining.log_values()
    assert values["neighbor_loss"] == 0 and values["loss"] == values["instance_loss"]


# -- accumulation, splits, layouts, precision ---------------------------------------------------------


def run(*options: str, steps: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    AcceleratorState._reset_state(True)
    pretraining = make(*options)
    losses = []
    for batch, _ in zip(batches(pretraining), range(steps), strict=False):
        pretraining.train_step(batch)
        losses.append(float(pretraining.loss))
    return losses, {name: value.float() for name, value in pretraining.moco.state_dict().items()
                    if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_accumulation_changes_nothing(parts):
    whole, cut = run(*GROUPS), run(*GROUPS, "--accumulation", str(parts))
    assert cut[0] == pytest.approx(whole[0], abs=1e-5)
    for name, value in whole[1].items():
        torch.testing.assert_close(cut[1][name], value, rtol=0, atol=1e-5, msg=name)


def test_splits_without_batch_statistics_change_nothing():
    """Keys come back in their order: only batch norm can tell that they were shuffled and split."""
    whole, split = run(*GROUPS), run(*GROUPS, "--model.batch_norm_splits", "2")
    assert split[0] == pytest.approx(whole[0], abs=1e-5)
    torch.testing.assert_close(split[1]["queues.head"], whole[1]["queues.head"], rtol=0, atol=1e-5)


def test_split_batch_norm_sees_shuffled_parts():
    pretraining = make("--model.batch_norm_splits", "2")
    moco = pretraining.moco
    images = torch.randn(6, 3, 32, 32)
    reference, parts = copy.deepcopy(moco.key), []
    moco.key.backbone.register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0].clone()))
    keys, _ = moco.encode_keys(images, step=0)
    assert [len(part) for part in parts] == [3, 3]
    order = [[int((images - row).abs().flatten(1).sum(1).argmin()) for row in part] for part in parts]
    assert sorted(sum(order, [])) == list(range(6)) and sum(order, []) != list(range(6))
    reference.batch_norm_splits = 1
    with torch.no_grad():
        for rows in order:  # each image was normalised with those of its part, and is back in its place
            expected = reference([images[rows][:, None]])[0][:, 0]
            torch.testing.assert_close(keys[rows], expected, rtol=0, atol=1e-5)
    assert not torch.equal(moco.encode_keys(images, step=1)[0], keys)  # another step, another shuffle


def test_more_splits_than_images():
    moco = make(*GROUPS, "--model.batch_norm_splits", "8").moco
    assert moco.encode_keys(torch.randn(3, 3, 32, 32), step=0)[0].shape == (3, 16)
    with pytest.raises(UserError, match="batch_norm_splits is 0"):
        make("--model.batch_norm_splits", "0")


def test_channels_last_gives_the_same_losses():
    plain, last = run(*GROUPS), run(*GROUPS, "--channels_last", "true")
    assert last[0] == pytest.approx(plain[0], abs=1e-5)
    pretraining, strides = make("--channels_last", "true"), []
    pretraining.moco.query.backbone.register_forward_pre_hook(
        lambda _, inputs: strides.append(inputs[0].is_contiguous(memory_format=torch.channels_last)))
    pretraining.train_step(next(batches(pretraining)))
    assert strides == [True, True]
    assert pretraining.moco.query.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_step_is_finite_and_near():
    plain, half = run(*GROUPS), run(*GROUPS, "--mixed_precision", "bf16", "--queue.precision", "bfloat16")
    assert all(np.isfinite(half[0])) and half[0][0] == pytest.approx(plain[0][0], abs=0.02)
    assert all(value.isfinite().all() for value in half[1].values())
    pretraining = make("--mixed_precision", "bf16")
    pretraining.train_step(next(batches(pretraining)))
    assert {value.dtype for value in pretraining.moco.query.parameters()} == {torch.float32}
    assert pretraining.moco.queues.head.norm(dim=1).allclose(torch.ones(10), atol=1e-5)


@pytest.mark.slow
def test_compiled_step_gives_the_same_losses():
    plain, compiled = run(steps=2), run("--compile", "true", steps=2)
    assert compiled[0] == pytest.approx(plain[0], abs=1e-3)
    assert set(compiled[1]) == set(plain[1])  # names of the weights stay


# -- any backbone -------------------------------------------------------------------------------------

VIEWS = ["--crops.global_size", "64", "--crops.local_size", "32"]


@pytest.mark.parametrize(("backbone", "options"), [
    ("vit_tiny_patch16_224", "{depth: 1, patch_size: 8, img_size: 64}"),
    ("vit_tiny_patch16_224", "{depth: 1}"),
    ("convnext_atto", "{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}"),
    ("swin_tiny_patch4_window7_224", "{depths: [1, 1, 1, 1], embed_dim: 12}"),
    ("mobilenetv3_small_050", "{}"),
])
def test_any_backbone_takes_views_of_several_sizes(backbone, options):
    pretraining = make("--model.backbone", backbone, "--model.backbone_options", options, *VIEWS)
    iterator = batches(pretraining)
    for _ in range(2):
        pretraining.train_step(next(iterator))
    assert torch.isfinite(pretraining.loss)
    assert all(value.isfinite().all() for value in pretraining.moco.query.parameters())


@pytest.mark.parametrize(("options", "words"), [
    (["--model.backbone", "resnet81"], ["no 'resnet81'", "resnet18"]),
    (["--model.backbone_options", "{wings: 2}"], ["resnet18", "wings", "backbone_options"]),
    (["--model.backbone", "mixer_s32_224", "--model.backbone_options", "{}"], ["views of 16 pixels"]),
    (["--model.backbone_options", "{global_pool: ''}"], ["one vector for each image"]),
    (["--momentum", "1.5"], ["momentum is 1.5"]),
])
def test_a_backbone_that_does_not_fit_is_a_clear_error(options, words):
    with pytest.raises(UserError) as error:
        make(*options)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_trying_sizes_leaves_the_backbone_and_randomness_alone():
    torch.manual_seed(3)
    tried = create_backbone("resnet18", {"channels": [8, 8, 8, 8]}, [32, 16])
    after = torch.rand(3)
    torch.manual_seed(3)
    plain = create_backbone("resnet18", {"channels": [8, 8, 8, 8]})
    assert torch.equal(after, torch.rand(3)) and tried.training
    assert all(torch.equal(a, b) for a, b in zip(tried.state_dict().values(), plain.state_dict().values(), strict=True))


def test_update_key_moves_parameters_only():
    encoder = Encoder(create_backbone("resnet18", {"channels": [8, 8, 8, 8]}), embedding=4)
    moco = MoCo(encoder, Queues(8, 4), momentum=0.5)
    buffers = {name: value.clone() for name, value in moco.key.named_buffers()}
    with torch.no_grad():
        for value in [*moco.query.parameters(), *moco.query.buffers()]:
            value += 1
    before = parameters(moco.key)
    moco.update_key()
    torch.testing.assert_close(parameters(moco.key), before + 0.5, rtol=0, atol=1e-6)
    assert all(torch.equal(value, buffers[name]) for name, value in moco.key.named_buffers())


# -- statistics, probe, filling, unreadable images -----------------------------------------------------


class Labelled(Noise):
    """Noise of three classes."""

    def label(self, number: int) -> int:
        return number % 3


def test_shares_of_neighbours_against_a_slow_count():
    pretraining = make("--loop.log_steps", "2", "--crops.local_crops", "1", source=Labelled())
    found = []

    def count(terms, index):
        slots = pretraining.moco.queues.index[terms.neighbors].tolist()
        pairs = [(image, other) for image, views in zip(index.tolist(), slots, strict=True)
                 for view in views for other in view]
        found.append((sum(a == b for a, b in pairs) / len(pairs),
                      sum(b >= 0 and a % 3 == b % 3 for a, b in pairs) / len(pairs)))
        return share(terms, index)

    share, pretraining._shared_neighbors = pretraining._shared_neighbors, count
    for number, batch in enumerate(batches(pretraining), start=1):
        pretraining.train_step(batch)
        if number % 2 == 0:
            values = pretraining.log_values()
            assert (values["neighbors_same_image"], values["neighbors_same_class"]) == pytest.approx(found[-1])
        else:
            assert pretraining.shared_neighbors == {}
    assert found[-1][1] > 0


def test_an_image_that_cannot_be_read_shares_no_class():
    pretraining = make("--loop.log_steps", "1", source=Labelled())
    batch = next(batches(pretraining))
    batch["index"][:] = -1
    pretraining.train_step(batch)
    pretraining.train_step(batch)
    assert pretraining.log_values()["neighbors_same_class"] == 0


@pytest.mark.parametrize("drop_last", ["true", "false"])
def test_filling_fills_the_queue(drop_last):
    """10 images make two full batches of 4 an epoch, whatever training does with the rest."""
    pretraining = make("--queue.size", "40", "--queue.fill", "true", "--drop_last", drop_last, source=Noise(10))
    indices = pretraining._filling()
    assert len(indices) == 10 and all(len(batch) == 4 for batch in indices)
    views = Views(pretraining.source, pretraining.crops, 0)
    pretraining._fill_queues(DataLoader(views, batch_sampler=indices, collate_fn=collate))
    assert pretraining.moco.queues.filled() == 1 and pretraining.moco.queues.pointer == 0


@pytest.mark.parametrize("step, share, bad, stops", [
    (1, 0.1, 3, False), (1, 0.1, 50, False), (1, 0.1, 51, True),  # little has been seen: as if it were 500
    (150, 0.1, 60, False), (150, 0.1, 61, True),  # of 600 seen
    (9999, 0.1, 100, False), (9999, 0.1, 101, True),  # of all 1000
    (1, 0.0, 3, False), (1, 0.0, 4, True),
])
def test_how_many_unreadable_images_stop_a_run(step, share, bad, stops):
    pretraining = make("--max_unreadable", str(share), source=Noise(1000, size=2))
    pretraining.step, pretraining.unreadable = step, {f"{number}.jpg": "damaged" for number in range(bad)}
    if not stops:
        return pretraining._judge_unreadable()
    with pytest.raises(UserError, match=rf"^{bad} of the \d+ images seen cannot be read, the first being 0.jpg "):
        pretraining._judge_unreadable()


def test_weights_carry_the_convention_of_their_augmentation(tmp_path):
    from pretrain import load_backbone

    pretraining = make("--augmentation.mean", "[0.5, 0.4, 0.3]", "--augmentation.std", "[0.2, 0.2, 0.1]")
    torch.save(pretraining.state_dict(), tmp_path / "last.pt")
    convention = load_backbone(tmp_path / "last.pt").pretrained_cfg
    assert convention["mean"] == (0.5, 0.4, 0.3) and convention["std"] == (0.2, 0.2, 0.1)
    assert convention["input_size"] == (3, 32, 32)


def test_the_probe_normalises_as_training_does():
    from pretrain.config import ProbeConfig
    from pretrain.probe import Probe

    class Seen(nn.Module):
        def forward(self, images):
            self.low, self.high = float(images.min()), float(images.max())
            return images.flatten(1)[:, :8]

    convention, seen = {"mean": (0.0,) * 3, "std": (0.5,) * 3}, Seen()
    probe = Probe(ProbeConfig(images=3, k=1), torch.device("cpu"), convention)
    assert 0 <= probe.accuracy(seen) <= 100 and seen.training
    assert 0 <= seen.low < 0.5 and 1 < seen.high <= 2


def test_the_probe_needs_a_backbone_that_takes_scenes():
    fixed = ["--model.backbone", "mixer_s32_224", "--model.backbone_options", "{img_size: 32}",
             "--crops.local_crops", "0"]
    make(*fixed)
    with pytest.raises(UserError, match="'mixer_s32_224' does not take views of 128 pixels: .*set --probe.every to 0"):
        make(*fixed, "--probe.every", "1", "--probe.images", "3")


def test_unreached_parameters_are_found_and_nothing_changes():
    backbone = create_backbone("resnet18", {"channels": [8, 8, 8, 8]})
    backbone.idle = nn.Linear(2, 3)
    encoder = Encoder(backbone, embedding=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = unreached_parameters(encoder, [torch.zeros(2, 1, 3, 32, 32)])
    assert {id(value) for value in found} == {id(value) for value in backbone.idle.parameters()}
    assert encoder.training and all(value.grad is None for value in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_keys_travel_once(monkeypatch):
    """Parts of a batch join in the order that gathering each process's whole batch gives."""
    import pretrain.moco as moco

    monkeypatch.setattr(moco, "_many", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    mine = [torch.arange(5) + 10 * rank for rank in (0, 1)]
    parts = [torch.cat([rows[start:stop] for rows in mine]) for start, stop in ((0, 3), (3, 5))]
    assert torch.equal(moco.join_parts(parts), torch.cat(mine))
    assert torch.equal(moco.own_rows(parts[0]), mine[1][:3]) and torch.equal(moco.own_rows(torch.cat(mine)), mine[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("options", [[], ["--augmentation.name", "mix"], ["--accumulation", "2"]])
def test_a_step_on_a_gpu_never_waits_for_it(options):
    config = load(PretrainConfig, [*TINY, "--mixed_precision", "bf16", "--loop.log_steps", "1", *options])
    pretraining = Pretraining(config, start(mixed_precision="bf16", threads=1), Labelled())
    pretraining.moco.train()
    made = [{key: value.pin_memory() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
            for batch in batches(pretraining)]
    pretraining.train_step(made[0])  # allocations and choices of algorithms
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in made[1:]:
            pretraining.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    values = pretraining.log_values()
    assert all(np.isfinite(value) for value in values.values()) and values["loss"] > 0
