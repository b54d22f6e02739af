"""Hostile and damaged files, exports, the zoo, the commands, and the memory that loading takes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

import pretrain.checkpoints
from pretrain import CheckpointError, inspect_checkpoint, load_backbone, save_backbone, zoo
from pretrain.array_pickle import load_arrays
from pretrain.formats.detectron2 import from_detectron2, to_detectron2

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"channels": [8, 8, 16, 16]}


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


class Custom:
    """A class of somebody's own."""


def network(name="resnet18", **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


# --- hostile files


def _placed(payload):
    """A payload in every place of a training file."""
    state = {"encoder_q.conv1.weight": torch.zeros(1)}
    return {
        "alone": payload, "state_dict": {"state_dict": payload}, "tensor": {"state_dict": {**state, "x": payload}},
        "optimizer": {"state_dict": state, "optimizer": payload}, "list": {"state_dict": state, "a": [1, (payload,)]},
        "args": {"student": state, "teacher": state, "args": Namespace(lr=payload)},
    }


@pytest.mark.parametrize("place", _placed(None))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_is_refused_by_name_and_not_run(place, zipped, tmp_path):
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    torch.save(_placed(Payload(witness))[place], path, _use_new_zipfile_serialization=zipped)
    for read in (load_backbone, inspect_checkpoint):
        with pytest.raises(CheckpointError, match=r"evil\.pth is refused: it wants to run (posix|os)\.system"):
            read(path)
    assert not witness.exists()


def test_classes_and_modules_are_refused_by_name(tmp_path):
    for thing, name in ((Custom(), "Custom"), (network(**SMALL), "timm.models.resnet.ResNet"),
                        (Path("x"), "pathlib"), (print, "print")):
        torch.save({"model": thing}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=f"wants to run .*{name}"):
            load_backbone(tmp_path / "a.pth")


def test_namespace_alone_is_allowed_and_only_meanwhile(tmp_path):
    torch.save({"state_dict": network().state_dict(), "args": Namespace(lr=0.1, where={"a": [1]})}, tmp_path / "a.pth")
    assert inspect_checkpoint(tmp_path / "a.pth").training == {"args": "(2 options)"}
    assert Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickles_of_arrays_run_nothing(protocol, tmp_path):
    path, witness = tmp_path / "evil.pkl", tmp_path / "witness"
    content = {"model": {"stem.conv1.weight": np.zeros(3, np.float32)}, "__author__": Payload(witness)}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match="evil.pkl is refused: it wants to run posix.system"):
        load_backbone(path)
    assert not witness.exists()
    path.write_bytes(pickle.dumps({"model": np.array([Payload(witness)], dtype=object)}, protocol=protocol))
    with pytest.raises(CheckpointError):
        load_backbone(path)
    assert not witness.exists()


@pytest.mark.parametrize("names", [b"c_codecs\nencode\n(Va\nVrot13\ntR.", b"cnumpy\nload\n(Va\ntR.",
                                   b"cnumpy.core.multiarray\nscalar\n(tR."])
def test_other_names_in_pickles_of_arrays(names, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + names)
    with pytest.raises(CheckpointError, match="is refused: it wants"):
        load_backbone(tmp_path / "a.pkl")


class Call:
    """What a pickle calls, with what, and the state that it then sets."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("hostile", [
    Call(np.ndarray, (1,), "O", b"A" * 8),
    Call(np.ndarray, (1,), "f8", b"A" * 8),
    Call(np.dtype, "O"), Call(np.dtype, "f4,O"), Call(np.dtype, "V8"),
    Call(np.dtype, "f8", state=(3, "<", None, ("a",), {"a": (np.dtype("f8"), 0)}, 8, 1, 0)),
    Call(np.zeros(1).__reduce__()[0], np.ndarray, (0,), b"b", state=(1, (2**40,), np.dtype("f4"), False, b"1234")),
    Call(np.zeros(1).__reduce__()[0], np.ndarray, (0,), b"b", state=(1, (1,), "O", False, b"A" * 8)),
    Call(np.zeros(1).__reduce_ex__(5)[0], b"A" * 8, "O", (1,), "C"),
])
@pytest.mark.parametrize("protocol", [2, 4])
def test_bytes_never_become_addresses(hostile, protocol, tmp_path):
    """numpy's own constructors would take the bytes of a file for pointers to objects."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"stem.conv1.weight": hostile}}, protocol=protocol))
    with pytest.raises(CheckpointError, match="refused|damaged"):
        load_backbone(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind_come_out_of_pickles_as_they_are(protocol, tmp_path):
    draw = np.random.default_rng(0)
    arrays = {
        "native": draw.standard_normal((2, 3), np.float32), "half": draw.standard_normal(3).astype("f2"),
        "swapped": draw.standard_normal(3).astype(">f8"), "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "strided": np.arange(9)[::-2], "turned": draw.standard_normal((2, 3, 4)).transpose(2, 0, 1),
        "one": np.array(3), "truth": np.array([True, False]), "bytes": np.arange(4, dtype=np.uint8),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=protocol))
    for name, value in load_arrays(tmp_path / "a.pkl")["model"].items():
        assert value.shape == arrays[name].shape and np.array_equal(value.numpy(), arrays[name]), name


def _safetensors(header, data=b"\0" * 16, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


_TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HOSTILE = {
    "longer than the file": _safetensors({"a": _TENSOR}, length=2**40),
    "longest there is": _safetensors({"a": _TENSOR}, length=2**64 - 1),
    "just too long": _safetensors({"a": _TENSOR}, length=200_000_000),
    "shorter than it is": _safetensors({"a": _TENSOR}, length=8),
    "nothing": _safetensors({"a": _TENSOR}, length=0),
    "not JSON": _safetensors(b"{" + b"x" * 40),
    "nested": _safetensors(b"{" * 20_000),
    "beyond the data": _safetensors({"a": {**_TENSOR, "data_offsets": [0, 2**40], "shape": [2**38]}}),
    "backwards": _safetensors({"a": {**_TENSOR, "data_offsets": [16, 0]}}),
    "negative": _safetensors({"a": {**_TENSOR, "data_offsets": [-16, 0]}}),
    "overflowing shape": _safetensors({"a": {**_TENSOR, "shape": [2**33, 2**33]}}),
    "overlapping": _safetensors({"a": _TENSOR, "b": _TENSOR}),
    "a hole": _safetensors({"a": {**_TENSOR, "data_offsets": [8, 16], "shape": [2]}}),
    "unknown dtype": _safetensors({"a": {**_TENSOR, "dtype": "F31"}}),
    "cut": _safetensors({"a": _TENSOR}, data=b"\0" * 15),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_hostile_headers_of_safetensors(case, suffix, tmp_path):
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(HOSTILE[case])
    with pytest.raises(CheckpointError, match=f"hostile{suffix}") as caught:
        inspect_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("header, message", [
    ({"options": "{"}, "header whose 'options' is no JSON object"),
    ({"pretrained_cfg": "[1]"}, "header whose 'pretrained_cfg' is no JSON object"),
    ({"pretrained_cfg": '{"mean": 1}'}, "looks like 'tasklift backbone' and is not made like it"),
    ({"options": '{"checkpoint_path": "/etc/passwd"}'}, "asks timm for 'checkpoint_path', which would load"),
    ({"options": '{"pretrained": true}'}, "asks timm for 'pretrained'"),
    ({"options": '{"pretrained_cfg_overlay": {"file": "x"}}'}, "asks timm for 'pretrained_cfg_overlay'"),
    ({"architecture": "hf-hub:somebody/something"}, "timm has no model 'hf-hub:"),
])
def test_headers_of_ours_are_not_trusted(header, message, tmp_path):
    path = tmp_path / "b.safetensors"
    path.write_bytes(save({"conv1.weight": torch.zeros(1)}, {
        "tasklift": "backbone-1", "architecture": "resnet18", "options": "{}", "pretrained_cfg": "{}", **header}))
    for read in (load_backbone, inspect_checkpoint):
        with pytest.raises(CheckpointError, match=message):
            read(path)


@pytest.mark.parametrize("content", [
    {"state_dict": 3}, {"state_dict": {}}, {"state_dict": {1: torch.zeros(1)}}, {}, {1: 2},
    {"format": "tasklift-pretrain/1"}, {"format": "tasklift-pretrain/1", "query": {"backbone.a": 3}},
    {"teacher": 3, "student": {}}, {"teacher": {"backbone.a": torch.zeros(1), "head.b": torch.zeros(1)}, "student": 3},
])
def test_odd_contents_are_one_line(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="odd.pth") as caught:
        load_backbone(tmp_path / "odd.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bomb", [False, True])
def test_compressed_zip_files_are_refused(bomb, tmp_path):
    """Mapping would take the packed bytes for weights, and a small file may unpack to any size."""
    torch.save({"conv1.weight": torch.rand(64, 3, 7, 7)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as file:
        members = {name: file.read(name) for name in file.namelist()}
    if bomb:
        members["a/data.pkl"] = bytes(20_000_000)
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="packed.pth is refused: its part 'a/data.pkl' is compressed") as caught:
        inspect_checkpoint(tmp_path / "packed.pth")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and peak < 5_000_000


def test_a_zip_file_whose_sizes_lie_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.rand(64, 3, 7, 7)}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    start = content.index(b"PK\x01\x02")  # the directory at the end; sizes are at 20 and 24 of an entry
    lie = content[: start + 20] + (2**31).to_bytes(4, "little") * 2 + content[start + 28 :]
    (tmp_path / "lie.pth").write_bytes(lie)
    with pytest.raises(CheckpointError, match="lie.pth is damaged or cut off .its part .* claims 2147483648 bytes"):
        inspect_checkpoint(tmp_path / "lie.pth")


def test_a_few_numbers_that_claim_to_be_many_are_not_resized(tmp_path):
    with torch.device("meta"):
        wanted = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    state = {key: torch.zeros(1).expand(value.shape) for key, value in wanted.items()}
    state["pos_embed"] = torch.zeros(1, 1, 1).expand(1, 2**40 + 1, 192)
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed is \[1, 1099511627777, 192\] there"):
        load_backbone(tmp_path / "vit.pth", "vit_tiny_patch16_224", img_size=96)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><title>Virus scan warning</title>", b"PK\x03\x04",
                                     b"\x1f\x8b\x08", b"\x80\x02", b"\x89PNG\r\n"])
def test_other_files_are_one_line(content, tmp_path):
    (tmp_path / "file.pth.tar").write_bytes(content + bytes(100))
    with pytest.raises(CheckpointError, match="file.pth.tar is (damaged|refused)") as caught:
        inspect_checkpoint(tmp_path / "file.pth.tar")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors", "pkl"])
def test_files_cut_anywhere_are_refused(kind, tmp_path):
    path = tmp_path / {"safetensors": "a.safetensors", "pkl": "a.pkl"}.get(kind, "a.pth")
    model = network(**SMALL)
    model.pretrained_cfg = {**model.pretrained_cfg, "architecture": "resnet18", "options": SMALL}
    if kind in ("zip", "old"):
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    else:
        pretrain.checkpoints.export_for(path).write(path, model, "test")
    whole = path.read_bytes()
    for share in (0.999, 0.9, 0.5, 0.1, 0.01, 0.001):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match="cut off|refused") as caught:
            inspect_checkpoint(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


# --- exports


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_an_export_gives_the_same_features_bit_for_bit(name, suffix, tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "source.pth", tmp_path / f"export{suffix}"
    model = network(name)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, source)
    monkeypatch.setattr(sys, "argv", ["checkpoints", "export", str(source), str(target)])
    if suffix == ".pkl" and name.startswith("vit"):
        with pytest.raises(CheckpointError, match="Detectron2 has no place for cls_token"):
            pretrain.checkpoints.main()
        assert not target.exists()
        return
    assert pretrain.checkpoints.main() == 0
    out = capsys.readouterr().out
    assert f"wrote {target}: {name}" in out and (("mean" in out or "MEAN" in out) == (suffix != ".safetensors"))
    exported = load_backbone(target).eval()
    images = torch.randn(1, 3, *((96, 64) if suffix == ".pkl" else (224, 224)))
    with torch.no_grad():
        assert torch.equal(load_backbone(source).eval()(images), model(images))
        assert torch.equal(exported(images), model(images))
    if suffix == ".pth":
        timm.create_model(name, num_classes=0).load_state_dict(torch.load(target, weights_only=True))


def test_exports_carry_the_convention(tmp_path):
    """And what cannot be told from shapes."""
    model = network(**SMALL)
    save_backbone(tmp_path / "b.safetensors", model, "resnet18", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 64, 64),
                  options=SMALL)
    for suffix in (".safetensors", ".pkl"):
        pretrain.checkpoints._export(str(tmp_path / "b.safetensors"), str(tmp_path / f"c{suffix}"), None)
        config = load_backbone(tmp_path / f"c{suffix}").pretrained_cfg
        assert config["mean"] == (0.1, 0.2, 0.3) and config["std"] == (0.4, 0.5, 0.6)
        assert config["input_size"] == (3, 64, 64) and config["options"] == SMALL


def test_detectron2_names(tmp_path):
    """What its ResNet calls its tensors; the file is a plain pickle of arrays."""
    expected = {
        "conv1.weight": "stem.conv1.weight", "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.conv2.weight": "res2.0.conv2.weight", "layer4.2.bn3.bias": "res5.2.conv3.norm.bias",
        "layer2.0.downsample.0.weight": "res3.0.shortcut.weight",
        "layer3.0.downsample.1.running_mean": "res4.0.shortcut.norm.running_mean", "fc.weight": None,
        "layer1.0.conv1.0.weight": None, "conv1.0.weight": None,
    }
    assert {key: to_detectron2(key) for key in expected} == expected
    model = network("resnet26")
    keys = [key for key in model.state_dict() if "num_batches" not in key]
    assert [from_detectron2(to_detectron2(key)) for key in keys] == keys
    torch.save(model.state_dict(), tmp_path / "a.pth")
    pretrain.checkpoints._export(str(tmp_path / "a.pth"), str(tmp_path / "a.pkl"), None)
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert len(content["model"]) == len(keys) and content["matching_heuristics"] and content["__author__"]
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in content["model"].values())
    info = inspect_checkpoint(tmp_path / "a.pkl")
    assert (info.format, info.architecture, dict(info.training)) == ("Detectron2", "resnet26", {})
    state = {f"backbone.bottom_up.{name}": torch.from_numpy(value) for name, value in content["model"].items()}
    torch.save({"model": {**state, "roi_heads.x": torch.zeros(1)}, "iteration": 9}, tmp_path / "detector.pth")
    assert torch.equal(load_backbone(tmp_path / "detector.pth").conv1.weight, model.conv1.weight)


def test_an_export_with_its_classifier(tmp_path):
    whole = timm.create_model("resnet18", num_classes=7, **SMALL)
    torch.save(whole.state_dict(), tmp_path / "a.pth")
    model = load_backbone(tmp_path / "a.pth", "resnet18", keep_classifier=True, **SMALL)
    model.pretrained_cfg["options"] = SMALL
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"b{suffix}"
        pretrain.checkpoints.export_for(path).write(path, model, "a.pth")
        kept = load_backbone(path, "resnet18", keep_classifier=True, **SMALL)
        assert torch.equal(kept.fc.weight, whole.fc.weight) and kept.num_classes == 7
        assert load_backbone(path, "resnet18", **SMALL).num_classes == 0


# --- the zoo


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A zoo with one backbone that a program can fetch, and the folder of its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    file = tmp_path / "web" / "small.pth"
    file.parent.mkdir()
    torch.save(network().state_dict(), file)
    entry = zoo.Entry(file.as_uri(), "state dict", "resnet18", "none", "none")
    monkeypatch.setattr(zoo, "entries", lambda: {"small": entry})
    return file, entry, tmp_path / "cache" / "hub" / "checkpoints"


def test_a_backbone_of_no_known_sha256_is_fetched_when_asked_recorded_and_checked(published, monkeypatch, capsys):
    file, _, cache = published
    with pytest.raises(CheckpointError, match="no sha256 of small is published.*fetch small --sha256 HEX .or --unv"):
        load_backbone("small")
    assert not list(cache.glob("*small.pth"))
    monkeypatch.setattr(sys, "argv", ["checkpoints", "fetch", "small", "--unverified"])
    assert pretrain.checkpoints.main() == 0 and capsys.readouterr().out == f"{cache / 'small.pth'}\n"
    assert torch.equal(load_backbone("small").conv1.weight, network().conv1.weight)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (cache / "small.pth.sha256").read_text() == f"{digest}  small.pth\n"
    file.unlink()
    assert inspect_checkpoint("small").architecture == "resnet18"  # from the cache
    with open(cache / "small.pth", "ab") as changed:
        changed.write(b"x")
    with pytest.raises(CheckpointError, match=r"has changed since its first use: its sha256"):
        load_backbone("small")


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_published_hash_is_checked_before_use(published, kind, monkeypatch):
    file, entry, cache = published
    right = hashlib.new(kind, file.read_bytes()).hexdigest()[:8]
    with pytest.raises(CheckpointError, match=f"is not the published small: its {kind} begins with {right}"):
        zoo.fetch("small", replace(entry, digest=f"{kind}:00000000"), unverified=True)
    assert not list(cache.glob("small.pth*"))
    assert zoo.fetch("small", replace(entry, digest=f"{kind}:{right}"), unverified=True) == cache / "small.pth"


def test_a_sha256_of_the_users_is_checked_before_use(published):
    file, entry, cache = published
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match=f"is not what --sha256 says: its sha256 is {right}"):
        zoo.fetch("small", sha256="0" * 64)
    assert not list(cache.glob("*small.pth"))
    for wrong in ("", "12", right + "0", "g" * 64):
        with pytest.raises(CheckpointError, match="is no sha256: give its 64 hexadecimal digits"):
            zoo.fetch("small", sha256=wrong)
    assert zoo.fetch("small", sha256=right.upper()) == cache / "small.pth"
    (cache / "small.pth").unlink()
    assert zoo.fetch("small") == cache / "small.pth", "the sha256 that was recorded is a known one"
    with pytest.raises(CheckpointError, match="is not what --sha256 says"):
        zoo.fetch("small", sha256="0" * 64)


def test_half_a_hash_of_another_kind_is_not_enough(published):
    """MoCo publishes eight digits of an md5: they find damage, and no forgery."""
    file, entry, cache = published
    md5 = replace(entry, digest=f"md5:{hashlib.md5(file.read_bytes()).hexdigest()[:8]}")
    with pytest.raises(CheckpointError, match="no sha256 of small is published"):
        zoo.fetch("small", md5)
    assert zoo.fetch("small", md5, unverified=True) == cache / "small.pth"
    assert md5.checked_by == "md5, first 8 digits; sha256 unknown" and entry.checked_by == "sha256 unknown"
    assert replace(entry, digest="sha256:f37072fd").checked_by == "sha256, first 8 digits"


def test_without_a_network_the_error_says_what_to_place_where(published):
    file, entry, cache = published
    file.unlink()
    with pytest.raises(CheckpointError, match=f"get the file elsewhere and place it at {cache}/small.pth"):
        zoo.fetch("small", unverified=True)
    assert not list(cache.glob("*small.pth*arriving"))
    by_hand = zoo.Entry("https://example.org/page", "DenseCL", "resnet50", "-", "-", by_hand=True, file="d.pth")
    with pytest.raises(CheckpointError, match=f"get it from https://example.org/page and place it at {cache}/d.pth"):
        zoo.fetch("d", by_hand)
    with pytest.raises(CheckpointError, match="did you mean 'small'"):
        load_backbone("smal")


def test_the_zoo_has_what_was_promised():
    known = zoo.entries()
    for start, count in (("moco_v2_", 2), ("swav_", 4), ("densecl_", 4), ("dino_", 7), ("revisiting_", 4)):
        assert sum(name.startswith(start) for name in known) == count
    from pretrain.formats import FORMATS

    for name, entry in known.items():
        assert entry.address.startswith("https://") and entry.format in FORMATS.names(), name
        assert timm.is_model(entry.architecture) and entry.scores and entry.licence, name
        assert entry.path.suffix in (".pth", ".tar"), name
        assert not entry.digest or entry.digest.partition(":")[0] in ("sha256", "md5"), name


# --- the commands


def test_what_inspect_prints(tmp_path, monkeypatch, capsys):
    state = network().state_dict()
    content = {"epoch": 800, "arch": "resnet18", "state_dict": {
        **{f"module.encoder_q.{key}": value for key, value in state.items()},
        "module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.encoder_q.fc.2.weight": torch.zeros(128, 512),
        "module.encoder_k.conv1.weight": torch.zeros(64, 3, 7, 7), "module.queue": torch.zeros(128, 1024),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long)},
        "optimizer": {"state": {0: 1, 1: 2}, "param_groups": [{"lr": 0.1}]}}
    torch.save(content, tmp_path / "moco.pth")
    monkeypatch.setattr(sys, "argv", ["checkpoints", "inspect", str(tmp_path / "moco.pth")])
    assert pretrain.checkpoints.main() == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("format MoCo v2", "architecture resnet18 (by the shapes of its tensors)",
                 "input 3×224×224 pixels, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
                 "backbone 120 11.2 M module.encoder_q.", "projection head 2 327.7 k module.encoder_q.fc.",
                 "momentum encoder 1 9.4 k module.encoder_k.conv1.weight", "queue 2 131.1 k module.queue",
                 "classifier none", "training epoch 800, arch 'resnet18', optimizer (state of 2 tensors)",
                 "would load 120 of 120 tensors of resnet18: everything"):
        assert line in lines, line


@pytest.mark.parametrize("words", [["zoo"], ["zoo", "moco_v2_800ep"], ["--help"], ["inspect", "--help"],
                                   ["export", "--help"], ["fetch", "--help"]])
def test_the_other_commands(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["checkpoints", *words])
    try:
        assert pretrain.checkpoints.main() == 0
    except SystemExit as end:
        assert end.code == 0
    out = capsys.readouterr().out
    assert ("moco_v2_800ep" in out) == (words[0] == "zoo") and len(out) > 200
    if words == ["zoo"]:
        rows = {line.split()[0]: line for line in out.splitlines() if line}
        assert "sha256 unknown" in rows["swav_800ep"] and "by fetch" in rows["swav_800ep"]
        assert "md5, first 8 digits; sha256 unknown" in rows["moco_v2_800ep"]
        assert "by hand" in rows["densecl_coco_800ep"]
        assert "sha256, first 8 digits" in rows["torchvision_resnet50"] and "none was measured again" in out
    elif words[0] == "zoo":
        assert "https://dl.fbaipublicfiles.com/moco/" in out


# --- memory

_MEASURE = """
import re, sys, timm
from pretrain import load_backbone
import pretrain.checkpoints

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])

timm.create_model("resnet50", num_classes=0)
before = peak()
model = load_backbone(sys.argv[1])
print(peak() - before)
"""


def added_memory(path: Path) -> int:
    """Bytes by which loading raises the peak of a process that has built the network before."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], cwd=ROOT, text=True, capture_output=True,
                          check=True)
    return int(done.stdout.split()[-1])


def whole_training_file(path: Path, zipped: bool) -> int:
    """A file of Revisiting-Contrastive-SSL as large as they are; its size."""
    layout = json.loads((Path(__file__).parent.parent / "fixtures" / "checkpoint_layouts" /
                         "revisiting_contrastive_ssl.json").read_text())["state_dict"]
    state = {key: torch.full(shape, 1, dtype=getattr(torch, dtype)) for key, (shape, dtype) in layout.items()}
    buffers = {number: {"momentum_buffer": torch.ones_like(value)}
               for number, (key, value) in enumerate(state.items()) if "encoder_q" in key and value.ndim}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state,
                "optimizer": {"state": buffers, "param_groups": [{"lr": 0.03}]}}, path,
               _use_new_zipfile_serialization=zipped)
    return path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_file_is_not_held_twice_and_its_queues_are_not_read(zipped, tmp_path):
    """Mapped: the backbone's own 94 MB are touched. An old file has to be read, once."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell the peak of memory")
    path = tmp_path / "full.pth.tar"
    size = whole_training_file(path, zipped)
    try:
        added = added_memory(path)
    finally:
        path.unlink()
    print(f"{size / 1e6:.0f} MB on disk, {added / 1e6:.0f} MB more at the peak")
    assert size > 900e6
    assert added < (0.3 if zipped else 1.15) * size
