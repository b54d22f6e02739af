"""MTI-Net and its building blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.aggregation import FeatureAggregation
from mtl_heads.distillation import SpatialAttentionDistillation
from mtl_heads.encoder import Pyramid
from mtl_heads.feature_propagation import FeaturePropagation
from mtl_heads.heads.hrnet import HRNet
from mtl_heads.initial_prediction import InitialPrediction
from mtl_heads.scales import finest_scales
from mtl_heads.tasks import Tasks

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mtl_modules.safetensors"
SMALL = {"channels": (4, 8, 12, 16), "layers": (1, 1, 1, 1)}
DENSE, AUXILIARY = {"semseg": 5, "depth": 1}, {"normals": 3}
ALL = DENSE | AUXILIARY


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def published(name: str, module: nn.Module):
    """Load the weights of a published module; returns its inputs and outputs."""
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "in": {}, "out": {}}
    for key, value in load_file(FIXTURE).items():
        if key.startswith(f"{name}/"):
            _, part, rest = key.split("/")
            parts[part][rest] = value
    module.load_state_dict(parts["weights"])
    module.eval()
    return parts["in"], parts["out"]


def of_tasks(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def small(dense=None, image=None, auxiliary=None, **options):
    options = {"backbone_options": SMALL, **options}
    return build_model("mti_net", "resnet18", dense or DENSE, image, auxiliary, **options).eval()


@pytest.mark.parametrize(
    ("name", "inputs", "channels"),
    [("initial_prediction_top_scale", 32, 32), ("initial_prediction_with_previous_scale", 48, 16)],
)
def test_initial_prediction_equals_the_published_module(name, inputs, channels):
    module = InitialPrediction(inputs, channels, ALL)
    given, wanted = published(f"mti_net.{name}", module)
    found = module(given["current"], ALL, of_tasks(given, "previous_") or None)
    predictions = module.predict(found, ALL)
    for task in ALL:
        near(found[task], wanted[f"features_{task}"])
        near(predictions[task], wanted[task])


def test_distillation_equals_the_published_module():
    module = SpatialAttentionDistillation(DENSE, ALL, 32, transform=True)
    given, wanted = published("mti_net.distillation", module)
    found = module(of_tasks(given, "features_"), DENSE)
    assert found.keys() == wanted.keys()
    for task in wanted:
        near(found[task], wanted[task])


def test_feature_propagation_equals_the_published_module():
    module = FeaturePropagation(ALL, 32, grouping="published")
    given, wanted = published("mti_net.feature_propagation", module)
    found = module(of_tasks(given, "features_"), ALL)
    assert found.keys() == wanted.keys()
    for task in wanted:
        near(found[task], wanted[task])
    module.grouping = "paper"
    assert not torch.allclose(module(of_tasks(given, "features_"), ALL)["depth"], wanted["depth"], atol=1e-4)


@pytest.mark.parametrize("grouping", ["paper", "published"])
def test_what_the_mask_of_the_propagation_sums_to_one_over(grouping):
    module = FeaturePropagation(ALL, 8, grouping=grouping).eval()
    masks: list[torch.Tensor] = []
    module.dimensionality_reduction.register_forward_hook(lambda _, given, __: masks.append(given[0]))
    module({task: torch.ones(1, 8, 3, 2) for task in ALL}, ALL)  # ones: the gated features are the mask
    (mask,) = masks
    for channel in range(8):
        over_tasks = [task * 8 + channel for task in range(3)]
        neighbours = [channel * 3 + n for n in range(3)]
        together = over_tasks if grouping == "paper" else neighbours
        near(mask[:, together].sum(1), torch.ones(1, 3, 2))


def test_propagation_treats_tasks_alike():
    """Renaming the tasks renames the outputs, when their weights go with them."""
    module = FeaturePropagation(["a", "b"], 4).eval()
    features = {task: torch.randn(1, 4, 3, 3) for task in "ab"}
    found = module(features, ["a", "b"])
    other = FeaturePropagation(["b", "a"], 4).eval()
    state = module.state_dict()
    swap = [4, 5, 6, 7, 0, 1, 2, 3]
    for block in ("non_linear.0", "dimensionality_reduction"):
        for layer in ("conv1", "downsample.0"):
            state[f"{block}.{layer}.weight"] = state[f"{block}.{layer}.weight"][:, swap]
    for name in ("weight", "bias"):
        state[f"non_linear.2.{name}"] = state[f"non_linear.2.{name}"][swap]
    other.load_state_dict(state)
    for task, value in other(features, ["b", "a"]).items():
        near(value, found[task])


def test_aggregation_is_the_head_of_hrnet():
    ours = FeatureAggregation((4, 6), 3).eval()
    theirs = HRNet(Pyramid((4, 6), (4, 8)), 3).eval()
    theirs.load_state_dict(ours.state_dict())
    features = [torch.randn(1, 4, 9, 7), torch.randn(1, 6, 5, 4)]
    near(ours(features), theirs(features))


def reference(model, images: torch.Tensor, tasks: list[str]):
    """The network step by step as chapter 5 tells it, for one batch."""
    size, features = images.shape[-2:], model.encoder(images)
    task_features, coarser = {}, None
    for s in (3, 2, 1, 0):
        front, task_features[s] = model.initial_prediction[s], {}
        for task in tasks:
            read = features[s]
            if coarser is not None:
                up = F.interpolate(coarser[task], read.shape[-2:], mode="bilinear", align_corners=False)
                read = torch.cat([read, up], 1)
            task_features[s][task] = front.refinement[task](read)
        if s:
            fpm = model.propagation[s - 1]
            together = torch.cat([task_features[s][task] for task in tasks], 1)
            chunks = fpm.non_linear(together).chunk(len(tasks), 1)
            mask = torch.cat(list(torch.stack(chunks).softmax(0)), 1)
            shared = fpm.dimensionality_reduction(mask * together)
            coarser = {task: task_features[s][task] + fpm.se[task](shared) for task in tasks}
    initial = [
        {task: resized(model.initial_prediction[s].decoders[task](task_features[s][task]), size) for task in tasks}
        for s in range(4)
    ]
    final = {}
    for task in model.task_set.dense:
        scales = []
        for s in range(4):
            distilled = task_features[s][task]
            for other in tasks:
                if other != task:
                    part = model.distillation[s].self_attention[task][other]
                    distilled = distilled + part(task_features[s][other])
            scales.append(resized(distilled, features[0].shape[-2:]))
        final[task] = resized(model.heads[task].last_layer(torch.cat(scales, 1)), size)
    return final, initial


def resized(maps: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


@torch.no_grad()
def test_network_is_the_chapter():
    model = small(auxiliary=AUXILIARY)
    images = torch.randn(2, 3, 70, 51)
    output = model(images, intermediate=True)
    final, initial = reference(model, images, list(ALL))
    assert output.predictions.keys() == final.keys() and model.intermediate_strides == [4, 8, 16, 32]
    for ours, theirs in zip([output.predictions, *output.intermediate], [final, *initial], strict=True):
        assert ours.keys() == theirs.keys()
        for task in ours:
            torch.testing.assert_close(ours[task], theirs[task], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", [1, 2, 3, 4])
@pytest.mark.parametrize("propagation", [True, False])
def test_ablations(scales, propagation):
    model = small(auxiliary=AUXILIARY, scales=scales, propagation=propagation)
    images = torch.randn(1, 3, 65, 47)
    output = model(images, intermediate=True)
    assert len(output.intermediate) == scales and model.intermediate_strides == [4, 8, 16, 32][:scales]
    assert len(model.propagation) == (scales - 1 if propagation else 0)
    assert all(list(maps) == list(ALL) for maps in output.intermediate)
    unused = {id(value) for value in model.encoder.parameters()}
    assert all(id(value) in unused for value in model.unreached_parameters())
    # A change of the coarsest features reaches the finest initial prediction by propagation alone.
    features = model.encode(images)
    changed = [*features[:scales]]
    changed[-1] = changed[-1] + 1
    before, after = (model.decode(f, (65, 47), intermediate=True).intermediate[0]["depth"] for f in (features, changed))
    assert torch.equal(before, after) == (not propagation and scales > 1)


@torch.no_grad()
@pytest.mark.parametrize("propagation", [True, False])
def test_some_tasks_alone(propagation):
    model = small(image={"scene": 3}, auxiliary=AUXILIARY, propagation=propagation)
    images = torch.randn(2, 3, 40, 33)
    whole = model(images, intermediate=True)
    run: list[str] = []
    for name, part in model.named_modules():
        if list(part.parameters(recurse=False)):
            part.register_forward_hook(lambda *_, name=name: run.append(name))
    for chosen in (["depth"], ["normals"], ["scene"], ["semseg", "scene"], ["depth", "normals"]):
        run.clear()
        output = model(images, chosen, intermediate=True)
        assert len(run) == len(set(run))  # nothing runs twice
        for task in {*ALL} - {*chosen}:
            assert not any(name.startswith(f"heads.{task}") or f"decoders.{task}" in name for name in run)
        dense = any(task in DENSE for task in chosen)
        assert any(".self_attention." in name for name in run) == dense
        finest = any(name.startswith("initial_prediction.0.refinement.semseg") for name in run)
        assert finest == dense  # the finest scale's features of the others are for distillation alone
        assert list(output.predictions) == [task for task in chosen if task != "normals"]
        assert len(output.intermediate) == (0 if chosen == ["scene"] else 4)
        for task in chosen:
            for ours, theirs in zip(output.of(task), whole.of(task), strict=True):
                near(ours, theirs)


@pytest.mark.parametrize(
    ("backbone", "options", "channels"),
    [
        ("hrnet_w18_small_v2", {}, (18, 36, 72, 144)),
        ("resnet18", {"neck": "fpn", "neck_options": {"channels": 8}, "backbone_options": SMALL}, (8, 8, 8, 8)),
        ("convnext_atto", {"backbone_options": {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16)}}, (4, 8, 12, 16)),
        ("test_efficientnet", {}, None),
    ],
)
def test_pyramids(backbone, options, channels):
    model = build_model("mti_net", backbone, DENSE, **options)
    widths = tuple(part.decoders["depth"].in_channels for part in model.initial_prediction)
    assert channels is None or widths == channels
    output = model.train()(torch.randn(2, 3, 33, 47))
    sum(value.square().mean() for task in DENSE for value in output.of(task)).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())


def test_scales_of_a_pyramid():
    pyramid = Pyramid((1, 2, 3, 4), (4, 8, 16, 32))
    assert finest_scales(pyramid, 4, "X") == [0, 1, 2, 3] and finest_scales(pyramid, 2, "X") == [0, 1]
    dilated = Pyramid((1, 2, 3, 4), (4, 8, 8, 8))
    assert finest_scales(dilated, 2, "X") == [0, 3] == finest_scales(dilated, None, "X")
    with pytest.raises(UserError, match="X reads features of 4 strides, .* gives 2 \\(4, 8\\): set scales to 2"):
        finest_scales(dilated, 4, "X")
    with pytest.raises(UserError, match="scales=0: give 1 or more"):
        finest_scales(pyramid, 0, "X")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 8}, "4 strides, .* gives 2 .*set scales to 2"),
        ({"scales": 5}, "5 strides, .* gives 4"),
        ({"scales": 0}, "scales=0"),
        ({"grouping": "tasks"}, "paper, published"),
        ({"propagation_reduction": 0}, "propagation_reduction=0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        small(**arguments)
    assert "\n" not in str(error.value)


def test_a_plain_transformer_has_too_few_scales():
    options = {"embed_dim": 16, "depth": 3, "num_heads": 2}
    with pytest.raises(UserError, match="gives 1 \\(16\\)"):
        build_model("mti_net", "vit_tiny_patch16_224", DENSE, backbone_options=options)


def test_costs_of_table_5_6():
    """The thesis's figures on NYUD come out, within the rounding of its 8.0 M and 22 G, without a bottleneck."""
    from benchmarks.resources import NYUD
    from mtl_heads.resources import resources, single_task_resources

    singles = single_task_resources(
        lambda one: build_model("single_task", NYUD.backbone, one.dense, head="hrnet"),
        Tasks(NYUD.dense, {}, {}),
        NYUD.size,
    )
    model = build_model("mti_net", NYUD.backbone, NYUD.dense, propagation_reduction=1)
    assert resources(model, NYUD.size).change(singles) == pytest.approx((57, -13), abs=4)


def test_original_names_map_onto_all_of_ours():
    model = small(auxiliary=AUXILIARY, grouping="published")
    prefixes = model.vandenhende_prefixes()
    assert all(any(name.startswith(ours) for ours in prefixes.values()) for name in model.state_dict())
    others = ({"scales": 3}, {"propagation": False}, {"propagation_reduction": 1})
    for options in ({}, *({"grouping": "published", **other} for other in others)):
        with pytest.raises(UserError, match="grouping=published"):
            small(**options).vandenhende_prefixes()


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("pap_net", "pad_net", "jtrl", "mti_net")]
)
def test_decoder_focused_networks_compile_to_one_graph_and_run_in_bfloat16(name):
    options = {} if name == "mti_net" else {"channels": 8}
    model = build_model(name, "resnet18", DENSE, {"scene": 3}, backbone_options=SMALL, **options).eval()
    images = torch.randn(1, 3, 33, 40)
    full = model(images).predictions
    compiled = torch.compile(model, backend="eager", fullgraph=True)(images).predictions
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images).predictions
    for task, value in full.items():
        torch.testing.assert_close(compiled[task], value)
        assert low[task].dtype == torch.bfloat16
        assert (low[task].float() - value).abs().max() < 0.1 * value.abs().max() + 0.01
