"""The multi-task attention network against the published modules and a slow reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.mtan import attention, refinement

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mtl_modules.safetensors"
DENSE = {"semseg": 5, "depth": 1}
TINY = {"channels": (8, 16, 32, 64), "layers": (2, 1, 2, 2), "zero_init_last": False}  # no block is the identity


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny(backbone="resnet18", dense=None, image=None, auxiliary=None, **options):
    options = {"head": "fcn", "backbone_options": TINY, **options}
    return build_model("mtan", backbone, DENSE if dense is None else dense, image, auxiliary, **options)


@pytest.mark.parametrize(
    ("name", "make"),
    [("mtan.attention", lambda: attention(16, 4, 8)), ("mtan.refinement", lambda: refinement(16, 32))],
)
def test_published_module(name, make):
    kinds: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "in": {}, "out": {}}
    for key, value in load_file(FIXTURES).items():
        module, _, rest = key.partition("/")
        if module == name:
            kind, _, key = rest.partition("/")
            kinds[kind][key] = value
    module = make().eval()
    module.load_state_dict(kinds["weights"])
    torch.testing.assert_close(module(kinds["in"]["x"]), kinds["out"]["y"], rtol=1e-5, atol=1e-5)


def test_against_the_equations_written_out():
    model = tiny().eval()
    images = torch.randn(2, 3, 65, 47)
    body = model.backbone
    value = body["maxpool"](body["act1"](body["bn1"](body["conv1"](images))))
    attended: dict[str, list[torch.Tensor]] = {task: [] for task in DENSE}
    for i in range(4):
        layer = body[f"layer{i + 1}"]
        before = layer[:-1](value) if len(layer) > 1 else layer(value)
        value = layer(value)
        for task, done in attended.items():
            inputs = before if i == 0 else torch.cat([before, model.refinement[i - 1](done[-1])], 1)
            done.append(model.attention[i][task](inputs) * value)
    output = model(images)
    for task, features in attended.items():
        wanted = model.heads(features, (65, 47), [task])[task]
        torch.testing.assert_close(output.predictions[task], wanted)
    assert [f.shape[1] for f in attended["depth"]] == [8, 16, 32, 64]


def test_no_stage_is_run_twice_and_subsets_run_their_own_masks_only():
    model = tiny(image={"scene": 3}, auxiliary={"normals": 3}).eval()
    calls: list[str] = []
    for name, part in model.named_modules():
        if name.startswith(("attention.", "encoder.backbone.layer")) and name.count(".") == 3:
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    images = torch.randn(1, 3, 40, 40)
    whole = model(images)
    blocks = [f"encoder.backbone.layer{i + 1}.{j}" for i, n in enumerate(TINY["layers"]) for j in range(n)]
    assert [name for name in calls if name.startswith("encoder")] == blocks
    assert list(whole.predictions) == ["semseg", "depth", "scene"] and list(whole.intermediate[0]) == ["normals"]
    hooked: list[str] = []
    for task in model.task_set.all:
        model.attention[0][task].register_forward_hook(lambda *_, task=task: hooked.append(task))
    torch.testing.assert_close(model(images, ["depth"]).predictions["depth"], whole.predictions["depth"])
    assert hooked == ["depth"]


def test_masks_are_the_tasks_own_and_the_rest_is_shared():
    model = tiny(image={"scene": 3})
    names = {id(value): name for name, value in model.named_parameters()}
    own = {names[id(value)] for value in model.task_parameters("scene")}
    assert own == {name for name in names.values() if ".scene." in name}
    shared = {names[id(value)] for value in model.shared_parameters()}
    assert shared == {name for name in names.values() if name.startswith(("encoder.", "refinement."))}
    assert all(isinstance(value, torch.Tensor) for value in model.encode(torch.randn(1, 3, 40, 40)))


@pytest.mark.parametrize(
    "options",
    [
        {"output_stride": 8},
        {"neck": "fpn", "neck_options": {"channels": 8}, "head": "hrnet"},
        {"backbone_options": {**TINY, "out_indices": (0, 3)}},
        {"backbone": "seresnet18"},
        {"backbone": "resnetv2_18", "backbone_options": {"channels": (8, 16, 32, 64), "layers": (1, 1, 2, 1)}},
        {"backbone": "resnet18_cifar"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_pyramids(options):
    model = tiny(**options, image={"scene": 3}).train()
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    assert output.predictions["semseg"].shape == (2, 5, 65, 47) and output.predictions["scene"].shape == (2, 3)
    sum(value.square().mean() for value in output.predictions.values()).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    features = model.encoder(images)
    masked = model.stages.pyramid(*_whole(model, images), (65, 47))
    assert [f.shape for f in masked] == [f.shape for f in features]


def _whole(model, images):
    value, early = model.stages.start(images)
    ends = []
    for i in range(model.stages.count):
        value = model.stages.run(i, value)[-1]
        ends.append(value)
    return early, ends


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
        (lambda: tiny("vit_tiny_patch16_224", backbone_options=None), "does not run one stage after another"),
        (lambda: tiny(reduction=0), "reduction=0"),
        (lambda: tiny(backbone_options={**TINY, "channels": (8, 18, 32, 64)}), "multiples of 4"),
        (lambda: tiny(head="psp").vandenhende_prefixes(), "deeplab or hrnet"),
    ],
)
def test_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
