"""Schedule ``maxl`` on the engine, against procedures written out."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from harness.checkpoint import load_file
from harness.config import load
from harness.errors import UserError
from harness.files import write_atomically
from harness.world import start
from transfer.auxiliary.masked_softmax import masked_softmax
from transfer.config import TransferConfig
from transfer.data.base import DATASETS, DataSet, Label, Split
from transfer.data.idx import FILES
from transfer.data.loading import Augmented, collate
from transfer.engine import Transfer, check

ROOT = Path(__file__).resolve().parents[3]
SPECIES = ("cat", "oak", "dog", "car", "rose", "cow")
KIND = (0, 1, 0, 2, 1, 0)
TINY = ["--data.name=levels", "--tasks=[kind]", "--schedule.name=maxl", "--schedule.subclasses=2", "--workers=0",
        "--model.backbone=resnet18", "--threads=1", "--baseline=none", "--augmentation.size=16", "--batch_size=6",
        "--epochs=3", "--optimizer.name=sgd", "--optimizer.lr=0.05", "--optimizer.weight_decay=0",
        "--model.backbone_options={layers: [1, 1, 1, 1], channels: [4, 4, 6, 6]}"]
GROUPS = "--model.backbone_options={layers: [1, 1, 1, 1], channels: [32, 32, 32, 32], norm_layer: groupnorm}"


if "levels" not in DATASETS.names():

    @DATASETS.register("levels")
    class Levels(DataSet):
        """Random images with classes at two levels; every fourth has none.

        Args:
            val_count: images of the split val; 0: there is none.
        """

        def __init__(self, val_count: int = 9) -> None:
            self.val_count = val_count
            self.splits = ("train", "val", "test") if val_count else ("train", "test")

        @property
        def labels(self):
            return {"kind": Label("classification", ("animal", "plant", "vehicle")),
                    "species": Label("classification", SPECIES, {"kind": KIND}),
                    "depth": Label("depth")}

        def load(self, split):
            return LevelsSplit(split, {"train": 16, "val": self.val_count, "test": 6}[split], tuple(self.tasks))

        def fingerprint(self):
            return f"levels-{self.val_count}"


class LevelsSplit(Split):
    def __init__(self, name, count, tasks):
        self.name, self.count, self.tasks = name, count, tasks

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        draw = np.random.default_rng((index, len(self.name)))
        species = draw.integers(6)
        targets = {"species": np.int64(species), "kind": np.int64(KIND[species]),
                   "depth": draw.uniform(1, 5, (20, 20)).astype(np.float32)}
        kept = [name for name in self.tasks if name == "depth" or index % 4]
        return {"image": draw.integers(0, 256, (20, 20, 3), dtype=np.uint8), "id": f"{self.name}/{index}",
                "targets": {name: targets[name] for name in kept}}


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def make(*options, double=False):
    AcceleratorState._reset_state(True)
    transfer = Transfer(load(TransferConfig, [*TINY, *options]), start(threads=1, cpu=True))
    transfer.model.train()
    if double:
        network = transfer.network
        network.model.double()
        transfer.schedule.generator.double()
        network.mean, network.std = network.mean.double(), network.std.double()
    return transfer


def batch_of(transfer, split, indices):
    samples = Augmented(transfer.data.split(split), transfer.tasks, transfer.config.augmentation.build(), 0)
    return collate([samples[0, index] for index in indices], transfer.tasks)


def losses_by_hand(transfer, model, images, kinds, labels):
    """Focal losses of both tasks; the primary one has γ = 1."""
    known = kinds >= 0
    output = model(images).predictions
    log = output["kind"].log_softmax(1)[known, kinds[known]]
    primary = -((1 - log.exp()) * log).mean()
    log = output["kind_auxiliary"].log_softmax(1)
    return primary, -(labels * (1 - log.exp()) ** 2 * log).sum() / known.sum()


def meta_objective(transfer, images, kinds, rate, generator, weights=(1.0, 1.0), l1=0.0):
    """L_pri(θ⁺) + λ H + L1 of a generator: a real step of a copy of the network, then a look."""
    with torch.no_grad():
        labels = masked_softmax(generator.head(generator.encoder(images)), kinds, generator.counts)
    model = copy.deepcopy(transfer.model)
    primary, auxiliary = losses_by_hand(transfer, model, images, kinds, labels)
    (weights[0] * primary + weights[1] * auxiliary).backward()
    with torch.no_grad():
        for value in model.parameters():
            value -= rate * value.grad
        mean = labels.sum(0) / (kinds >= 0).sum()
        entropy = (mean[mean > 0] * mean[mean > 0].log()).sum()
        size = sum(value.abs().sum() for value in generator.parameters())
        return losses_by_hand(transfer, model, images, kinds, labels)[0] + 0.2 * entropy + l1 * size


FOCAL = "--task_options={kind: {focal: 1.0}}"


@pytest.mark.parametrize(("options", "rate", "weights", "l1"), [
    ([], 0.05, (1, 1), 0.0),
    (["--schedule.look_ahead_lr=2", "--schedule.generator_l1=0.01"], 2.0, (1, 1), 0.01),
    (["--balance.name=fixed", "--balance.weights={kind: 3, kind_auxiliary: 0.5}"], 0.05, (3, 0.5), 0.0),
    (["--balance.importance={kind_auxiliary: 4}"], 0.05, (1, 4), 0.0),
], ids=["plain", "rate", "weights", "importance"])
def test_generator_gradient_is_that_of_the_procedure(options, rate, weights, l1):
    """Batch norm in both networks, and images without a class."""
    transfer = make(FOCAL, "--schedule.generator_l1=0", *options, double=True)
    schedule = transfer.schedule
    parts = transfer._parts(batch_of(transfer, "val", range(8)), list(transfer.tasks))
    images, kinds = transfer.images(parts[0]), parts[0].targets["kind"]
    before = [value.clone() for value in transfer.model.state_dict().values()]
    schedule.meta_gradient(parts)
    after = transfer.model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "the network is as it was"
    assert all(value.grad is None for value in transfer.model.parameters())
    generator, draw = schedule.generator, torch.Generator().manual_seed(0)
    values = list(generator.parameters())
    start = [value.detach().clone() for value in values]
    for _ in range(3):
        direction = [torch.randn(value.shape, generator=draw, dtype=torch.float64) for value in values]
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                for value, origin, one in zip(values, start, direction, strict=True):
                    value.copy_(origin + sign * 1e-8 * one)  # no ReLU changes sides
            found.append(meta_objective(transfer, images, kinds, rate, generator, weights, l1))
        expected = float(found[0] - found[1]) / 2e-8
        exact = sum((value.grad * one).sum() for value, one in zip(values, direction, strict=True)).item()
        assert exact == pytest.approx(expected, rel=1e-5, abs=2e-7)


def gradient(transfer, parts):
    transfer.schedule.meta_gradient(parts)
    values = transfer.schedule.generator.parameters()
    return torch.cat([value.grad.flatten() for value in values])


def test_finite_differences_are_close():
    found = {}
    for kind in ("exact", "finite_differences"):
        transfer = make(FOCAL, f"--schedule.gradient={kind}", "--schedule.entropy_weight=0",
                        "--schedule.generator_l1=0", "--schedule.displacement=1e-4", double=True)
        parts = transfer._parts(batch_of(transfer, "val", range(8)), list(transfer.tasks))
        found[kind] = gradient(transfer, parts)
    assert found["exact"].norm() > 0
    torch.testing.assert_close(found["finite_differences"], found["exact"], rtol=1e-2,
                               atol=1e-3 * found["exact"].abs().max().item())


@pytest.mark.parametrize("kind", ["exact", "finite_differences"])
def test_accumulation_changes_nothing(kind):
    found = []
    for pieces in (1, 3):
        transfer = make(GROUPS, f"--accumulation={pieces}", f"--schedule.gradient={kind}", double=True)
        parts = transfer._parts(batch_of(transfer, "val", range(8)), list(transfer.tasks))
        assert len(parts) == pieces
        found.append((gradient(transfer, parts), transfer.schedule.log_values()["maxl"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-12)
    assert found[0][1] == pytest.approx(found[1][1])


def test_the_networks_step_is_that_of_two_tasks():
    """Step 1: the generated labels are constants in the sum of both losses."""
    transfer = make(FOCAL, "--schedule.generator_lr=0", double=True)
    batch = batch_of(transfer, "train", range(6))
    model, generator = copy.deepcopy(transfer.model), copy.deepcopy(transfer.schedule.generator)
    (part,) = transfer._parts(batch, list(transfer.tasks))
    with torch.no_grad():
        labels = generator(transfer.images(part), part.targets["kind"])
    sum(losses_by_hand(transfer, model, transfer.images(part), part.targets["kind"], labels)).backward()
    transfer.train_step(batch)
    for mine, theirs in zip(transfer.model.parameters(), model.parameters(), strict=True):
        rate = transfer.optimizer.param_groups[0]["lr"]
        torch.testing.assert_close(mine.detach(), theirs.detach() - rate * theirs.grad, rtol=1e-9, atol=1e-12)
    assert set(transfer.losses) == {"kind", "kind_auxiliary"}


def test_entropy_keeps_the_classes_apart():
    """With λ alone, labels that had collapsed spread again."""
    used = {}
    for weight in (0.0, 5.0):
        transfer = make(f"--schedule.entropy_weight={weight}", "--schedule.generator_lr=0.2",
                        "--schedule.generator_l1=0", "--schedule.look_ahead_lr=1e-9")
        schedule = transfer.schedule
        with torch.no_grad():
            schedule.generator.head.classifier.bias[::2] += 4  # one of two subclasses has nearly all
        parts = transfer._parts(batch_of(transfer, "val", [1, 2, 3, 5, 6, 7]), list(transfer.tasks))
        for _ in range(10):
            schedule.teach(parts)
        used[weight] = schedule.log_values()["maxl"]["label_entropy"]
    assert used[5.0] > used[0.0] + 0.3


# -- data -----------------------------------------------------------------------------------------


def seen(transfer, steps):
    """Which images the network and the generator learn from, by their ids."""
    found, parts = {"network": [], "generator": []}, transfer._parts
    who = "network"

    def spy(batch, trained):
        found[who].append(batch["ids"])
        return parts(batch, trained)

    transfer._parts = spy
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    teacher = transfer.schedule.batch_of
    order = list(transfer.batches)
    for number in range(transfer.step, transfer.step + steps):
        if teacher is not None:
            def told(k):
                nonlocal who
                who = "generator"
                result = teacher(k)
                who = "network"
                return result
            transfer.schedule.batch_of = told
        transfer.train_step(collate([samples[index] for index in order[number]], transfer.tasks))
    return found


def test_validation_batches_are_no_training_images():
    transfer = make()
    found = seen(transfer, 8)
    network, generator = ({one for ids in found[who] for one in ids} for who in ("network", "generator"))
    assert len(found["generator"]) == 8 and network == {f"train/{i}" for i in range(16)}
    assert generator == {f"val/{i}" for i in range(9)} and not network & generator
    assert [len(ids) for ids in found["generator"]] == [6, 3] * 4, "all of an epoch, then the next one"


def test_training_batches_on_request():
    transfer = make("--schedule.batches=train")
    assert transfer.schedule.batch_of is None
    transfer.train_step(batch_of(transfer, "train", range(6)))
    assert transfer.schedule.log_values()["maxl"]["classes_used"] > 0


def run(transfer, steps):
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    order, log = list(transfer.batches), []
    for number in range(transfer.step, transfer.step + steps):
        transfer.train_step(collate([samples[index] for index in order[number]], transfer.tasks))
        log.append(transfer.log_values())
    for source in transfer.others:
        source.close()
    return log


def same(a, b):
    """Fail unless two nests are equal to the bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict | list | tuple):
        assert len(a) == len(b)
        for key in a if isinstance(a, dict) else range(len(a)):
            same(a[key], b[key])
    else:
        assert a == b


@pytest.mark.parametrize("options", [["--optimizer.name=adam", "--optimizer.lr=0.01", "--model.head=deeplab"],
                                     ["--schedule.gradient=finite_differences", "--schedule.generator=resnet10t",
                                      "--workers=1", "--balance.name=dwa"]],
                         ids=["exact", "differences"])
def test_goes_on_bit_for_bit(options, tmp_path):
    whole = make(*options)
    run(whole, 3)
    write_atomically(tmp_path / "last.pt", lambda file: torch.save(whole.state_dict(), file))
    expected = run(whole, 3)
    resumed = make(*options)
    resumed.load_state_dict(tmp_path / "last.pt")
    assert run(resumed, 3) == expected
    same(whole.state_dict(), resumed.state_dict())
    assert load_file(tmp_path / "last.pt")["schedule"].keys() == {"steps", "generator", "optimizer"}


def test_hierarchy_of_the_data_set():
    transfer = make("--schedule.subclasses=species")
    assert transfer.tasks["kind_auxiliary"].counts == [3, 2, 1]
    assert transfer.model(torch.zeros(2, 3, 16, 16)).predictions["kind_auxiliary"].shape == (2, 6)


def test_other_tasks_train_along():
    """A dense task beside the primary one is part of the step ahead."""
    transfer = make("--tasks=[kind, depth]", "--model.head=linear")
    run(transfer, 2)
    assert set(transfer.losses) == {"kind", "depth", "kind_auxiliary"}
    assert set(transfer.evaluate("test")) == {"kind", "depth"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--balance.name=pcgrad"], "differentiates through a step.*'pcgrad'.*choose --balance.name equal"),
        (["--balance.name=geometric_mean"], "'geometric_mean' must weigh losses without"),
        (["--partition.name=task_routing"], "set --partition.name full"),
        pytest.param(["--compile=true"], "set --compile false", marks=pytest.mark.slow),
        (["--data.val_count=0"], "data set 'levels' has train, test: hold samples out for it"),
        (["--evaluation.split=val"], "evaluation.split is the same"),
        (["--tasks=[depth]"], "there is none among depth"),
        (["--tasks=[kind, species]"], "there are kind, species: name one with --schedule.primary"),
        (["--tasks=[kind, depth]", "--schedule.primary=depth"], "does not classify images"),
        (["--schedule.primary=kin"], "schedule.primary is 'kin' .did you mean 'kind'"),
        (["--schedule.subclasses=[2, 2]"], "2 numbers"),
        (["--schedule.focal=-1"], "schedule.focal is -1"),
        (["--schedule.generator_lr=-1"], "schedule.generator_lr is -1"),
        (["--schedule.look_ahead_lr=0"], "schedule.look_ahead_lr is 0"),
        (["--schedule.generator=resnt18"], "timm has no backbone 'resnt18'"),
        (["--model.name=single_task"], "takes exactly one task, not 2 .kind, kind_auxiliary"),
    ],
)
def test_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        make(*options)
    assert "\n" not in str(error.value)


def test_refused_before_the_single_task_networks():
    with pytest.raises(UserError, match="2 numbers"):
        check(load(TransferConfig, [*TINY, "--schedule.subclasses=[2, 2]"]))


# -- the program ----------------------------------------------------------------------------------


def test_program_on_pairs_of_garments(programs):
    """Grey images in memory, a task beside the primary one, and validation pairs of images that are held out."""
    draw = np.random.default_rng(0)
    (programs.folder / "idx").mkdir()
    for (images, labels), count in zip(FILES.values(), (60, 12), strict=True):
        for name, array in ((images, draw.integers(0, 256, (count, 28, 28))), (labels, draw.integers(0, 10, count))):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (programs.folder / "idx" / name).write_bytes(header + array.astype(np.uint8).tobytes())
    done = programs.main("transfer", f"--config={ROOT / 'configs/transfer/multifashion/maxl.yaml'}", "--output=run",
                         "--data.root=idx", "--data.val_count=20", "--tasks=[left, right]", "--schedule.primary=left",
                         "--epochs=1", "--batch_size=16", "--baseline=none", "--threads=1", "--loop.trackers=[]",
                         tiny=False)
    assert done.code == 0, done.err
    assert set(json.loads((programs.folder / "run" / "results.json").read_text())["metrics"]) == {"left", "right"}


def test_program_on_scenes(programs):
    """End to end with single-task networks: the auxiliary task is trained and not evaluated."""
    done = programs.main("transfer", "--output=run", "--tasks=[scene]", "--schedule.name=maxl", "--epochs=1",
                         "--schedule.subclasses=3", "--baseline=auto", "--task_options={scene: {focal: 2}}")
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "run" / "results.json").read_text())
    assert set(results["metrics"]) == set(results["single_task"]) == {"scene"}
    assert results["relative"]["parameters"] > 0 and results["strategy"]["schedule"] == "maxl"
    line = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss_scene", "loss_scene_auxiliary", "maxl"} <= line.keys()
