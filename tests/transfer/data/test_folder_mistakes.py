"""Bad folders: each mistake is one line with the file's name, or is masked as documented."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from scenes.export import export
from transfer.data import DATASETS
from transfer.data._files import read_indices, read_numbers
from transfer.data._spreadsheet import read_sheet
from transfer.data._values import class_map, index_table, picture_of, positive, share, shifted, unit_vectors, yes_or_no
from transfer.data.base import open_data_set

SIZE = (24, 32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small NYUD folder: 4 and 2 samples."""
    return export("nyud", tmp_path_factory.mktemp("mistakes") / "nyud", {"train": 4, "val": 2}, SIZE)


@pytest.fixture
def root(written, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / "nyud")


def nyud(root, **options):
    return DATASETS.get("nyud")(root=str(root), **options)


def refused(call, *parts: str) -> None:
    """It fails with one line that has all parts."""
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
    assert all(part in text for part in parts) and "\n" not in text, text


# ---- the folder ------------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    refused(lambda: nyud(tmp_path / "nothing"), "not there", "nothing")
    refused(lambda: DATASETS.get("nyud")(), "--data.root", "where nyud")
    (tmp_path / "file").write_text("")
    refused(lambda: nyud(tmp_path / "file"), "a file")


@pytest.mark.parametrize(("name", "parts"), [
    ("nyud", ("gt_sets/train.txt", "missing")), ("pascal", ("ImageSets/Context/train.txt",)),
    ("cityscapes", ("train", "no samples")), ("nyuv2_npy", ("train", "no samples")),
    ("celeba", ("list_eval_partition.txt",)), ("taskonomy", ("train_val_test_tiny.csv",)),
    ("cifar100_hierarchy", ("cifar-100-python", "where")), ("refuge", ("train", "no samples")),
    ("hrf_av", ("no samples",)), ("cityscapes_npy", ("no samples",)),
])
def test_a_wrong_folder(tmp_path, name, parts):
    (tmp_path / "something.txt").write_text("else")
    refused(lambda: DATASETS.get(name)(root=str(tmp_path)), name, *parts)


def test_missing_images_are_named(root):
    (root / "images" / "00002.jpg").unlink()
    refused(lambda: nyud(root), "1 of 4 images", "images/00002.jpg")


def test_missing_labels_are_named_or_accepted(root):
    whole = nyud(root).fingerprint()
    (root / "depth" / "00003.npy").unlink()
    data = nyud(root)
    data.choose(["semseg"])
    assert len(data.split("train")) == 4  # other tasks do not need it
    data.choose(["semseg", "depth"])
    refused(lambda: data.split("train"), "1 of 4 labels", "depth/00003.npy", "--data.lacking accept")
    data = nyud(root, lacking="accept")
    data.choose(["semseg", "depth"])
    split = data.split("train")
    assert ["depth" in sample["targets"] for sample in split] == [True, True, False, True]
    assert all("semseg" in sample["targets"] for sample in split)
    assert split.sizes == {"semseg": 4, "depth": 3} and data.fingerprint() != whole
    assert any("depth/00003.npy" in remark for remark in data.remarks())
    shutil.rmtree(root / "edge")
    data = nyud(root, lacking="accept")
    data.choose(["edge"])
    refused(lambda: data.split("train"), "no label of task 'edge'", "edge/00001.npy")


def test_a_moved_folder_is_the_same(root, written):
    assert nyud(root).fingerprint() == nyud(written).fingerprint()


def test_a_name_twice(root):
    path = root / "gt_sets" / "train.txt"
    path.write_text(path.read_text() + "00001\n")
    refused(lambda: nyud(root), "00001", "twice", "train")


def test_an_image_in_two_splits(root):
    path = root / "gt_sets" / "val.txt"
    path.write_text(path.read_text() + "00001\n")
    refused(lambda: nyud(root), "00001", "split train and in split val")


def test_swapped_splits(root, monkeypatch):
    kind = DATASETS.get("nyud")
    monkeypatch.setattr(kind, "about", replace(kind.about, counts={"train": 2, "val": 4}))
    refused(lambda: nyud(root), "swapped", "train", "val")


@pytest.mark.parametrize(("options", "parts"), [
    ({"val_count": 3}, ("val_count 3",)), ({"val_count": -1}, ("negative",)), ({"lacking": "perhaps"}, ("perhaps",)),
    ({"size": 0}, ("size",)),
])
def test_options_out_of_range(written, options, parts):
    refused(lambda: nyud(written, **options), *parts)


# ---- label files -----------------------------------------------------------------------------------


def read(root, task: str):
    data = nyud(root)
    data.choose([task])
    return data.split("train")[0]


def test_a_label_of_another_size(root):
    Image.fromarray(np.ones((10, 12), np.uint8)).save(root / "segmentation" / "00001.png")
    refused(lambda: read(root, "semseg"), "segmentation/00001.png", "10×12", "24×32", "images/00001.jpg")


def test_a_class_out_of_range(root):
    labels = np.ones(SIZE, np.uint8)
    labels[3, 4] = 41
    Image.fromarray(labels).save(root / "segmentation" / "00001.png")
    refused(lambda: read(root, "semseg"), "segmentation/00001.png", "label 41")


def test_unknown_depth_is_masked(root):
    depth = np.load(root / "depth" / "00001.npy")
    truth = depth.copy()
    depth[0, :4] = np.nan, np.inf, -1, 0
    truth[0, :4] = 0
    np.save(root / "depth" / "00001.npy", depth)
    np.testing.assert_array_equal(read(root, "depth")["targets"]["depth"], truth)


def test_unknown_normals_are_masked(root):
    normals = np.load(root / "normals" / "00001.npy")
    truth = normals.copy()
    normals[0, 0], normals[0, 1], normals[0, 2] = np.nan, 0, 3
    truth[0, :3] = 0
    np.save(root / "normals" / "00001.npy", normals)
    np.testing.assert_allclose(read(root, "normals")["targets"]["normals"], truth, atol=1e-6)


@pytest.mark.parametrize(("task", "file", "content", "parts"), [
    ("depth", "depth/00001.npy", b"\x93NUMPY", ("cannot be read",)),
    ("depth", "depth/00001.npy", b"", ("cannot be read",)),
    ("semseg", "segmentation/00001.png", b"\x89PNG\r\n\x1a\n", ("cannot be read",)),
    ("semseg", "images/00001.jpg", b"no picture", ("cannot be read",)),
])
def test_damaged_files(root, task, file, content, parts):
    (root / file).write_bytes(content)
    refused(lambda: read(root, task), file, *parts)


def test_nothing_in_an_array_file_is_run(root):
    np.save(root / "depth" / "00001.npy", np.array([print], object), allow_pickle=True)
    refused(lambda: read(root, "depth"), "depth/00001.npy")


def test_a_rendering_in_colour_is_no_label(root):
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "segmentation" / "00001.png")
    refused(lambda: read(root, "semseg"), "segmentation/00001.png", "mode RGB")


def test_normals_of_two_components(root):
    np.save(root / "normals" / "00001.npy", np.zeros((*SIZE, 2), np.float32))
    refused(lambda: read(root, "normals"), "normals/00001.npy", "(24, 32, 2)")


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_class_maps_of_every_type(kind):
    raw = np.array([[0, 1, 2], [3, 255, 2]]).astype(kind)
    np.testing.assert_array_equal(class_map(raw, shifted(4), "file"), [[0, 1, 2], [3, 255, 2]])
    np.testing.assert_array_equal(class_map(raw, shifted(3, 1, (0, 255)), "file"), [[255, 0, 1], [2, 255, 1]])
    with pytest.raises(UserError, match="file has label 3.*0 to 2|file has label 3"):
        class_map(raw, shifted(3), "file")
    if kind != np.uint8:
        signed = np.array([[-1, 0]]).astype(kind)
        np.testing.assert_array_equal(class_map(signed, shifted(2), "file"), [[255, 0]])
        for wrong in (70000 if kind != np.int16 else 300, 256):
            with pytest.raises(UserError, match="file has label"):
                class_map(np.array([[wrong]]).astype(kind), shifted(2), "file")
    if kind in (np.int16, np.int64):
        with pytest.raises(UserError, match="file has label"):
            class_map(np.array([[-2]]).astype(kind), shifted(2), "file")


def test_class_maps_with_nan():
    np.testing.assert_array_equal(class_map(np.array([[np.nan, 1.0]]), shifted(2), "file"), [[255, 1]])


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.float16, np.float64])
def test_minus_one_is_no_label_whatever_255_is(kind):
    raw = np.array([[-1, 0, 1]]).astype(kind)
    for table in (shifted(2), index_table({1: 1, 0: 0}, ()), index_table({0: 0, 1: 1, 255: 1}, ())):
        np.testing.assert_array_equal(class_map(raw, table, "file"), [[255, 0, 1]])
    np.testing.assert_array_equal(class_map(raw, index_table({1: 0}, (0,)), "file"), [[255, 255, 0]])
    with pytest.raises(UserError, match="file has label -2"):
        class_map(np.array([[-2, 1]]).astype(kind), shifted(2), "file")


@pytest.mark.parametrize("wrong", [0.4, 2.5, np.inf, -np.inf, 1e30])
def test_a_map_of_something_else_is_no_class_map(wrong):
    with pytest.raises(UserError, match="file has"):
        class_map(np.array([[wrong, 1.0]]), shifted(5), "file")


def test_class_maps_of_large_unsigned_numbers():
    np.testing.assert_array_equal(class_map(np.array([[0, 255]], np.uint64), shifted(2), "file"), [[0, 255]])
    with pytest.raises(UserError, match="file has label 18446744073709551615"):
        class_map(np.array([[0, 2**64 - 1]], np.uint64), shifted(2), "file")


def test_yes_or_no_in_floats():
    raw = np.array([[-1, 0, 0.4, 0.6, 1.04, -0.04, 255, np.nan]])
    np.testing.assert_array_equal(yes_or_no(raw, "file"), [[255, 0, 0, 1, 1, 0, 255, 255]])
    with pytest.raises(UserError, match="file has 7"):
        yes_or_no(np.array([[0, 7.0]]), "file")


def test_heat_maps_keep_what_is_unknown():
    np.testing.assert_allclose(share(np.array([[-1, -0.5, 0.5, 2, np.nan, np.inf]])), [[-1, 0, 0.5, 1, -1, -1]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, np.float32])
def test_pictures_of_every_type(kind):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    stored = picture / np.float32(255) if kind == np.float32 else picture.astype(kind)
    np.testing.assert_array_equal(picture_of(stored, "file"), picture)
    if kind != np.uint8:
        with pytest.raises(UserError, match="file has .*in floats have 0 to 1, in integers 0 to 255"):
            picture_of(picture.astype(kind) + kind(200), "file")


def test_values_do_not_share_memory_with_what_was_read():
    raw = np.ones((3, 4), np.float32)
    for made in (positive(raw), yes_or_no(raw, "file")):
        assert not np.shares_memory(made, raw)
    vectors = np.zeros((3, 4, 3), np.float32)
    vectors[..., 2] = 1
    assert not np.shares_memory(unit_vectors(vectors, "file"), vectors)


def test_sixteen_bit_images(tmp_path):
    values = np.array([[0, 1, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_indices(tmp_path / "a.png"), values.astype(int))
    palette = Image.fromarray(np.array([[3, 7]], np.uint8), "P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_indices(tmp_path / "p.png"), [[3, 7]])
    with pytest.raises(UserError, match="a.png"):
        read_numbers(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"no table"])
def test_a_table_that_is_none(tmp_path, content):
    (tmp_path / "table.xlsx").write_bytes(content)
    refused(lambda: read_sheet(tmp_path / "table.xlsx"), "table.xlsx")


# ---- CIFAR-100 -------------------------------------------------------------------------------------


def python2_pickle(images: np.ndarray, fine: list[int], coarse: list[int]) -> bytes:
    """A pickle of protocol 2 as Python 2 wrote it: its texts are bytes."""
    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def listed(values: list[int]) -> bytes:
        return b"](" + b"".join(map(number, values)) + b"e"

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR(" + number(3) + text(b"|") + b"NNN" + \
        number(-1) + number(-1) + number(0) + b"tb"
    shape = b"(" + b"".join(map(number, images.shape)) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR(" + \
        number(1) + shape + dtype + b"\x89" + text(images.tobytes()) + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + text(b"fine_labels") + listed(fine) + text(b"coarse_labels") + \
        listed(coarse) + b"u."


@pytest.fixture
def cifar(tmp_path):
    return export("cifar100_hierarchy", tmp_path / "cifar", {"train": 3, "test": 2}, (32, 32)) / "cifar-100-python"


def test_files_of_python_2(cifar):
    images = np.random.default_rng(0).integers(0, 256, (2, 3072)).astype(np.uint8)
    (cifar / "train").write_bytes(python2_pickle(images, [99, 3], [19, 0]))
    data = DATASETS.get("cifar100_hierarchy")(root=str(cifar))
    sample = data.split("train")[0]
    np.testing.assert_array_equal(sample["image"], images[0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert sample["targets"]["class100"] == 99 and sample["targets"]["class20"] == 19


@pytest.mark.parametrize(("content", "parts"), [
    (b"cposix\nsystem\n(S'touch {}'\ntR.", ("posix.system", "no code")),
    (b"cnumpy.f2py.diagnose\nrun_command\n(S'touch {}'\ntR.", ("run_command", "no code")),
    (b"c__builtin__\neval\n(S'1'\ntR.", ("eval",)),
    (b"\x80\x02}(u.", ("no part of CIFAR-100",)),
    (b"\x80\x02K\x01.", ("no part of CIFAR-100",)),
    (b"", ("cannot be read",)),
])
def test_a_pickle_cannot_run_anything(cifar, tmp_path, content, parts):
    mark = tmp_path / "mark"
    (cifar / "train").write_bytes(content.replace(b"{}", str(mark).encode()))
    refused(lambda: DATASETS.get("cifar100_hierarchy")(root=str(cifar)), str(cifar / "train"), *parts)
    assert not mark.exists()


def test_labels_of_cifar_out_of_range(cifar):
    images = np.zeros((1, 3072), np.uint8)
    for fine, coarse in (([100], [0]), ([0], [20]), ([-1], [0])):
        (cifar / "train").write_bytes(python2_pickle(images, fine, coarse))
        refused(lambda: DATASETS.get("cifar100_hierarchy")(root=str(cifar)), "out of range")
    (cifar / "train").write_bytes(python2_pickle(np.zeros((2, 3072), np.uint8), [5, 5], [1, 2]))
    refused(lambda: DATASETS.get("cifar100_hierarchy")(root=str(cifar)), "class 5", "different groups")
    (cifar / "meta").unlink()
    refused(lambda: DATASETS.get("cifar100_hierarchy")(root=str(cifar)), "lacks meta")


# ---- manifest --------------------------------------------------------------------------------------

TASKS = {"semseg": {"classes": ["sky", "ground"]}, "kind": {"task": "classification", "classes": ["cat", "dog"]},
         "facts": {"task": "attributes", "classes": ["big", "red"]}, "spot": {"task": "localization"}}


@pytest.fixture
def table(tmp_path):
    """A function that writes a table and opens it."""
    for name in ("a", "b"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.ones(SIZE, np.uint8)).save(tmp_path / "m.png")

    def make(text: str, suffix: str = ".csv", **options):
        path = tmp_path / f"table{suffix}"
        path.write_text(text)
        return DATASETS.get("manifest")(file=str(path), **{"tasks": TASKS, **options})

    return make


def test_a_manifest_of_both_kinds(table):
    csv = table("image,split,semseg,kind,facts,spot\na.png,,m.png,dog,big;red,3.5;2\nb.png,val,,0,0;?,\n")
    lines = [{"image": "a.png", "semseg": "m.png", "kind": "dog", "facts": ["big", "red"], "spot": [3.5, 2]},
             {"image": "b.png", "split": "val", "kind": 0, "facts": [0, None], "spot": None}]
    jsonl = table("\n".join(map(json.dumps, lines)) + "\n\n", ".jsonl")
    for data in (csv, jsonl):
        assert data.splits == ("train", "val")
        first, second = data.split("train")[0]["targets"], data.split("val")[0]["targets"]
        assert set(first) == set(TASKS) and set(second) == {"kind", "facts"}
        assert first["kind"] == 1 and second["kind"] == 0 and first["facts"].tolist() == [1, 1]
        assert second["facts"].tolist() == [0, 255] and first["semseg"].min() == 1
        assert np.unravel_index(first["spot"].argmax(), SIZE) in [(1, 3), (2, 3)]
        assert data.split("train").sizes == {"semseg": 1, "kind": 1, "facts": 1, "spot": 1}


HEAD = "image,split,semseg,kind,facts,spot\n"


@pytest.mark.parametrize(("text", "parts"), [
    ("", ("first line",)),
    (HEAD, ("no samples",)),
    ("picture,kind\na.png,cat\n", ("first line", "image")),
    (HEAD + "a.png,,m.png,cow,,\n", ("line 2", "'kind'", "cow")),
    (HEAD + "a.png,,m.png,2,,\n", ("line 2", "class 2")),
    (HEAD + "a.png,,,,1;2,\n", ("line 2", "'facts'")),
    (HEAD + "a.png,,,,,middle\n", ("line 2", "'spot'", "x;y")),
    (HEAD + "a.png,,m.png,inf,,\n", ("line 2", "class inf")),
    (HEAD + "a.png,training,,,,\n", ("line 2", "split 'training'")),
    (HEAD + "a.png,,,cat,,\na.png,,,dog,,\n", ("a.png twice", "lines 2 and 3")),
    (HEAD + "a.png,,,cat,,\n./a.png,val,,dog,,\n", ("twice", "in splits train and val")),
    (HEAD + "c.png,,,cat,,\n", ("1 images", "c.png")),
    (HEAD + "a.png,,n.png,cat,,\n", ("1 label files", "n.png")),
    (HEAD + "a.png,val,,cat,,\n", ("no sample of split train",)),
    (HEAD + "a.png,,,cat,,,more\n", ("line 2", "more cells")),
    (HEAD + ",,,cat,,\n", ("line 2", "names no image")),
    ("image,semseg,kind,facts\na.png,,cat,\n", ("no column 'spot'",)),
    ("image,semseg,kind,facts,spot,deph\na.png,,cat,,,\n", ("line 1", "column 'deph'", "'{deph: null}'")),
    ("image,semseg,kind,facts,spots\na.png,,cat,,\n", ("column 'spots'", "did you mean 'spot'", "no column for spot:")),
])
def test_mistakes_in_a_manifest(table, text, parts):
    refused(lambda: table(text), "manifest", *parts)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_with_other_separators(table, separator):
    text = HEAD + 'a.png,,m.png,dog,big,"3.5;2"\nb.png,val,,0,"0;?"\n'
    data = table(text.replace(",", separator))
    assert data.fingerprint() == table(text).fingerprint() and data.split("train").sizes["spot"] == 1
    refused(lambda: table((HEAD + "a.png,,m.png,dog,big,3.5;2\n").replace(",", ";")), "line 2", "more cells")


def test_columns_that_are_left_out(table):
    head, row = "image,notes,depth\n", "a.png,far away,\n"
    data = table(head + row, tasks={"notes": None, "depth": None})
    assert list(data.labels) == ["depth"]
    refused(lambda: table(head + row, tasks={"depth": {}}), "line 1", "column 'notes'", "leave it out", "{notes: null}")
    refused(lambda: table(head + row, tasks={"notes": None}), "data.tasks is empty")


@pytest.mark.parametrize(("text", "parts"), [
    ("{\n", ("line 1", "not JSON")), ("[1]\n", ("line 1", "not an object")),
    ('{"image": 3}\n', ("line 1", "names no image")), ('{"image": "a.png", "semseg": 3}\n', ("line 1", "path")),
])
def test_mistakes_in_lines_of_json(table, text, parts):
    refused(lambda: table(text, ".jsonl"), *parts)


@pytest.mark.parametrize(("tasks", "parts"), [
    ({}, ("data.tasks",)), ({"semseg": {}}, ("names of its classes",)), ({"deph": {}}, ("did you mean 'depth'",)),
    ({"depth": {"scal": 2}}, ("did you mean 'scale'",)), ({"depth": 3}, ("depth: {",)),
    ({"depth": {"scale": 0}}, ("scale is 0", "above 0")), ({"depth": {"scale": float("nan")}}, ("above 0",)),
    ({"depth": {"classes": ["a", "b"]}}, ("'classes' has no effect",)), ({"edge": {"scale": 2}}, ("'scale' has no",)),
    ({"semseg": {"classes": "sky"}}, ("classes is 'sky'", "list")), ({"semseg": {"classes": 3}}, ("classes is 3",)),
    ({"semseg": {"classes": ["a", "a"]}}, ("different names",)),
    ({"semseg": {"classes": ["a", "b"], "first": -1}}, ("first is from 0",)),
    ({"semseg": {"classes": ["a", "b"], "ignored": 1e9}}, ("'semseg'", "ignored")),
    ({"image": {"task": "depth"}}, ("a meaning of its own",)), ({"depth": {"scale": "mm"}}, ("'depth'", "mm")),
])
def test_mistakes_in_the_description(table, tasks, parts):
    refused(lambda: table("image,depth\na.png,\n", tasks=tasks), *parts)


def test_a_file_of_another_size_in_a_manifest(table, tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "small.png")
    data = table(HEAD + "a.png,,small.png,,,\n")
    refused(lambda: data.split("train")[0], "small.png", "4×5", "a.png", "24×32")


@pytest.fixture
def label(tmp_path):
    """A function that reads an array as the label file of a task."""

    def read(array, task: str, end: str = "png", **options):
        array = np.asarray(array)
        Image.fromarray(np.zeros((*array.shape[:2], 3), np.uint8)).save(tmp_path / "a.png")
        if end == "png":
            Image.fromarray(array).save(tmp_path / "m.png")
        else:
            np.save(tmp_path / "m.npy", array)
        (tmp_path / "t.csv").write_text(f"image,{task}\na.png,m.{end}\n")
        data = DATASETS.get("manifest")(file=str(tmp_path / "t.csv"), tasks={task: options})
        return data.split("train")[0]["targets"][task].tolist()

    return read


@pytest.mark.parametrize("kind", ["png", np.uint8, np.int32, np.float32])
@pytest.mark.parametrize(("content", "ignored", "truth"), [
    ([[0, 255]], None, [[0, 1]]), ([[0, 1]], None, [[0, 1]]), ([[0, 1, 255]], None, [[0, 1, 255]]),
    ([[0, 255]], [255], [[0, 255]]), ([[0, 1, 255]], [], [[0, 1, 1]]), ([[0, 128, 255]], [128], [[0, 255, 1]]),
])
def test_masks_in_black_and_white(label, kind, content, ignored, truth):
    """255 is yes where nothing is 1, and "no label" beside 0 and 1, unless it is said which numbers have no label."""
    options = {} if ignored is None else {"ignored": ignored}
    end, array = ("png", np.uint8) if kind == "png" else ("npy", kind)
    assert label(np.array(content, array), "saliency", end, **options) == truth


@pytest.mark.parametrize(("task", "content", "kind", "end", "options", "truth"), [
    ("semseg", [[0, 1, 65535]], np.uint16, "png", {"ignored": 65535}, [[0, 1, 255]]),
    ("semseg", [[0, 1, -100, -1]], np.int64, "npy", {"ignored": [-100]}, [[0, 1, 255, 255]]),
    ("semseg", [[0, 1, -100, -1]], np.float32, "npy", {"ignored": [-100]}, [[0, 1, 255, 255]]),
    ("semseg", [[200, 201, 0]], np.uint8, "png", {"first": 200, "ignored": [0]}, [[0, 1, 255]]),
    ("depth", [[1000, 65535, 0]], np.uint16, "png", {"ignored": 65535, "scale": 0.001}, [[1, 0, 0]]),
    ("keypoints", [[0, 255, 7]], np.uint8, "png", {"ignored": 7, "scale": 1 / 255}, [[0, 1, -1]]),
    ("keypoints", [[0, 1, -1]], np.float32, "npy", {}, [[0, 1, -1]]),
])
def test_stored_numbers_without_a_label(label, task, content, kind, end, options, truth):
    classes = {"classes": ["a", "b"]} if task == "semseg" else {}
    np.testing.assert_allclose(label(np.array(content, kind), task, end, **classes, **options), truth, atol=1e-6)


def test_a_name_that_no_file_system_takes(table):
    refused(lambda: table('{"image": "a\\u0000/b.png", "depth": null}\n', ".jsonl", tasks={"depth": {}}), "1 images")


def test_a_point_outside_its_image(table):
    data = table(HEAD + "a.png,,,,,33;2\n")
    data.choose(["spot"])
    refused(lambda: data.split("train")[0], "a.png", "(33, 2)", "24×32")


def test_options_of_another_type(written):
    for options in ({"size": "ab"}, {"val_count": "x"}, {"root": 5}):
        refused(lambda options=options: open_data_set("nyud", {"root": str(written), **options}), "nyud", "options")
    refused(lambda: open_data_set("nyud", {"rot": "x"}), "no option 'rot'", "did you mean 'root'")
    refused(lambda: nyud(written, val_count=-2), "must not be negative")


# ---- tables and lists ------------------------------------------------------------------------------


def test_lists_of_celeba(tmp_path):
    root = export("celeba", tmp_path / "celeba", {"train": 2, "val": 1, "test": 1}, (16, 16))
    path = root / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()

    def opened(*rows):
        path.write_text("\n".join([*lines[:2], *rows]) + "\n")
        return DATASETS.get("celeba")(root=str(root))

    assert len(opened(*lines[2:]).split("train")) == 2
    first, other = lines[2], lines[2][:-2] + (" 1" if lines[2].endswith("-1") else "-1")
    assert opened(first, *lines[3:]).fingerprint() != opened(other, *lines[3:]).fingerprint()
    refused(lambda: opened(*lines[2:], lines[3]), "two lines of 000002.jpg")
    refused(lambda: opened(*lines[2:-1]), "no line of 1 images", "000004.jpg")
    refused(lambda: opened(*lines[2:-1], lines[-1][:-3]), "40 times")


@pytest.mark.filterwarnings("error")
def test_a_missing_table_of_refuge(tmp_path):
    root = export("refuge", tmp_path / "refuge", {"train": 4, "val": 2, "test": 2}, (16, 16))
    for folder, name in (("Annotation-Training400", "Fovea_location"), ("REFUGE-Validation400-GT", "Fovea_locations")):
        (root / folder / f"{name}.xlsx").unlink()
    data = DATASETS.get("refuge")(root=str(root))
    assert sum("is missing" in remark for remark in data.remarks()) == 2
    data.choose(["disc", "glaucoma"])
    assert len(data.split("train")) == 4 and len(data.split("test")) == 2  # the folders tell of training images
    refused(lambda: data.split("val"), "Fovea_locations.xlsx", "'glaucoma'", "--data.lacking accept")
    data.choose(["fovea"])
    refused(lambda: data.split("train"), "Fovea_location.xlsx", "'fovea'")
    both = DATASETS.get("refuge")(root=str(root), division="800/400")
    both.choose(["glaucoma"])
    refused(lambda: both.split("train"), "Fovea_locations.xlsx")
    accepted = DATASETS.get("refuge")(root=str(root), lacking="accept")
    accepted.choose(["glaucoma"])
    assert [len(accepted.split(split)) for split in ("train", "val")] == [4, 2]


def test_an_encrypted_table(tmp_path):
    content = export("refuge", tmp_path / "r", {"train": 1, "val": 1, "test": 1}, (16, 16))
    path = content / "Annotation-Training400" / "Fovea_location.xlsx"
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := raw.find(signature, place + 1)) >= 0:
            raw[place + offset] |= 1
    path.write_bytes(raw)
    refused(lambda: read_sheet(path), "Fovea_location.xlsx", "encrypted")
