"""Data sets built from idx files: the format, pairs of images, even and odd digits, grey images."""

from __future__ import annotations

import functools
import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from harness.errors import UserError
from transfer.data import DATASETS
from transfer.data._pairs import compose, draw_pairs
from transfer.data.idx import FILES, IdxFolder, read_idx
from transfer.data.loading import Augmented, Evaluated, collate
from transfer.transforms import Augmentation, Geometry, resize_image

COUNTS = {"train": 23, "test": 11}
STILL = Augmentation(flip=0.0, zoom=(1.0,))


def pack(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, packed: bool = False, side: int = 28) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random files of both splits; returns what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, made = np.random.default_rng(5), {}
    for split, count in COUNTS.items():
        images = generator.integers(0, 256, (count, side, side)).astype(np.uint8)
        labels = np.concatenate([np.arange(10), generator.integers(0, 10, count - 10)]).astype(np.uint8)
        made[split] = images, labels
        for name, array in zip(FILES[split], (images, labels), strict=True):
            content = pack(array)
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return made


@pytest.fixture
def files(tmp_path):
    return write(tmp_path)


# -- the format -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 3), (2, 3, 4), (1, 2, 1, 3)])
def test_idx_comes_back(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for name, content in (("plain.gz", pack(array)), ("packed", gzip.compress(pack(array)))):  # the name says nothing
        (tmp_path / name).write_bytes(content)
        found = read_idx(tmp_path / name, len(shape))
        assert found.dtype == np.uint8 and found.shape == shape
        np.testing.assert_array_equal(found, array)


WHOLE = pack(np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file: it begins with nothing"),
        (b"\x89PNG\r\n\x1a\n", "begins with 89 50 4e 47"),
        (b"\0\0\x08\0", "begins with 00 00 08 00"),
        (b"\0\0\x0d\x02" + WHOLE[4:], "numbers of idx type 0x0d"),
        (WHOLE[:9], "ends within its header of 12 bytes"),
        (WHOLE[:-1], "is truncated: 31 bytes, and its header says 32"),
        (WHOLE + b"\0", "is too long: 33 bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "is truncated: 16 bytes"),  # 2⁹⁶ pixels: nothing is allocated for them
        (gzip.compress(WHOLE, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(WHOLE, mtime=0)[:4], "cannot be read"),
        (b"\x1f\x8bxxxxxxxxxxxxxxx", "cannot be read"),
        (gzip.compress(WHOLE[:-2], mtime=0), "is truncated: 30 bytes"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "file-idx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_images_are_not_labels(tmp_path):
    (tmp_path / "file").write_bytes(WHOLE)
    with pytest.raises(UserError, match="2 dimensions, and 3 are needed"):
        read_idx(tmp_path / "file", 3)
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path / "missing")


# -- the folder -----------------------------------------------------------------------------------


def folder(root: str | Path | None, *places: Path) -> IdxFolder:
    return IdxFolder("multimnist", None if root is None else str(root), "MNIST", map(str, places), "get them")


@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found(tmp_path, inside, packed):
    made = write(tmp_path / "here" / inside, packed)
    for found in (folder(tmp_path / "here"), folder(None, tmp_path / "elsewhere", tmp_path / "here")):
        images, labels = found.read("test")
        np.testing.assert_array_equal(images, made["test"][0])
        np.testing.assert_array_equal(labels, made["test"][1])


def test_dot_before_idx(tmp_path):
    made = write(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    np.testing.assert_array_equal(folder(tmp_path).read("train")[0], made["train"][0])


def test_missing_files_are_named(tmp_path):
    write(tmp_path / "some", packed=True)
    for name in (FILES["train"][1], FILES["test"][0]):
        (tmp_path / "some" / f"{name}.gz").unlink()
    with pytest.raises(UserError, match=f"{tmp_path / 'some'} lacks {FILES['train'][1]}, {FILES['test'][0]} "):
        folder(tmp_path / "some")
    with pytest.raises(UserError, match="lacks train-images-idx3-ubyte, .*give their folder with --data.root"):
        folder(tmp_path / "nothing")
    with pytest.raises(UserError, match=f"no idx files in {tmp_path / 'a'}, {tmp_path / 'b'}: get them"):
        folder(None, tmp_path / "a", tmp_path / "b")


def test_contents_that_do_not_fit(tmp_path, files):
    images, labels = (tmp_path / name for name in FILES["train"])
    labels.write_bytes(pack(np.zeros(7, np.uint8)))
    with pytest.raises(UserError, match="23 images and .* 7 labels"):
        folder(tmp_path).read("train")
    labels.write_bytes(pack(np.full(23, 26, np.uint8)))
    with pytest.raises(UserError, match="label 26"):
        folder(tmp_path).read("train")
    images.write_bytes(labels.read_bytes())
    with pytest.raises(UserError, match="1 dimensions, and 3"):
        folder(tmp_path).read("train")


# -- pairs ----------------------------------------------------------------------------------------


def slow_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    canvas = np.zeros((36, 36), np.uint8)
    for y in range(36):
        for x in range(36):
            here = int(first[y, x]) if y < 28 and x < 28 else 0
            there = int(second[y - 6, x - 6]) if 6 <= y < 34 and 6 <= x < 34 else 0
            canvas[y, x] = max(here, there)
    return canvas


@pytest.mark.parametrize("name", ["multimnist", "multifashion"])
def test_pairs_against_a_slow_loop(tmp_path, files, name):
    data = DATASETS.get(name)(root=str(tmp_path))
    assert data.splits == ("train", "test") and list(data.tasks) == ["left", "right"]
    assert len(data.tasks["left"].classes) == data.tasks["right"].channels == 10
    for split, (images, labels) in files.items():
        found = data.split(split)
        left, right = draw_pairs(len(images), None, 0, split)
        assert len(found) == len(images) and left.tolist() == list(range(len(images)))
        for i, j in enumerate(right):
            sample = found[i]
            assert i != j and sample["image"].shape == (36, 36, 1) and sample["image"].dtype == np.uint8
            np.testing.assert_array_equal(sample["image"][:, :, 0], slow_pair(images[i], images[j]))
            assert sample["targets"] == {"left": labels[i], "right": labels[j]}


def test_second_images_are_uniform_among_the_others():
    counts = np.zeros((4, 4), int)
    for seed in range(3000):
        left, right = draw_pairs(4, None, seed, "train")
        counts[left, right] += 1
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(4, dtype=bool)]
    assert abs(others - 1000).max() < 5 * np.sqrt(3000 * 1 / 3 * 2 / 3)


def test_pairs_depend_on_the_seed_alone(tmp_path, files):
    def pictures(split: str = "train", **options) -> np.ndarray:
        data = DATASETS.get("multifashion")(root=str(tmp_path), **options)
        return np.stack([sample["image"] for sample in data.split(split)])

    first = pictures()
    np.testing.assert_array_equal(first, pictures())
    assert (first != pictures(seed=1)).any()
    np.testing.assert_array_equal(first[:5], pictures(train_count=5))  # fewer are the first ones
    assert len(pictures("test", test_count=99)) == COUNTS["test"]


def test_splits_share_no_image(tmp_path):
    generator = np.random.default_rng(0)
    write(tmp_path)
    images = np.zeros((23, 28, 28), np.uint8)
    images[:, 0, 0] = images[:, 27, 27] = 10 * np.arange(1, 24)  # one corner of each shows in the pair
    labels = generator.integers(0, 10, 23).astype(np.uint8)
    for name, array in zip(FILES["train"], (images, labels), strict=True):
        (tmp_path / name).write_bytes(pack(array))
    data = DATASETS.get("multimnist")(root=str(tmp_path), val_count=6)
    assert data.splits == ("train", "val", "test")
    used = {}
    for split, count in (("train", 17), ("val", 6)):
        found = np.stack([sample["image"][:, :, 0] for sample in data.split(split)])
        assert len(found) == count
        used[split] = set(found[:, 0, 0].tolist()), set(found[:, 33, 33].tolist())
        assert used[split][1] <= used[split][0] and len(used[split][0]) == count
    assert not used["train"][0] & used["val"][0]


def test_size(tmp_path, files):
    whole = DATASETS.get("multimnist")(root=str(tmp_path)).split("train")
    small = DATASETS.get("multimnist")(root=str(tmp_path), size=28).split("train")
    assert small[3]["image"].shape == (28, 28, 1) and small[3]["targets"] == whole[3]["targets"]
    expected = np.asarray(Image.fromarray(whole[3]["image"][:, :, 0]).resize((28, 28), Image.Resampling.BILINEAR))
    assert abs(small[3]["image"][:, :, 0].astype(int) - expected).max() <= 1  # rounding


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multifashion", {"size": 0}, "multifashion: size is 0"),
        ("multimnist", {"val_count": -1}, "val_count is -1"),
        ("multimnist", {"train_count": 0}, "train_count is 0"),
        ("mnist_parity", {"test_count": 0}, "test_count 0"),
        ("multimnist", {"root": "/nowhere"}, "/nowhere lacks train-images-idx3-ubyte"),
    ],
)
def test_options_are_checked(tmp_path, files, name, options, message):
    with pytest.raises(UserError, match=message):
        DATASETS.get(name)(**{"root": str(tmp_path), **options})


def test_too_many_held_out(tmp_path, files):
    for name in ("multimnist", "mnist_parity"):
        with pytest.raises(UserError, match="val_count 22 leaves nothing of 23"):
            DATASETS.get(name)(root=str(tmp_path), val_count=22).split("train")


def test_images_that_are_too_large():
    with pytest.raises(UserError, match="32x32 pixels do not fit"):
        compose(*np.zeros((2, 1, 32, 32), np.uint8))


def test_fingerprint_changes_with_the_samples(tmp_path):
    write(tmp_path)

    def fingerprint(**options) -> str:
        return DATASETS.get("multimnist")(root=str(tmp_path), **options).fingerprint()

    changes = ({}, {"seed": 1}, {"size": 28}, {"val_count": 2}, {"train_count": 2}, {"test_count": 2})
    seen = {fingerprint(**options) for options in changes}
    assert len(seen) == len(changes) and fingerprint() in seen
    (tmp_path / FILES["test"][1]).write_bytes(pack(np.zeros(11, np.uint8)))
    assert fingerprint() not in seen


# -- even and odd ---------------------------------------------------------------------------------


def test_parity(tmp_path, files):
    data = DATASETS.get("mnist_parity")(root=str(tmp_path))
    assert data.tasks["even"].classes == ("0", "2", "4", "6", "8")
    assert data.tasks["odd"].classes == ("1", "3", "5", "7", "9")
    images, digits = files["train"]
    found = data.split("train")
    for i, digit in enumerate(digits):
        task = ("even", "odd")[digit % 2]
        assert list(found[i]["targets"]) == [task]
        assert data.tasks[task].classes[found[i]["targets"][task]] == str(digit)
        np.testing.assert_array_equal(found[i]["image"][:, :, 0], images[i])
    batch = collate([found[i] for i in range(23)], data.tasks)
    for task, parity in (("even", 0), ("odd", 1)):
        target = batch["targets"][task]
        assert ((target >= 0).numpy() == (digits % 2 == parity)).all()
        assert data.tasks[task].normalizer(target).item() == (digits % 2 == parity).sum()
    with_val = DATASETS.get("mnist_parity")(root=str(tmp_path), val_count=5)
    assert len(with_val.split("val")) == 5 and len(with_val.split("train")) == 18


# -- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["multifashion", "mnist_parity"])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_at_once_are_those_one_by_one(tmp_path, files, name, workers):
    data = DATASETS.get(name)(root=str(tmp_path))
    augmented = Augmented(data.split("train"), data.tasks, STILL, 0)
    indices = [[(0, 4), (0, 1), (0, 20)], [(1, 3), (1, 3)]]
    loader = DataLoader(augmented, batch_sampler=indices, num_workers=workers,
                        collate_fn=functools.partial(collate, tasks=data.tasks))
    for batch, chosen in zip(loader, indices, strict=True):
        assert isinstance(augmented.__getitems__(chosen), dict)  # at once
        expected = collate([augmented[index] for index in chosen], data.tasks)
        assert batch["ids"] == expected["ids"] and list(batch["targets"]) == list(expected["targets"])
        assert batch["image"].dtype == torch.uint8 and batch["image"].is_contiguous()
        torch.testing.assert_close(batch["image"], expected["image"], rtol=0, atol=0)
        torch.testing.assert_close(batch["targets"], expected["targets"], rtol=0, atol=0)


def test_a_batch_is_a_copy(tmp_path, files):
    data = DATASETS.get("multifashion")(root=str(tmp_path))
    augmented = Augmented(data.split("train"), data.tasks, STILL, 0)
    before = augmented[0, 2]["image"].copy()
    batch = collate(augmented.__getitems__([(0, 2)]), data.tasks)
    batch["image"].zero_()
    batch["targets"]["left"].zero_()
    np.testing.assert_array_equal(augmented[0, 2]["image"], before)


@pytest.mark.parametrize(
    "options", [{"flip": 0.5}, {"zoom": (1.0, 1.2)}, {"rotation": 5.0}, {"jitter": 0.1}, {"size": 32},
                {"scale": (0.9, 1.1)}])
def test_augmented_samples_come_one_by_one(tmp_path, files, options):
    data = DATASETS.get("multifashion")(root=str(tmp_path))
    augmented = Augmented(data.split("train"), data.tasks, Augmentation(**{"flip": 0.0, "zoom": (1.0,), **options}), 0)
    samples = augmented.__getitems__([(0, 4), (0, 1)])
    assert isinstance(samples, list)
    batch = collate(samples, data.tasks)
    assert batch["image"].shape == (2, 1, *[options.get("size", 36)] * 2)


def test_own_augmentations_are_not_passed_over(tmp_path, files):
    class Darker(Augmentation):
        def colors(self, image, generator):
            return image // 2

    data = DATASETS.get("multifashion")(root=str(tmp_path))
    augmented = Augmented(data.split("train"), data.tasks, Darker(flip=0.0, zoom=(1.0,)), 0)
    assert isinstance(augmented.__getitems__([(0, 4)]), list)


def test_evaluation_at_once_or_resized(tmp_path, files):
    data = DATASETS.get("multifashion")(root=str(tmp_path))
    split = data.split("test")
    own, resized = Evaluated(split), Evaluated(split, 28)
    assert isinstance(own.__getitems__([3, 1]), dict) and isinstance(resized.__getitems__([3, 1]), list)
    batch, expected = (collate(samples, data.tasks) for samples in (own.__getitems__([3, 1]), [own[3], own[1]]))
    assert torch.equal(batch["image"], expected["image"]) and batch["ids"] == expected["ids"]
    assert collate(resized.__getitems__([3, 1]), data.tasks)["image"].shape == (2, 1, 28, 28)


def test_a_subset_gives_batches_at_once(tmp_path, files):
    data = DATASETS.get("subset")(of="multifashion", share=0.5, options={"root": str(tmp_path)})
    augmented = Augmented(data.split("train"), data.tasks, STILL, 0)
    batch = collate(augmented.__getitems__([(0, 7), (0, 2)]), data.tasks)
    expected = collate([augmented[0, 7], augmented[0, 2]], data.tasks)
    assert torch.equal(batch["image"], expected["image"]) and batch["ids"] == expected["ids"]


def test_chosen_task_alone(tmp_path, files):
    data = DATASETS.get("multifashion")(root=str(tmp_path))
    data.choose(["right"])
    batch = collate(Augmented(data.split("train"), data.tasks, STILL, 0).__getitems__([(0, 4)]), data.tasks)
    assert list(batch["targets"]) == ["right"]


def test_split_pickles(tmp_path, files):
    split = DATASETS.get("multifashion")(root=str(tmp_path)).split("train")
    again = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(again[2]["image"], split[2]["image"])


# -- grey images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(20, 24, 20, 24),
        Geometry(20, 24, 20, 24, flip=True),
        Geometry(20, 24, 16, 16, zoom=1.3, top=2, left=3),
        Geometry(20, 24, 32, 32, zoom=1.1, angle=20),
    ],
)
def test_grey_is_a_colour_image_with_equal_channels(geometry):
    grey = np.random.default_rng(0).integers(0, 256, (20, 24, 1)).astype(np.uint8)
    result = geometry.image(grey)
    assert result.shape == (geometry.out_height, geometry.out_width, 1)
    np.testing.assert_array_equal(np.repeat(result, 3, axis=2), geometry.image(np.repeat(grey, 3, axis=2)))
    assert resize_image(grey, 12).shape == (12, 12, 1)
    assert Augmentation(jitter=0.3).colors(grey, np.random.default_rng(0)).shape == grey.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_one_and_three_channels_take_grey_images(channels):
    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.network import build_network
    from transfer.tasks.base import build_task

    config = load(TransferConfig, ["--model.backbone=lenet", f"--model.backbone_options={{in_chans: {channels}}}",
                                   "--tasks=[left]"])
    network = build_network(config, {"left": build_task("classification", "left", ("a", "b", "c"))})
    assert network.mean.shape == network.std.shape == (channels, 1, 1)
    grey = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    images = network.normalise(grey)
    assert images.shape == (2, channels, 28, 28)
    torch.testing.assert_close(images[:, :1], (grey / 255 - 0.1307) / 0.3081)
    assert network.model(images).predictions["left"].shape == (2, 3)
    if channels == 1:
        with pytest.raises(UserError, match="3 channels and backbone 'lenet' takes 1"):
            network.normalise(grey.expand(2, 3, 28, 28))
