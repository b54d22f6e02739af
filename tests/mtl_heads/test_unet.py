"""U-Net."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from mtl_heads import build_model

SMALL = {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]}
FOUR = {"cup": 1, "disc": 1, "fovea": 1}
BACKBONES = {
    "resnet18": {"backbone_options": SMALL},
    "hrnet_w18_small_v2": {},
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {},
    "vit_tiny_patch16_224": {
        "backbone_options": {"embed_dim": 32, "depth": 3, "num_heads": 2},
        "neck": "simple_pyramid",
        "neck_options": {"channels": 8},
    },
}

SLOW = ("swin_tiny_patch4_window7_224", "hrnet_w18_small_v2")  # seconds each; the matrix has them as well


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(dense=None, image=None, auxiliary=None, backbone="resnet18", **options):
    dense = FOUR if dense is None else dense
    image = {"glaucoma": 1} if image is None else image
    return build_model("unet", backbone, dense, image, auxiliary, **{**BACKBONES[backbone], **options})


def reached(model, tensor) -> set[str]:
    names, values = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(tensor.sum(), values, allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is not None}


def test_vgg16_is_the_published_one():
    with torch.device("meta"):
        model = build_model("unet", "vgg16_bn", FOUR, {"glaucoma": 1}, backbone_options={"out_indices": range(5)})
    assert model.encoder.pyramid.strides == (1, 2, 4, 8, 16)
    assert len(model.decoder.stages) == 4 and model.decoder.outputs == 64
    assert [stage.up.out_channels for stage in model.decoder.stages] == [512, 256, 128, 64]
    assert [stage.convolutions[0][0].in_channels for stage in model.decoder.stages] == [1024, 512, 256, 128]
    heads = [part for task in FOUR for part in model.heads[task].modules()]
    assert [part.weight.shape for part in heads] == [(1, 64, 1, 1)] * 3
    assert model.classifiers["glaucoma"].classifier.in_features == 512


def test_decoder_against_the_definition():
    model = small().eval()
    images = torch.randn(2, 3, 64, 96)
    features = model.encode(images)
    assert [f.shape[-1] for f in features] == [48, 24, 12, 6, 3]
    maps = features[-1]
    for stage, skip in zip(model.decoder.stages, features[-2::-1], strict=True):
        maps = F.conv_transpose2d(maps, stage.up.weight, stage.up.bias, stride=2)
        for convolution, norm, _ in stage.convolutions:
            inputs = torch.cat([skip, maps], 1) if convolution.in_channels != maps.shape[1] else maps
            maps = F.conv2d(inputs, convolution.weight, padding=1)
            maps = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            maps = F.relu(maps)
    head = model.heads["disc"]
    expected = F.interpolate(F.conv2d(maps, head.weight, head.bias), (64, 96), mode="bilinear")
    output = model(images)
    torch.testing.assert_close(output.predictions["disc"], expected, rtol=1e-4, atol=1e-5)
    layer = model.classifiers["glaucoma"].classifier
    pooled = features[-1].flatten(2).mean(2)
    torch.testing.assert_close(output.predictions["glaucoma"], pooled @ layer.weight.T + layer.bias)


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BACKBONES]
)
def test_backbones_and_odd_sizes(backbone):
    model = small({"semseg": 3, "depth": 1}, {"scene": 4}, {"normals": 3}, backbone, classifier="segmentation")
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    shapes = {task: tuple(value.shape) for task, value in output.predictions.items()}
    assert shapes == {"semseg": (2, 3, 65, 47), "depth": (2, 1, 65, 47), "scene": (2, 4)}
    assert output.intermediate[0]["normals"].shape == (2, 3, 65, 47)
    loss = sum(value.square().mean() for task in model.task_set.all for value in output.of(task))
    loss.backward()
    assert all(value.isfinite().all() for value in output.predictions.values())
    decoder = [*model.decoder.parameters(), *model.heads.parameters(), *model.classifiers.parameters()]
    assert all(value.grad is not None and value.grad.isfinite().all() for value in decoder)


def test_strides_that_do_not_double():
    model = small(output_stride=8, image={}).eval()
    assert model.encoder.pyramid.strides == (2, 4, 8, 8, 8)
    assert model(torch.randn(1, 3, 50, 41)).predictions["cup"].shape == (1, 1, 50, 41)


def test_classifier_reads_the_segmentation():
    model = small(classifier="segmentation", classifier_reads=["disc", "cup"]).eval()
    images = torch.randn(1, 3, 64, 64)
    before = model(images).predictions["glaucoma"]
    own = {"heads.disc.weight", "heads.cup.weight"}
    assert own <= reached(model, before) and "heads.fovea.weight" not in reached(model, before)
    with torch.no_grad():
        model.heads["fovea"].bias.add_(1)
        torch.testing.assert_close(model(images).predictions["glaucoma"], before)
        model.heads["disc"].bias.add_(1)
        assert not torch.allclose(model(images).predictions["glaucoma"], before)


def test_parameters_are_as_autograd_reaches_them():
    for options in ({}, {"classifier": "segmentation"}):
        model = small(**options).eval()
        output = model(torch.randn(1, 3, 40, 40))
        names = {id(value): name for name, value in model.named_parameters()}
        found = {task: reached(model, output.predictions[task]) for task in model.tasks}
        for task in model.tasks:
            others = set().union(*(found[other] for other in found if other != task))
            assert {names[id(p)] for p in model.task_parameters(task)} == found[task] - others
        assert all(any(p is q for q in model.shared_parameters()) for p in model.decoder.parameters())
        assert model.last_shared_parameters()


def test_only_what_is_asked_is_run():
    model = small().eval()
    images = torch.randn(1, 3, 40, 40)
    whole = model(images)
    ran: list[str] = []
    for name in ("decoder", "heads.cup", "heads.disc", "classifiers.glaucoma.classifier"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    alone = model(images, ["glaucoma"])
    assert ran == ["classifiers.glaucoma.classifier"] and list(alone.predictions) == ["glaucoma"]
    ran.clear()
    torch.testing.assert_close(model(images, ["cup"]).predictions["cup"], whole.predictions["cup"])
    assert ran == ["decoder", "heads.cup"]
    reading = small(classifier="segmentation").eval()
    both, one = reading(images), reading(images, ["glaucoma"])
    assert list(one.predictions) == ["glaucoma"]
    torch.testing.assert_close(one.predictions["glaucoma"], both.predictions["glaucoma"])


def test_image_tasks_alone_need_no_decoder():
    model = small({}, {"glaucoma": 1, "quality": 3})
    assert not hasattr(model, "decoder")
    assert model(torch.randn(2, 3, 40, 40)).predictions["quality"].shape == (2, 3)


def test_round_trip_compiled_and_low_precision():
    first, second = (small(classifier="segmentation").eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    images = torch.randn(1, 3, 48, 40)
    expected = first(images).predictions
    compiled = torch.compile(second, backend="eager", fullgraph=True)(images).predictions
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = second(images).predictions
    for task in first.tasks:
        torch.testing.assert_close(compiled[task], expected[task])
        assert (low[task].float() - expected[task]).abs().max() < 0.1 * expected[task].abs().max() + 0.05
    bigger = first.decode(first.encode(images), (96, 33), ["cup"])
    assert bigger.predictions["cup"].shape == (1, 1, 96, 33)


def test_refusals():
    cases = [
        ({"backbone": "vit_tiny_patch16_224", "neck": "none", "neck_options": None}, "at least two strides"),
        ({"classifier": "vcdr"}, "'vcdr' is not one of bottleneck, segmentation"),
        ({"classifier_reads": ["cup"]}, "with classifier 'segmentation' only"),
        ({"classifier": "segmentation", "classifier_reads": ["vessel"]}, "'vessel' is none of them"),
        ({"classifier": "segmentation", "image": {}}, "needs an image task"),
        ({"classifier": "segmentation", "dense": {}}, "needs an image task and main dense tasks"),
        ({"decoder_channels": (8, 8)}, "give 4 positive numbers"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            small(**options)
    widths = small(decoder_channels=(12, 10, 8, 6))
    assert widths.decoder.outputs == 6


def test_single_task_counterpart_is_a_unet():
    """The same network: as many parameters and multiply-adds as a U-Net of one task."""
    from mtl_heads.registry import ARCHITECTURES
    from mtl_heads.resources import resources

    options = {"decoder_channels": [12, 10, 8, 6], "backbone_options": {"layers": [1] * 4, "channels": [8, 8, 16, 16]}}
    head = ARCHITECTURES.get("unet").single_task_options(options)
    assert head == {"head": "unet", "head_options": {"channels": [12, 10, 8, 6]}}
    single = build_model("single_task", "resnet18", {"a": 3}, backbone_options=options["backbone_options"], **head)
    unet = build_model("unet", "resnet18", {"a": 3}, **options)
    assert resources(single, 64) == resources(unet, 64)
