"""Runs whose heads begin from a pretrained classifier."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from harness.config import load
from harness.errors import UserError
from harness.world import start
from transfer.baselines import single_task_config
from transfer.classifiers.combination import combine, nearest
from transfer.classifiers.inference import f_scores
from transfer.classifiers.initialise import begin_classifiers, head_of, load_source
from transfer.config import TransferConfig
from transfer.data.loading import collate
from transfer.engine import Transfer, check

SMALL = {"layers": [1, 1, 1, 1], "channels": [4, 4, 6, 6]}
TINY = ["--data.name=scenes", "--data.train_count=12", "--data.val_count=1", "--data.test_count=2", "--data.size=48",
        "--tasks=[scene]", "--model.backbone=resnet18", f"--model.backbone_options={SMALL}", "--threads=1",
        "--baseline=none", "--workers=0", "--batch_size=4", "--epochs=1", "--evaluation.batch_size=5"]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A classifier of nine classes, whose answers differ."""
    torch.manual_seed(3)
    model = timm.create_model("resnet18", num_classes=9, **SMALL)
    with torch.no_grad():
        model.fc.weight.mul_(20)
        model.fc.bias.normal_()
    path = tmp_path_factory.mktemp("weights") / "nine.pth"
    torch.save(model.state_dict(), path)
    return str(path)


def make(*options):
    transfer = Transfer(load(TransferConfig, [*TINY, *options]), start(threads=1, cpu=True))
    transfer.model.train()
    return transfer


@pytest.mark.parametrize("neighbors", [1, 3])
def test_head_is_made_of_the_most_similar_rows(weights, tmp_path, neighbors):
    """Every step by hand, from the file on; the random rows of classes without similar ones stay."""
    transfer = make(f"--model.weights={weights}", "--classifier.name=inference",
                    f"--classifier.neighbors={neighbors}", "--data.train_count=5")
    before = head_of(transfer.model, "scene").weight.detach().clone()
    begin_classifiers(transfer, tmp_path)
    head = head_of(transfer.model, "scene")
    source = timm.create_model("resnet18", num_classes=9, **SMALL)
    source.load_state_dict(torch.load(weights, weights_only=True))
    source.eval()
    counts = torch.zeros(len(transfer.tasks["scene"].classes), 9, dtype=torch.float64)
    for index in range(5):
        batch = collate([transfer.train_split[index]], transfer.tasks)
        with torch.no_grad():
            taken = source(transfer.network.normalise(batch["image"])).argmax(1)
        counts[batch["targets"]["scene"], taken] += 1
    chosen = nearest(f_scores(counts), neighbors)
    has = counts.sum(1) > 0
    assert has.any() and not has.all(), "a class without images, so without similar classes"
    torch.testing.assert_close(head.weight[has], combine(source.fc.weight, chosen)[has])
    torch.testing.assert_close(head.bias[has], combine(source.fc.bias, chosen)[has])
    assert torch.equal(head.weight[~has], before[~has])
    told = json.loads((tmp_path / "classifiers.json").read_text())["scene"]
    assert [bool(made_of) for made_of in told.values()] == has.tolist()
    for made_of, row, shares in zip(told.values(), chosen.indices.tolist(), chosen.coefficients.tolist(), strict=True):
        assert [int(name) for name, _ in made_of] == [j for j, share in zip(row, shares, strict=True) if share]


def test_a_copied_row_predicts_what_the_source_predicts(weights, tmp_path):
    """Head and classifier read the same features, so with K = 1 the logits are equal."""
    table = tmp_path / "t.tsv"
    transfer = make(f"--model.weights={weights}")
    names = transfer.tasks["scene"].classes
    table.write_text(f"{names[1]}\tc4\t0.3\n{names[2]}\tc8\t1\n")
    (tmp_path / "names.txt").write_text("".join(f"c{j}\n" for j in range(9)))
    AcceleratorState._reset_state(True)
    transfer = make(f"--model.weights={weights}", "--classifier.name=table", f"--classifier.file={table}",
                    f"--classifier.source_names={tmp_path / 'names.txt'}")
    begin_classifiers(transfer, tmp_path)
    source, images = load_source(transfer.config, (1, 3, 48, 48)), torch.rand(3, 3, 48, 48)
    transfer.model.eval()
    with torch.no_grad():
        mine, theirs = transfer.model(images).predictions["scene"], source(images)
    torch.testing.assert_close(mine[:, [1, 2]], theirs[:, [4, 8]], rtol=1e-4, atol=1e-5)


def test_single_task_networks_begin_alike(weights):
    config = load(TransferConfig, [*TINY, "--tasks=[scene, depth]", f"--model.weights={weights}",
                                   "--classifier.name=inference", "--classifier.tasks=[scene]"])
    assert single_task_config(config, "scene").classifier.name == "inference"
    assert single_task_config(config, "scene").classifier.common.tasks is None
    assert single_task_config(config, "depth").classifier.name == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks=[depth]"], "none of depth classifies images"),
        (["--classifier.tasks=[scen]"], "names 'scen' .did you mean 'scene'"),
        (["--classifier.neighbors=0"], "classifier.neighbors is 0"),
        (["--model.weights=null"], "random weights have no classes to begin from"),
        (["--classifier.name=table"], "classifier.file is empty"),
        (["--classifier.name=wordned"], "unknown similarity of classes 'wordned' .did you mean 'wordnet'"),
    ],
)
def test_refused_at_once(weights, options, message):
    with pytest.raises(UserError, match=message) as error:
        check(load(TransferConfig, [*TINY, f"--model.weights={weights}", "--classifier.name=inference", *options]))
    assert "\n" not in str(error.value)


def test_weights_without_a_classifier(tmp_path):
    state = {key: value for key, value in timm.create_model("resnet18", num_classes=0, **SMALL).state_dict().items()}
    save_file(state, tmp_path / "bare.safetensors")
    transfer = make(f"--model.weights={tmp_path / 'bare.safetensors'}", "--classifier.name=inference")
    with pytest.raises(UserError, match="has no classifier .fc.weight.*--classifier.name none"):
        begin_classifiers(transfer, tmp_path)


def test_classifiers_that_read_something_else(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=1, embed_dim=24, num_heads=3, img_size=48)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    options = ["--model.backbone=vit_tiny_patch16_224", f"--model.weights={tmp_path / 'vit.pth'}",
               "--model.backbone_options={depth: 1, embed_dim: 24, num_heads: 3, img_size: 48, out_indices: [0]}"]
    config = load(TransferConfig, [*TINY, *options, "--classifier.name=inference"])
    with pytest.raises(UserError, match="not a linear layer on the mean of its last feature map"):
        load_source(config, (1, 3, 48, 48))


def test_heads_that_read_something_else(weights, tmp_path):
    transfer = make(f"--model.weights={weights}", "--classifier.name=inference", "--model.neck=fpn")
    with pytest.raises(UserError, match="head of task 'scene' does not read the mean.*--model.neck none"):
        begin_classifiers(transfer, tmp_path)


def test_program(weights, programs):
    """The run says what it did, keeps the table, and does not do it again when it goes on."""
    options = [f"--model.weights={weights}", "--classifier.name=inference", "--classifier.neighbors=2",
               "--tasks=[scene]", f"--model.backbone_options={SMALL}", "--loop.save_steps=1"]
    done = programs.main("transfer", "--output=run", "--epochs=1", *options)
    assert done.code == 0, done.err
    assert "the head of scene begins from 9 classes by inference, K = 2 (run/classifiers.json)" in done.out
    assert (programs.folder / "run" / "classifiers.json").exists()
    (programs.folder / "run" / "results.json").unlink()
    again = programs.main("transfer", "--output=run", "--epochs=1", *options)
    assert again.code == 0 and "the head of" not in again.out
    other = programs.main("transfer", "--output=run", "--epochs=1", *options, "--classifier.neighbors=1")
    assert "classifier.neighbors: 2 -> 1" in other.error
