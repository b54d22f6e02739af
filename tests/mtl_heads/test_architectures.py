"""Properties that every architecture has, over several families of backbones."""

from __future__ import annotations

import copy
import inspect

import pytest
import timm
import torch

from harness.errors import UserError
from mtl_heads import ARCHITECTURES, Output, architectures, build_model
from mtl_heads.blocks import PerTask
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.task_heads import TaskHeads

# timm name, strides of its pyramid (None: all the same), image size with odd sides
BACKBONES = [
    ("resnet10t", (4, 8, 16, 32), (51, 67)),
    ("hrnet_w18_small_v2", (4, 8, 16, 32), (33, 47)),
    ("convnext_atto", (4, 8, 16, 32), (51, 67)),
    ("mobilenetv3_small_050", (4, 8, 16, 32), (51, 67)),
    ("swin_tiny_patch4_window7_224", (4, 8, 16, 32), (45, 59)),
    ("vit_tiny_patch16_224", (16, 16, 16), (51, 67)),
]
SMALL = {"width": 16}
# Of backbones as small as can be; HRNet has no such options.
TINY = {
    "resnet10t": {"channels": (16, 24, 32, 48)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "vit_tiny_patch16_224": {"embed_dim": 24, "depth": 3, "num_heads": 2},
}
# Of architectures, where width is not that of the backbone.
NARROW = {"pad_net": {"channels": 32}, "pap_net": {"channels": 32}, "jtrl": {"channels": 32}}
# Those that are built on SegNet take no other backbone, and are tested in test_mtan_segnet.py.
ANY_BACKBONE = [name for name in architectures() if not issubclass(ARCHITECTURES.get(name), SegNetBased)]
MANY = [name for name in ANY_BACKBONE if name != "single_task"]
WITH_AUXILIARY = [name for name in MANY if name != "jtrl"]  # it has two tasks, and no other
RESIDUAL = ("astmt", "lasso", "mtan")  # they reach inside residual stages


def some(names, *kept):
    """All names as parameters, those that are not in ``kept`` for the slow suite."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def small(name: str = "baseline", dense=None, image=None, auxiliary=None, backbone="resnet10t", **options):
    if name == "single_task":
        dense, image, auxiliary = {"semseg": 5}, None, None
    options = {"head": "fcn", **NARROW.get(name, {}), **options}
    if isinstance(backbone, str) and backbone in TINY:
        options["backbone_options"] = {**TINY[backbone], **options.get("backbone_options", {})}
    if "head" not in inspect.signature(ARCHITECTURES.get(name)).parameters:  # it has its own decoder
        options = {key: value for key, value in options.items() if not key.startswith("head")}
    dense = {"semseg": 5, "depth": 1} if dense is None else dense
    return build_model(name, backbone, dense, image, auxiliary, **options)


def gradients(model, loss) -> set[str]:
    """Names of the parameters that autograd reaches from a loss."""
    names, values = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, values, allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is not None}


def check_parameter_sets(model, images) -> None:
    """The parameter sets against the definition, by a backward pass for each task."""
    names = {id(value): name for name, value in model.named_parameters()}
    output = model(images, **model.as_in_training)
    reached = {task: gradients(model, sum(x.sum() for x in output.of(task))) for task in model.task_set.all}
    for task in model.task_set.all:
        others = set().union(*(reached[other] for other in reached if other != task))
        assert {names[id(p)] for p in model.task_parameters(task)} == reached[task] - others
    exclusive = [id(p) for task in model.task_set.all for p in model.task_parameters(task)]
    shared = [id(p) for p in model.shared_parameters()]
    assert sorted(exclusive + shared) == sorted(names)
    last = {names[id(p)] for p in model.last_shared_parameters()}
    everywhere = set.intersection(*reached.values())
    assert last <= everywhere and {id(p) for p in model.last_shared_parameters()} <= set(shared)
    if len(reached) > 1 and any(name.startswith("encoder") for name in everywhere):
        assert last


@pytest.mark.parametrize(("backbone", "strides", "size"), BACKBONES, ids=[b[0] for b in BACKBONES])
def test_backbone_families(backbone, strides, size):
    model = small(backbone=backbone, image={"scene": 3})
    images = torch.randn(2, 3, *size)
    features = model.eval().encode(images)
    assert model.encoder.pyramid.strides == strides
    assert [f.shape[1] for f in features] == list(model.encoder.pyramid.channels)
    for feature, stride in zip(features, strides, strict=True):
        for side, cells in zip(size, feature.shape[2:], strict=True):
            assert side // stride <= cells <= -(-side // stride)
    output = model(images)
    assert isinstance(output, Output) and output.intermediate == []
    shapes = {task: tuple(value.shape) for task, value in output.predictions.items()}
    assert shapes == {"semseg": (2, 5, *size), "depth": (2, 1, *size), "scene": (2, 3)}
    check_parameter_sets(model, images)


@pytest.mark.parametrize("name", WITH_AUXILIARY)
def test_parameter_sets_with_auxiliary_tasks(name):
    model = small(name, auxiliary={"normals": 3}, image={"scene": 3}).eval()
    check_parameter_sets(model, torch.randn(1, 3, 40, 40))


def test_parameter_sets_of_neck_and_of_a_frozen_backbone():
    model = small(head="hrnet", neck="fpn", neck_options={"channels": 8}).eval()
    check_parameter_sets(model, torch.randn(1, 3, 40, 40))
    before = [id(p) for p in model.shared_parameters()]
    frozen = small(backbone=copy.deepcopy(model.backbone).requires_grad_(False))
    assert {id(p) for p in frozen.backbone.parameters()} <= {id(p) for p in frozen.shared_parameters()}
    twin = copy.deepcopy(model)
    assert [id(p) for p in twin.shared_parameters()] != before
    assert {id(p) for p in twin.shared_parameters()} <= {id(p) for p in twin.parameters()}


def test_a_single_task_shares_nothing():
    model = small("single_task")
    assert model.shared_parameters() == [] and model.last_shared_parameters() == []
    assert len(model.task_parameters("semseg")) == len(list(model.parameters()))


def test_last_shared_parameters_of_resnet():
    model = small(backbone="resnet18")
    assert [p.data_ptr() for p in model.last_shared_parameters()] == [
        model.backbone.layer4[1].conv2.weight.data_ptr()
    ]


@pytest.mark.parametrize("name", ANY_BACKBONE)
def test_forward_is_decode_of_encode_and_any_size(name):
    model = small(name).eval()
    images = torch.randn(2, 3, 45, 70)
    whole, parts = model(images), model.decode(model.encode(images), (45, 70))
    for task in model.tasks:
        torch.testing.assert_close(whole.predictions[task], parts.predictions[task])
        other = model.decode(model.encode(images), (90, 33), [task])
        assert other.predictions[task].shape[-2:] == (90, 33) and list(other.predictions) == [task]
        torch.testing.assert_close(model(images, [task]).predictions[task], whole.predictions[task])


@pytest.mark.parametrize("name", ANY_BACKBONE)
def test_state_dict_round_trip(name):
    first, second = small(name).eval(), small(name).eval()
    images = torch.randn(1, 3, 40, 56)
    assert not torch.equal(first(images).predictions["semseg"], second(images).predictions["semseg"])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images).predictions["semseg"], second(images).predictions["semseg"])


@pytest.mark.parametrize("name", some(ANY_BACKBONE, "baseline", "mtan", "nddr", "pad_net", "unet"))
def test_batch_of_one_trains_and_twenty_pixels_are_enough(name):
    heads = [("deeplab", SMALL), ("psp", SMALL), ("hrnet", {}), ("fcn", {}), ("linear", {})]
    own = "head" not in inspect.signature(ARCHITECTURES.get(name)).parameters
    for head, options in heads[:1] if own else heads:
        model = small(name, head=head, head_options=options, backbone_options={"norm_layer": "groupnorm1"})
        images = torch.randn(1, 3, 40, 40).to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last).train()
        output = model(images)
        loss = sum(value.square().mean() for task in model.task_set.all for value in output.of(task))
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert model.eval()(torch.randn(1, 3, 20, 20)).predictions["semseg"].shape == (1, 5, 20, 20)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [(name, "resnet10t") for name in ANY_BACKBONE]
    + [
        pytest.param(name, "swin_tiny_patch4_window7_224", marks=() if name == "baseline" else pytest.mark.slow)
        for name in ANY_BACKBONE
        if name not in RESIDUAL
    ],
)
def test_bfloat16_autocast(name, backbone):
    model = small(name, backbone=backbone, head="hrnet").eval()
    images = torch.randn(1, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images).predictions["semseg"]
    full = model(images).predictions["semseg"]
    assert low.dtype == torch.bfloat16
    assert (low.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("name", some(ANY_BACKBONE, "baseline"))
def test_compiled_in_one_graph(name):
    torch.compiler.reset()  # or the graphs of all models together are too many
    model = small(name, head="deeplab", head_options=SMALL).eval()
    images = torch.randn(1, 3, 40, 40)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).predictions["semseg"], model(images).predictions["semseg"])
    assert {id(p) for p in compiled.shared_parameters()} == {id(p) for p in model.shared_parameters()}
    twin = small(name).eval()
    if hasattr(twin, "encoder"):
        twin.encoder = torch.compile(twin.encoder, backend="eager")
    assert len(twin.task_parameters("semseg")) == len(small(name).task_parameters("semseg"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_BACKBONE)
@pytest.mark.timeout(1800)  # nothing is compiled yet, and it is much
@pytest.mark.usefixtures("own_inductor_cache")
def test_compiled_by_inductor_trains(name):
    torch.compiler.reset()
    model = small(name)
    compiled = torch.compile(model)
    images = torch.randn(2, 3, 40, 40)
    compiled(images).predictions["semseg"].sum().backward()
    assert all(p.grad is not None for p in model.task_parameters("semseg"))


def test_auxiliary_predictions_are_intermediate():
    model = small(auxiliary={"normals": 3}).eval()
    output = model(torch.randn(1, 3, 40, 40))
    assert list(output.predictions) == ["semseg", "depth"]
    assert [{t: tuple(v.shape) for t, v in maps.items()} for maps in output.intermediate] == [
        {"normals": (1, 3, 40, 40)}
    ]
    assert model(torch.randn(1, 3, 40, 40), ["depth"]).intermediate == []
    assert len(output.of("normals")) == 1


def test_image_tasks_alone_forty_tasks_and_awkward_names():
    names = ["train", "keys", "type", "half", "tasks", "key", *(f"attribute {i}" for i in range(34))]
    model = build_model("baseline", "resnet10t", {}, image=dict.fromkeys(names, 2)).eval()
    output = model(torch.randn(2, 3, 24, 24))
    assert list(output.predictions) == names and output.predictions["train"].shape == (2, 2)
    assert all(len(model.task_parameters(name)) == 2 for name in names)
    model.load_state_dict(copy.deepcopy(model.state_dict()))


def test_no_two_tasks_have_one_head():
    """Names that a module cannot have get an ending that no task's name has."""
    names = ["train", "train_", "key", "key_", "tasks", "training", "vandenhende_prefix", "forward", "_modules"]
    model = small(dense=dict.fromkeys(names, 2), head="linear").eval()
    assert len({id(model.heads[name]) for name in names}) == len(names) == len(model.heads)
    weights = sum(value.numel() for value in model.heads.parameters())
    assert weights == len(names) * sum(value.numel() for value in model.heads["train"].parameters())
    output = model(torch.randn(1, 3, 32, 32))
    assert list(output.predictions) == names
    assert all(model.task_parameters(name) for name in names)
    assert {key.split(".")[1] for key in model.heads.state_dict(prefix="heads.")} >= {"train~", "train_", "key~"}
    with pytest.raises(UserError, match="'train~' has the name of another one's"):
        PerTask({"train": torch.nn.Identity(), "train~": torch.nn.Identity()})


@pytest.mark.parametrize("kind", [PerTask, *PerTask.__subclasses__()])
def test_all_attributes_of_modules_by_task_are_reserved(kind):
    model = small("baseline").heads if kind is TaskHeads else PerTask({"a": torch.nn.Identity()})
    assert kind in (PerTask, TaskHeads)
    taken = {name for name in dir(model) if not name.startswith("___")} - set(model._modules)  # ___: the compiler's
    assert not [name for name in taken if PerTask.key(name) == name]


def test_given_backbone_is_used_as_it_is():
    backbone = timm.create_model("resnet10t", features_only=True)
    model = build_model("baseline", backbone, {"depth": 1}, head="fcn")
    assert model.backbone is backbone
    by_name = build_model("baseline", "resnet10t", {"depth": 1}, head="fcn")
    assert by_name.encoder.pyramid[:3] == model.encoder.pyramid[:3]
    by_name.load_state_dict(model.state_dict())


def test_backbone_options_pass_through():
    model = small(backbone_options={"in_chans": 1, "channels": (8, 16, 24, 32)}).eval()
    assert model.encoder.pyramid.channels == (8, 16, 24, 32)
    assert model(torch.randn(1, 1, 40, 40)).predictions["depth"].shape == (1, 1, 40, 40)
    assert len(model.shared_parameters()) > 0
    assert small(backbone_options={"out_indices": (0, 4)}).encoder.pyramid.strides == (2, 32)
    fixed = small(backbone="swin_tiny_patch4_window7_224", backbone_options={"img_size": (64, 96)})
    assert fixed.encoder.image_size == (64, 96)


@pytest.mark.parametrize(
    ("backbone", "stride", "strides"),
    [
        ("resnet18", 8, (4, 8, 8, 8)),
        ("resnet18", 16, (4, 8, 16, 16)),
        ("efficientnet_b0", 16, (4, 8, 16, 16)),
        ("vit_tiny_patch16_224", 16, (16, 16, 16)),
    ],
)
def test_output_stride(backbone, stride, strides):
    model = small(backbone=backbone, output_stride=stride, head="deeplab", head_options=SMALL)
    assert model.encoder.pyramid.strides == strides
    rates = [branch[0].dilation[0] for branch in model.heads["depth"].layers[0].convs[1:4]]
    assert rates == [rate * 8 // stride for rate in (12, 24, 36)]


def test_hrnet_gives_its_own_branches():
    assert small(backbone="hrnet_w18_small_v2").encoder.pyramid.channels == (18, 36, 72, 144)
