"""The fusion network: combinations of unit norm, their penalty, and what of the backbone is left."""

from __future__ import annotations

import pytest
import timm
import torch

from harness.errors import UserError
from mtl_heads import build_model

DENSE = {"semseg": 5, "depth": 1}
TINY = {"channels": (8, 16, 32, 64), "layers": (2, 1, 3, 2), "zero_init_last": False}  # no block is the identity


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny(backbone="resnet18", dense=None, image=None, auxiliary=None, **options):
    if isinstance(backbone, str):
        options = {"backbone_options": TINY, **options}
    dense = DENSE if dense is None else dense
    return build_model("lasso", backbone, dense, image, auxiliary, **{"head": "fcn", **options})


def block_outputs(body, images):
    """Outputs of all blocks of each stage, with the layers called by their names."""
    value = body["maxpool"](body["act1"](body["bn1"](body["conv1"](images))))
    stages = []
    for name in [name for name in body if name.startswith("layer")]:
        stages.append([])
        for block in body[name]:
            value = block(value)
            stages[-1].append(value)
    return stages


@pytest.mark.parametrize("stages", [None, [3], [2, 4]])
def test_against_the_equation_written_out(stages):
    model = tiny(stages=stages, image={"scene": 3}, auxiliary={"normals": 3}).eval()
    for rows in model.combinations.values():
        torch.nn.init.normal_(rows.weight)
    images = torch.randn(2, 3, 65, 47)
    outputs = block_outputs(model.backbone, images)
    assert len(outputs) == (4 if stages is None else stages[-1]), "the backbone ends after the last stage"
    result = model(images)
    for task in model.task_set.all:
        features, first = [], 0
        for stage in stages or (1, 2, 3, 4):
            blocks = outputs[stage - 1]
            row = model.combinations[task].weight[first : first + len(blocks)]
            first += len(blocks)
            row = row / row.square().sum().sqrt()
            features.append(sum(row[m] * u for m, u in enumerate(blocks)))
        wanted = model.heads(features, (65, 47), [task])[task]
        torch.testing.assert_close(result.of(task)[0], wanted, rtol=1e-4, atol=1e-5)
    assert model.encoder.pyramid.strides == tuple(4 * 2 ** (stage - 1) for stage in stages or (1, 2, 3, 4))


def test_rows_have_unit_norm_and_their_absolute_sum_is_the_penalty():
    model = tiny(penalty_weight=0.5)
    torch.nn.init.normal_(model.combinations["depth"].weight)
    rows = model.combinations["depth"]()
    assert [len(row) for row in rows] == [2, 1, 3, 2]
    torch.testing.assert_close(torch.stack([row.norm() for row in rows]), torch.ones(4))
    penalty = model.penalty(["depth"])
    assert list(penalty) == ["depth"] and list(model.penalty()) == ["semseg", "depth"]
    torch.testing.assert_close(penalty["depth"], 0.5 * torch.cat(rows).abs().sum())


def test_the_penalty_makes_rows_sparse():
    model = tiny(dense={"depth": 1}, penalty_weight=1.0)
    rows = model.combinations["depth"]
    with torch.no_grad():
        rows.weight.copy_(torch.tensor([1.0, 0.6, 1.0, 0.5, 1.0, -0.6, 1.0, -0.9]))
    optimizer = torch.optim.SGD(rows.parameters(), lr=0.02)
    before = [row.detach() for row in rows()]
    for _ in range(300):
        optimizer.zero_grad()
        model.penalty()["depth"].backward()
        optimizer.step()
    for start, row in zip(before, rows(), strict=True):
        assert row.abs().argmax() == start.abs().argmax() and row.abs().max() > 0.99
        torch.testing.assert_close(row.norm(), torch.tensor(1.0))


def test_parameter_sets_and_the_rows_gradients():
    model = tiny(image={"scene": 3})
    names = {id(value): name for name, value in model.named_parameters()}
    assert {names[id(value)] for value in model.task_parameters("scene")} == {
        name for name in names.values() if ".scene." in name
    }
    assert all(names[id(value)].startswith("encoder.") for value in model.shared_parameters())
    assert model.unreached_parameters() == []
    model(torch.randn(2, 3, 40, 40)).predictions["scene"].square().mean().backward()
    # Image tasks read the coarsest combination only.
    assert [bool(part.any()) for part in model.combinations["scene"].weight.grad.split([2, 1, 3, 2])] == [
        False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(("options", "number"), [
    ({}, 1), ({"head": "hrnet"}, 4), ({"neck": "fpn", "neck_options": {"channels": 8}, "head": "panoptic_fpn"}, 4),
])
def test_each_combination_that_is_read_is_made_once(monkeypatch, options, number):
    """Three tasks, the image task reads the coarsest features; a neck reads all of them for it too."""
    from mtl_heads import lasso

    made = []
    combine = lasso._combine
    monkeypatch.setattr(lasso, "_combine", lambda c, u: made.append(len(u)) or combine(c, u))
    model = tiny(image={"scene": 3}, **options).eval()
    made.clear()
    model(torch.randn(1, 3, 40, 40))
    assert len(made) == 2 * number + (number if "neck" in options else 1)


@pytest.mark.parametrize(
    "options",
    [
        {"neck": "fpn", "neck_options": {"channels": 8}, "head": "hrnet"},
        {"backbone_options": {**TINY, "out_indices": (0, 3)}, "head": "hrnet"},
        {"backbone": "regnetx_002", "backbone_options": None, "output_stride": 16, "stages": [1, 3]},
        {"backbone": "resnetv2_18", "backbone_options": {"channels": (8, 16, 32, 64), "layers": (1, 1, 2, 1)}},
        {"output_stride": 8, "stages": [3]},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_pyramids(options):
    model = tiny(**options).train()
    output = model(torch.randn(2, 3, 65, 47))
    assert output.predictions["semseg"].shape == (2, 5, 65, 47)
    sum(value.square().mean() for value in output.predictions.values()).backward()
    reached = [value for value in model.parameters() if value.grad is not None]
    assert all(value.grad.isfinite().all() for value in reached)
    assert len(reached) + len(model.unreached_parameters()) == len(list(model.parameters()))


def test_a_cut_backbone_shares_its_weights_with_the_given_one_which_stays():
    body = timm.create_model("resnet18", features_only=True, **TINY).eval()
    model = tiny(body, stages=[2])
    assert list(body)[-1] == "layer4" and list(model.backbone)[-1] == "layer2"
    assert len(body(torch.randn(1, 3, 32, 32))) == 5 and len(model.backbone(torch.randn(1, 3, 32, 32))) == 1
    assert model.backbone["layer2"] is body["layer2"]


@pytest.mark.slow
def test_compiles_in_one_graph():
    model = tiny().eval()
    images = torch.randn(1, 3, 40, 40)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).predictions["semseg"], model(images).predictions["semseg"])


def test_bfloat16():
    model = tiny().eval()
    images = torch.randn(1, 3, 40, 40)
    full = model(images).predictions["semseg"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images).predictions["semseg"]
    assert low.dtype == torch.bfloat16 and (low.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny("convnext_atto", backbone_options=None), "has stages of other blocks"),
        (lambda: tiny(stages=[5]), r"stages=\[5\]: give some of 1 to 4"),
        (lambda: tiny(stages=[3, 1]), "in order"),
        (lambda: tiny(penalty_weight=-1.0), "penalty_weight=-1.0"),
        (lambda: tiny(stages=[3], head="hrnet"), "at least two strides"),
        (lambda: tiny(backbone_options={**TINY, "out_indices": (0,)}), "no feature is one's end|other blocks"),
    ],
)
def test_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
