"""SegNet, and what is built on it."""

from __future__ import annotations

import functools
import itertools

import pytest
import timm
import torch
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.networks.segnet import SegNet, pool, unpool
from mtl_heads.resources import parameters
from mtl_heads.segnet_attention import AttentionModule

CHANNELS, DEPTHS = (4, 6, 8, 10, 10), (1, 2, 1, 2, 1)
TINY = {"channels": CHANNELS, "depths": DEPTHS}
NAMES = ("mtan_segnet", "stan_segnet", "split_segnet", "mtlbl1_segnet", "mtlbl2_segnet")
SIZES = ((65, 47), (32, 64), (20, 33))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny(name, dense=None, image=None, auxiliary=None, backbone="segnet", **options):
    if name == "stan_segnet":
        dense, image, auxiliary = {"semseg": 5} if dense is None else dict(list(dense.items())[:1]), None, None
    dense = {"semseg": 5, "depth": 1} if dense is None else dense
    return build_model(name, backbone, dense, image, auxiliary, backbone_options=dict(TINY), **options)


# -- the network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_segnet_against_an_obvious_reference(size):
    """Unpooling by hand: each value goes back to the place of its cell's maximum."""
    network = SegNet(0, channels=CHANNELS, depths=DEPTHS).eval()
    images = torch.randn(2, 3, *size)
    features, levels = images, []
    for block in network.encoder:
        before = block(features)
        features, places = pool(before)
        for y, x in itertools.product(range(features.shape[2]), range(features.shape[3])):
            cell = before[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            assert torch.equal(features[:, :, y, x], cell.amax((2, 3)))
        levels.append((before, places))
    for block, (before, places) in zip(network.decoder, levels[::-1], strict=True):
        spread = torch.zeros_like(before).flatten(2)
        for b, c in itertools.product(range(2), range(before.shape[1])):
            spread[b, c, places[b, c].flatten()] = features[b, c].flatten()
        torch.testing.assert_close(spread.view_as(before), unpool(features, places, before))
        features = block(spread.view_as(before))
    torch.testing.assert_close(network.forward_features(images), features)
    assert features.shape == (2, CHANNELS[0], *size)


def test_segnet_is_vgg16_and_its_mirror():
    with torch.device("meta"):
        network, vgg = SegNet(0), timm.create_model("vgg16_bn")
    shapes = [tuple(m.weight.shape) for m in network.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [tuple(m.weight.shape) for m in vgg.features.modules() if isinstance(m, nn.Conv2d)]
    mirrored = [tuple(m.weight.shape[:2]) for m in network.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert mirrored == [(i, o) for o, i, *_ in shapes[:0:-1]] + [(64, 64)]


def test_segnet_through_timm():
    whole = timm.create_model("segnet", num_classes=7, **TINY)
    assert whole(torch.randn(2, 3, 33, 40)).shape == (2, 7)
    assert timm.create_model("segnet", num_classes=0, **TINY)(torch.randn(2, 3, 33, 40)).shape == (2, CHANNELS[0])
    last = timm.create_model("segnet", features_only=True, **TINY)
    assert [tuple(f.shape) for f in last(torch.randn(1, 3, 33, 40))] == [(1, 4, 33, 40)]
    assert not any("head" in name for name in last.state_dict())
    coarse = timm.create_model("segnet", features_only=True, out_indices=(2, 5), **TINY).eval()
    assert coarse.feature_info.channels() == [6, 10] and coarse.feature_info.reduction() == [4, 32]
    assert len(coarse.model.decoder) == 3
    coarse.load_state_dict(last.state_dict(), strict=False)
    last.eval()
    images = torch.randn(1, 3, 33, 40)
    everything = last.model.forward_intermediates(images, [0, 1, 2, 3, 4, 5], intermediates_only=True)
    for found, wanted in zip(coarse(images), (everything[2], everything[5]), strict=True):
        torch.testing.assert_close(found, wanted)
    final, _ = last.model.forward_intermediates(images, [5])
    torch.testing.assert_close(final, last(images)[0])


def test_segnet_serves_other_architectures():
    for head in ("segnet", "fcn", "linear"):
        model = build_model(
            "baseline", "segnet", {"depth": 1}, {"scene": 3}, head=head, backbone_options=dict(TINY)
        )
        output = model(torch.randn(2, 3, 33, 47)).predictions
        assert output["depth"].shape == (2, 1, 33, 47) and output["scene"].shape == (2, 3)


def test_segnet_head_is_two_convolutions():
    model = build_model("baseline", "resnet10t", {"depth": 2}, head="segnet")
    first, second = model.heads["depth"].layers
    assert first.weight.shape == (512, 512, 3, 3) and second.weight.shape == (2, 512, 1, 1)


# -- attention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
def test_attention_module_against_its_formula(up):
    """â = (h(g([u; f(â')])) + 1) ⊙ p, written out."""
    module = AttentionModule(8, 6, 4, up, f_reduction=2, g_reduction=2).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    u, previous = torch.randn(2, 8, 9, 12), torch.randn(2, 6, 9, 12)
    p = torch.randn(2, 4, 17, 24) if up else torch.randn(2, 4, 5, 6)
    (f, f_norm, _), (h, h_norm, _) = module.f, module.h
    seen = torch.cat([u, torch.relu(f_norm(nn.functional.conv2d(previous, f.weight, padding=1)))], 1)
    if up:
        seen = nn.functional.conv_transpose2d(
            seen, module.resample.weight, stride=2, padding=1, output_padding=(0, 1)
        )
    else:
        seen = nn.functional.conv2d(seen, module.resample.weight, stride=2, padding=1)
    mask = torch.sigmoid(h_norm(nn.functional.conv2d(torch.relu(module.g[0](seen)), h.weight)))
    torch.testing.assert_close(module(u, p, previous), (mask + 1) * p)
    assert module.f[0].kernel_size == module.resample.kernel_size == (3, 3) and h.kernel_size == (1, 1)


def test_no_attention_leaves_split_segnet():
    """With masks of 0 the attended features are the shared ones ("no worse than a shared network")."""
    attention = tiny("mtan_segnet", image={"scene": 3}).eval()
    for part in attention.modules():
        if isinstance(part, AttentionModule):
            part.h[1].weight.data.zero_()
            part.h[1].bias.data.fill_(-1e4)
    split = tiny("split_segnet", image={"scene": 3}).eval()
    split.load_state_dict({k: v for k, v in attention.state_dict().items() if k.split(".")[0] in ("encoder", "heads")})
    images = torch.randn(1, 3, 40, 33)
    found, wanted = attention(images).predictions, split(images).predictions
    for task in wanted:
        torch.testing.assert_close(found[task], wanted[task])


def test_every_module_raises_features_by_a_factor_of_one_to_two():
    """(a + 1) ⊙ p with a mask a in [0, 1] that differs between pixels, everywhere in encoder and decoder."""
    model = tiny("mtan_segnet").eval()
    for part in model.modules():
        if isinstance(part, AttentionModule):
            part.h[1].weight.data.fill_(8.0)  # of the norm before the sigmoid: masks of both kinds
    factors = []

    def hook(module, inputs, output):
        after = inputs[1]
        assert not output[after == 0].any()
        factors.append((output / after)[after.abs() > 1e-3])

    for part in model.modules():
        if isinstance(part, AttentionModule):
            part.register_forward_hook(hook)
    model(torch.randn(1, 3, 40, 33))
    assert len(factors) == 2 * 2 * len(CHANNELS)
    together = torch.cat(factors)
    assert together.min() > 0.999 and together.max() < 2.001
    assert (together < 1.2).any() and (together > 1.8).any()
    assert all(found.max() - found.min() > 1e-3 for found in factors)


def test_single_task_attention_is_mtan_of_one_task():
    single, several = tiny("stan_segnet").eval(), tiny("mtan_segnet").eval()
    shared = {k: v for k, v in several.state_dict().items() if ".depth." not in k}
    single.load_state_dict(shared)
    images = torch.randn(1, 3, 40, 40)
    torch.testing.assert_close(single(images).predictions["semseg"], several(images).predictions["semseg"])
    with pytest.raises(UserError, match="'stan_segnet' takes exactly one task, not 2 .semseg, depth.*mtan_segnet"):
        build_model("stan_segnet", "segnet", {"semseg": 5, "depth": 1}, backbone_options=dict(TINY))


# -- the baselines ------------------------------------------------------------------------------------


def test_first_baseline_receives_all_shared_features():
    """A task network whose own features are 0 passes on what it receives; one that receives 0 is a SegNet."""
    model = tiny("mtlbl1_segnet").eval()
    images = torch.randn(1, 3, 40, 33)
    shared = model.encode(images)
    alone = [images, *(torch.zeros_like(features) for features in shared[1:])]
    network = model.task_networks["depth"]
    encoded = network.encode(images)
    features, deepest = model.task_features(alone, "depth")
    torch.testing.assert_close(deepest, encoded.pooled[-1])
    torch.testing.assert_close(features, network.decode(encoded)[-1])
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.zero_()
            part.bias.data.zero_()
    features, deepest = model.task_features(shared, "depth")
    torch.testing.assert_close(features, shared[-1])
    torch.testing.assert_close(deepest, shared[5])


def test_second_baseline_has_task_decoders_and_no_shared_one():
    model = tiny("mtlbl2_segnet", image={"scene": 3}).eval()
    assert len(model.network.decoder) == 0 and set(model.decoders.tasks) == {"semseg", "depth"}
    for part in model.modules():
        if isinstance(part, AttentionModule):
            part.h[1].weight.data.zero_()
            part.h[1].bias.data.fill_(-1e4)
    images = torch.randn(1, 3, 40, 33)
    plain = SegNet(0, **TINY).eval()
    plain.encoder.load_state_dict(model.network.encoder.state_dict())
    plain.decoder.load_state_dict(model.decoders["depth"].state_dict())
    features = model.task_features(model.encode(images), "depth")
    torch.testing.assert_close(features[0], plain.forward_features(images))


#: Table 2.1: parameters relative to one SegNet, for one, two and three tasks.
TABLE = {
    ("stan_segnet", 1): 1.32,
    ("split_segnet", 2): 1.0,
    ("mtan_segnet", 2): 1.64,
    ("mtan_segnet", 3): 1.96,
    ("mtlbl1_segnet", 2): 3.02,
    ("mtlbl1_segnet", 3): 4.03,
}


@functools.cache
def size(name: str, count: int, backbone: str = "segnet") -> int:
    tasks = dict(list({"semseg": 13, "depth": 1, "normals": 3}.items())[:count])
    with torch.device("meta"):
        return parameters(build_model(name, timm.create_model(backbone, features_only=True), tasks))


def test_parameters_of_the_paper():
    whole = size("split_segnet", 1)
    for (name, count), wanted in TABLE.items():
        assert size(name, count) / whole == pytest.approx(wanted, rel=0.02), (name, count)
    for backbone in ("segnet_wide", "segnet_deep"):
        assert size("split_segnet", 3, backbone) >= size("mtan_segnet", 3)
    for name in ("mtlbl1_segnet", "mtlbl2_segnet"):  # "more parameters than our proposed MTAN-SegNet"
        assert size(name, 2) > size("mtan_segnet", 2)


# -- the contract -------------------------------------------------------------------------------------

TASKS = [
    ({"semseg": 5}, {}, {}),
    ({"semseg": 5, "depth": 1}, {"scene": 3}, {"normals": 3}),
    ({}, {"scene": 3, "lamps": 2}, {}),
]


@pytest.mark.parametrize(("dense", "image", "auxiliary"), TASKS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "stan_segnet"])
def test_contract(name, dense, image, auxiliary):
    model = tiny(name, dense, image, auxiliary)
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    assert list(output.predictions) == [*dense, *image]
    shapes = {task: (2, n, 65, 47) for task, n in (dense | auxiliary).items()} | {t: (2, n) for t, n in image.items()}
    for maps in (output.predictions, *output.intermediate):
        for task, value in maps.items():
            assert value.shape == shapes[task] and value.isfinite().all()
    assert all(output.of(task) for task in model.task_set.all)

    names, values = zip(*model.named_parameters(), strict=True)
    reached = {}
    for task in model.task_set.all:
        loss = sum(value.square().mean() for value in output.of(task))
        found = torch.autograd.grad(loss, values, allow_unused=True, retain_graph=True)
        reached[task] = {n for n, g in zip(names, found, strict=True) if g is not None}
        assert all(g.isfinite().all() for g in found if g is not None)
    known = {id(value): key for key, value in model.named_parameters()}
    for task, found in reached.items():
        others = set().union(*(reached[other] for other in reached if other != task))
        assert {known[id(p)] for p in model.task_parameters(task)} == found - others
    if dense:  # nothing is there for show
        assert not model.unreached_parameters()
    if len(reached) > 1:
        assert model.last_shared_parameters()

    model.eval()
    again = tiny(name, dense, image, auxiliary).eval()
    again.load_state_dict(model.state_dict())
    expected = model(images)
    for task in model.task_set.all:
        alone = again(images, [task])
        assert set(alone.predictions) | {t for maps in alone.intermediate for t in maps} == {task}
        for value, wanted in zip(alone.of(task), expected.of(task), strict=True):
            torch.testing.assert_close(value, wanted)
    decoded = model.decode(model.encode(images), (90, 31)).predictions
    assert all(decoded[task].shape[-2:] == (90, 31) for task in dense)


@pytest.mark.parametrize("name", NAMES)
def test_image_tasks_alone_run_no_decoder(name):
    model = tiny(name, image={"scene": 3}) if name != "stan_segnet" else build_model(
        name, "segnet", {}, {"scene": 3}, backbone_options=dict(TINY)
    )
    ran = []
    for key, part in model.named_modules():
        if "decoder" in key:
            part.register_forward_hook(lambda *_, key=key: ran.append(key))
    model(torch.randn(1, 3, 40, 40), ["scene"])
    assert not ran


@pytest.mark.parametrize("name", NAMES)
def test_one_image_autocast_and_channels_last(name):
    model = tiny(name).train()
    for height, width in SIZES:
        images = torch.randn(1, 3, height, width)
        sum(value.square().mean() for value in model(images).predictions.values()).backward()
    model.eval()
    images = torch.randn(2, 3, 40, 33)
    wanted = model(images).predictions["semseg"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images).predictions["semseg"]
    # a value that rounding makes the largest of its cell is put back to another place, so not every pixel is close
    assert low.dtype == torch.bfloat16 and (low.float() - wanted).abs().mean() < 0.05 * wanted.abs().max()
    model.to(memory_format=torch.channels_last)
    layout = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(layout).predictions["semseg"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stan_segnet"])
def test_refusals(name):
    tasks = {"semseg": 5, "depth": 1}
    with pytest.raises(UserError, match="works on the blocks of SegNet.*'resnet10t' does not have.*backbone segnet"):
        build_model(name, "resnet10t", tasks)
    with pytest.raises(UserError, match="needs the whole decoder.*leave out_indices out"):
        build_model(name, "segnet", tasks, backbone_options={**TINY, "out_indices": (2,)})
    with pytest.raises(UserError, match="channels .* and depths .* are not of the same blocks"):
        build_model(name, "segnet", tasks, backbone_options={"channels": (4, 4), "depths": (1,)})
    if name.startswith(("mtan", "mtlbl2")):
        with pytest.raises(UserError, match="f_reduction 0"):
            tiny(name, f_reduction=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_in_one_graph(name):
    model = tiny(name).eval()
    images = torch.randn(1, 3, 40, 33)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).predictions["semseg"], model(images).predictions["semseg"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(1800)  # nothing is compiled yet, and it is much
@pytest.mark.usefixtures("own_inductor_cache")
def test_compiled_by_inductor_trains(name):
    model = tiny(name)
    torch.compile(model)(torch.randn(2, 3, 40, 40)).predictions["semseg"].sum().backward()
    assert all(p.grad is not None for p in model.task_parameters("semseg"))
