"""PAD-Net and its building blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models.resnet import Bottleneck

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.distillation import SpatialAttention, SpatialAttentionDistillation
from mtl_heads.initial_prediction import InitialPrediction
from mtl_heads.squeeze_excitation import SqueezeExcitation

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mtl_modules.safetensors"
SMALL = {"channels": (8, 12, 16, 20), "layers": (1, 1, 1, 1)}
DENSE, AUXILIARY = {"semseg": 5, "depth": 1}, {"normals": 3}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def published(name: str, module: nn.Module, renamed: dict[str, str] | None = None):
    """Load the weights of a published module; returns its inputs and outputs."""
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "in": {}, "out": {}}
    for key, value in load_file(FIXTURE).items():
        if key.startswith(f"{name}/"):
            _, part, rest = key.split("/")
            for theirs, ours in (renamed or {}).items():
                rest = rest.replace(theirs, ours, 1) if part == "weights" and rest.startswith(theirs) else rest
            parts[part][rest] = value
    module.load_state_dict(parts["weights"])
    module.eval()
    return parts["in"], parts["out"]


def small(dense=None, image=None, auxiliary=None, **options):
    options = {"channels": 16, "backbone_options": SMALL, **options}
    dense = DENSE if dense is None else dense
    return build_model("pad_net", "resnet18", dense, image, auxiliary, **options).eval()


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_spatial_attention_equals_the_published_module():
    module = SpatialAttention(32, transform=True)
    given, wanted = published("spatial_attention", module)
    near(module(given["x"]), wanted["y"])


def test_squeeze_excitation_equals_the_published_module():
    module = SqueezeExcitation(32)
    given, wanted = published("squeeze_excitation", module)
    near(module(given["x"]), wanted["y"])


def test_initial_prediction_equals_the_published_module():
    outputs = DENSE | AUXILIARY
    module = InitialPrediction(24, 16, outputs, Bottleneck)
    names = {"layers.": "refinement.", "conv_out.": "decoders."}
    given, wanted = published("pad_net.initial_prediction", module, names)
    found = module(given["features"], outputs)
    predictions = module.predict(found, outputs)
    for task in outputs:
        near(found[task], wanted[f"features_{task}"])
        near(predictions[task], wanted[task])


@pytest.mark.parametrize("distill", ["paper", "published"])
def test_distillation_is_the_equation(distill):
    tasks = ["a", "b", "c", "d"]
    module = SpatialAttentionDistillation(tasks[:2], tasks, 6, transform=distill == "published")
    features = {task: torch.randn(2, 6, 5, 4) for task in tasks}
    found = module(features, tasks[:2])
    assert list(found) == tasks[:2]
    for target in found:
        expected = features[target].clone()
        for source in tasks:
            if source != target:
                part = module.self_attention[target][source]
                mask = torch.conv2d(features[source], part.attention[0].weight, padding=1).sigmoid()
                second = features[source]
                if distill == "published":
                    second = torch.conv2d(second, part.conv.weight, padding=1)
                expected += mask * second
        near(found[target], expected)
    alone = SpatialAttentionDistillation(["a"], ["a"], 6, transform=False)
    assert alone(features, ["a"])["a"] is features["a"] and not list(alone.parameters())


def calls(model: nn.Module, images: torch.Tensor, tasks=None) -> dict[str, int]:
    """How often each layer of a network runs; layers that do not run are not there."""
    counts: dict[str, int] = {}

    def count(name: str):
        def hook(*_):
            counts[name] = counts.get(name, 0) + 1

        return hook

    layers = [(name, part) for name, part in model.named_modules() if not list(part.children())]
    hooks = [part.register_forward_hook(count(name)) for name, part in layers if list(part.parameters())]
    with torch.no_grad():
        model(images, tasks, intermediate=True)
    for hook in hooks:
        hook.remove()
    return counts


def test_every_layer_runs_once_and_only_if_it_is_needed():
    model = small(image={"scene": 3}, auxiliary=AUXILIARY)
    images = torch.randn(1, 3, 32, 32)
    everything = calls(model, images)
    assert set(everything.values()) == {1}
    parameters = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert parameters == everything.keys()
    one = calls(model, images, ["depth"])
    assert any(name.startswith("initial_prediction.refinement.normals") for name in one)
    for prefix in ("heads.semseg", "initial_prediction.decoders.semseg", "distillation.self_attention.semseg"):
        assert not any(name.startswith(prefix) for name in one)
    auxiliary = calls(model, images, ["normals"])
    assert not any("depth" in name or name.startswith("heads") for name in auxiliary)
    scene = calls(model, images, ["scene"])
    assert {name.partition(".")[0] for name in scene} == {"encoder", "image_heads"}


def test_output_of_auxiliary_and_image_tasks():
    model = small(image={"scene": 3}, auxiliary=AUXILIARY)
    output = model(torch.randn(2, 3, 65, 47), intermediate=True)
    assert {task: tuple(value.shape) for task, value in output.predictions.items()} == {
        "semseg": (2, 5, 65, 47), "depth": (2, 1, 65, 47), "scene": (2, 3),
    }  # fmt: skip
    (initial,) = output.intermediate
    assert list(initial) == ["semseg", "depth", "normals"] and initial["normals"].shape == (2, 3, 65, 47)
    assert model.intermediate_strides == [4]
    only = model(torch.randn(2, 3, 65, 47), ["normals"])
    assert only.predictions == {} and [list(entry) for entry in only.intermediate] == [["normals"]]


@torch.no_grad()
@pytest.mark.parametrize("name, options", [
    ("pad_net", {"channels": 8}), ("pap_net", {"channels": 8, "grid": 6}), ("mti_net", {}), ("jtrl", {"channels": 8}),
])
def test_evaluation_does_not_pay_for_intermediate_predictions(name, options):
    """Their decoders run in training, or where they are asked for; auxiliary tasks have no other predictions."""
    auxiliary = {} if name == "jtrl" else AUXILIARY
    model = build_model(name, "resnet18", DENSE, {"scene": 3}, auxiliary, backbone_options=SMALL, **options)
    ran: list[str] = []
    decoders = [(key, part) for key, part in model.named_modules() if ".decoder" in key]
    for key, part in decoders:
        part.register_forward_hook(lambda *_, key=key: ran.append(key))
    images = torch.randn(2, 3, 40, 33)
    model.eval()
    final = model(images, list(DENSE))
    early = [key for key in ran if not key.startswith("steps.0.")]  # the finest step of jtrl makes the last one
    assert final.intermediate == [] and not early
    scales = {"mti_net": 4, "jtrl": 3}.get(name, 1)
    asked = model(images, list(DENSE), intermediate=True)
    assert [list(entry) for entry in asked.intermediate] == [list(DENSE)] * scales
    for task in DENSE:
        torch.testing.assert_close(final.predictions[task], asked.predictions[task])
    whole = model(images)  # all tasks
    assert [list(entry) for entry in whole.intermediate] == [list(AUXILIARY)] * (scales if auxiliary else 0)
    assert len(model.decode(model.encode(images), (40, 33), intermediate=True).intermediate) == scales
    model.train()
    trained = model(images)
    assert [list(entry) for entry in trained.intermediate] == [[*DENSE, *auxiliary]] * scales
    untrained = model(images, intermediate=False).intermediate
    assert [list(entry) for entry in untrained] == [list(entry) for entry in whole.intermediate]


def test_losses_of_intermediate_predictions_reach_their_decoders_in_evaluation_mode_too():
    """The sets of parameters are those of training."""
    model = small(auxiliary=AUXILIARY).eval()
    names = {id(value): name for name, value in model.named_parameters()}
    own = {names[id(value)] for value in model.task_parameters("depth")}
    assert "initial_prediction.decoders.depth.weight" in own
    ours = [names[id(value)] for value in model.unreached_parameters()]
    assert all(name.startswith("encoder.") for name in ours)


@pytest.mark.parametrize(
    ("options", "strides", "inputs"),
    [
        ({}, [4], 56),
        ({"features": "main"}, [32], 20),
        ({"output_stride": 8}, [8], 20),
        ({"output_stride": 16}, [4], 56),
        ({"neck": "fpn", "neck_options": {"channels": 12}}, [4], 12),
        ({"features": "all", "output_stride": 8}, [4], 56),
    ],
)
def test_which_features_are_read(options, strides, inputs):
    model = small(**options)
    assert model.intermediate_strides == strides
    assert model.initial_prediction.refinement["depth"][0].conv1.in_channels == inputs
    assert model(torch.randn(1, 3, 33, 40)).predictions["depth"].shape == (1, 1, 33, 40)


def test_original_names_map_onto_all_of_ours():
    model = small(auxiliary=AUXILIARY, distill="published")
    prefixes = model.vandenhende_prefixes()
    assert all(any(name.startswith(ours) for ours in prefixes.values()) for name in model.state_dict())
    with pytest.raises(UserError, match="distill=published"):
        small().vandenhende_prefixes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 10}, "multiple of 4"),
        ({"distill": "papers"}, "paper or published"),
        ({"features": "fine"}, "auto, main, all"),
        ({"dense": {}, "image": {"scene": 3}}, "scene predict none"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        small(**arguments)


def test_auxiliary_tasks_alone_can_help_image_tasks():
    model = small({}, {"scene": 3}, {"depth": 1})
    output = model(torch.randn(2, 3, 32, 32))
    assert list(output.predictions) == ["scene"] and list(output.intermediate[0]) == ["depth"]
