"""Files of the original code base against slow networks that have its names, written from the thesis.

Each network here has the layout of such a file and does what the thesis says, one task after another.
Its random weights are loaded into ours, which must predict the same.
"""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from harness.errors import UserError
from mtl_heads import build_model, load_vandenhende

TASKS = {"semseg": 5, "depth": 1}
AUXILIARY = {"normals": 3, "edge": 1}
SIZE = (64, 96)
STAGES = ("layer1", "layer2", "layer3", "layer4")


def resize(maps: Tensor, size) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


class ResNet(nn.Module):
    """Torchvision's, by stages; dilated, the last two keep the size and their 3x3 reach further."""

    def __new__(cls, name: str, dilated: bool) -> nn.Module:
        net = getattr(torchvision.models, name)()
        del net.fc
        net.channels = [stage[-1].conv2.out_channels for stage in cls.stages(net)]
        if name == "resnet50":
            net.channels = [stage[-1].conv3.out_channels for stage in cls.stages(net)]
        net.stride = 8 if dilated else 32
        net.halves = [True, False, False] if dilated else [True] * 3
        if dilated:
            for stage, first, others in ((net.layer3, 1, 2), (net.layer4, 2, 4)):
                convolutions = [part for part in stage.modules() if isinstance(part, nn.Conv2d)]
                for part in convolutions:
                    part.stride = (1, 1)
                wide = [part for part in convolutions if part.kernel_size == (3, 3)]
                for part, dilation in zip(wide, [first] + [others] * len(wide), strict=False):
                    part.dilation = part.padding = (dilation, dilation)
        return net

    @staticmethod
    def stages(net: nn.Module) -> list[nn.Sequential]:
        return [getattr(net, stage) for stage in STAGES]

    @staticmethod
    def stem(net: nn.Module, images: Tensor) -> Tensor:
        return net.maxpool(net.relu(net.bn1(net.conv1(images))))

    @staticmethod
    def features(net: nn.Module, images: Tensor) -> list[Tensor]:
        maps, found = ResNet.stem(net, images), []
        for stage in ResNet.stages(net):
            maps = stage(maps)
            found.append(maps)
        return found


def hrnet() -> nn.Module:
    net = timm.create_model("hrnet_w18_small_v2", features_only=True, feature_location="", out_indices=(1, 2, 3, 4))
    net.channels, net.stride = [18, 36, 72, 144], None
    return net


BACKBONES = {
    "resnet18": lambda: ResNet("resnet18", False),
    "resnet18 dilated": lambda: ResNet("resnet18", True),
    "resnet50": lambda: ResNet("resnet50", False),
    "resnet50 dilated": lambda: ResNet("resnet50", True),
    "hrnet": hrnet,
}


def features(net: nn.Module, images: Tensor) -> list[Tensor]:
    return net(images) if net.stride is None else ResNet.features(net, images)


class HRNetHead(nn.Module):
    def __init__(self, channels: list[int], outputs: int) -> None:
        super().__init__()
        width = sum(channels)
        layers = [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, outputs, 1)]
        self.last_layer = nn.Sequential(*layers)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.last_layer(torch.cat([resize(one, maps[0].shape[-2:]) for one in maps], 1))


class LastMap(DeepLabHead):
    """DeepLab on the coarsest features; its rates are those of output stride 8, or a quarter at 32."""

    def __init__(self, net: nn.Module, outputs: int) -> None:
        rates = (12, 24, 36) if net.stride == 8 else (3, 6, 9)
        super().__init__(net.channels[-1], outputs, rates)

    def forward(self, maps: list[Tensor] | Tensor) -> Tensor:
        return super().forward(maps[-1] if isinstance(maps, list) else maps)


def head(net: nn.Module, outputs: int) -> nn.Module:
    return HRNetHead(net.channels, outputs) if net.stride is None else LastMap(net, outputs)


class SingleTask(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.backbone = make()
        self.decoder = head(self.backbone, 5)

    def forward(self, images):
        return {"semseg": resize(self.decoder(features(self.backbone, images)), SIZE)}, []


class Baseline(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.backbone = make()
        self.decoders = nn.ModuleDict({task: head(self.backbone, n) for task, n in TASKS.items()})

    def forward(self, images):
        found = features(self.backbone, images)
        return {task: resize(self.decoders[task](found), SIZE) for task in TASKS}, []


class Number(nn.Module):
    def __init__(self, channels: int, mean: float) -> None:
        super().__init__()
        self.param = nn.Parameter(torch.rand(channels) * 0.2 + mean)


class CrossStitchUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cross_stitch_unit = nn.ModuleDict(
            {
                i: nn.ModuleDict({j: Number(channels, 0.7 if i == j else 0.1) for j in TASKS})
                for i in TASKS
            }
        )

    def forward(self, maps):
        unit = self.cross_stitch_unit
        return {i: sum(unit[i][j].param[:, None, None] * maps[j] for j in TASKS) for i in TASKS}


class NddrLayer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Conv2d(len(TASKS) * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
                )
                for task in TASKS
            }
        )

    def forward(self, maps):
        together = torch.cat([maps[task] for task in TASKS], 1)
        return {task: self.layer[task](together) for task in TASKS}


class Columns(nn.Module):
    """A network per task; after each stage a unit mixes their features."""

    def __init__(self, make, name: str, unit: type[nn.Module]) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({task: make() for task in TASKS})
        self.heads = nn.ModuleDict({task: head(self.backbone[task], n) for task, n in TASKS.items()})
        channels = self.backbone["depth"].channels
        self.name = name
        setattr(self, name, nn.ModuleDict({s: unit(c) for s, c in zip(STAGES, channels, strict=True)}))

    def forward(self, images):
        maps = {task: ResNet.stem(self.backbone[task], images) for task in TASKS}
        for stage in STAGES:
            maps = {task: getattr(self.backbone[task], stage)(maps[task]) for task in TASKS}
            maps = getattr(self, self.name)[stage](maps)
        return {task: resize(self.heads[task](maps[task]), SIZE) for task in TASKS}, []


def bottleneck(inputs: int, outputs: int, block=Bottleneck) -> nn.Module:
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    return block(inputs, outputs // block.expansion, downsample=shortcut)


class Mtan(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.backbone = make()
        channels = self.backbone.channels
        for number, width in enumerate(channels, 1):
            read = width if number == 1 else 2 * width
            attention = {task: self.attention(read, width) for task in TASKS}
            setattr(self, f"attention_{number}", nn.ModuleDict(attention))
        for number in (1, 2, 3):
            refine = bottleneck(channels[number - 1], channels[number])
            setattr(self, f"refine_{number}", nn.Sequential(refine))
        self.heads = nn.ModuleDict({task: head(self.backbone, n) for task, n in TASKS.items()})

    @staticmethod
    def attention(inputs: int, outputs: int) -> nn.Module:
        inner = outputs // 4
        first, second = nn.Conv2d(inputs, inner, 1), nn.Conv2d(inner, outputs, 1)
        return nn.Sequential(
            first, nn.BatchNorm2d(inner), nn.ReLU(), second, nn.BatchNorm2d(outputs), nn.Sigmoid()
        )

    def forward(self, images):
        shared = ResNet.stem(self.backbone, images)
        attended: dict[str, Tensor] = {}
        for number, stage in enumerate(ResNet.stages(self.backbone), 1):
            before = stage[:-1](shared)
            shared = stage[-1](before)
            for task in TASKS:
                read = before if number == 1 else torch.cat([before, attended[task]], 1)
                maps = getattr(self, f"attention_{number}")[task](read) * shared
                if number < 4:
                    maps = getattr(self, f"refine_{number}")(maps)
                    if self.backbone.halves[number - 1]:
                        maps = F.max_pool2d(maps, 2)
                attended[task] = maps
        return {task: resize(self.heads[task](attended[task]), SIZE) for task in TASKS}, []


class SpatialAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, maps):
        return torch.sigmoid(self.attention(maps)) * self.conv(maps)


class Distillation(nn.Module):
    def __init__(self, everything: list[str], channels: int) -> None:
        super().__init__()
        self.self_attention = nn.ModuleDict(
            {
                task: nn.ModuleDict({other: SpatialAttention(channels) for other in everything if other != task})
                for task in TASKS
            }
        )

    def forward(self, maps):
        return {
            task: maps[task] + sum(part(maps[other]) for other, part in self.self_attention[task].items())
            for task in TASKS
        }


class InitialHeads(nn.Module):
    def __init__(self, inputs: int, outputs: dict[str, int], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {task: nn.Sequential(bottleneck(inputs, width), bottleneck(width, width)) for task in outputs}
        )
        self.conv_out = nn.ModuleDict({task: nn.Conv2d(width, n, 1) for task, n in outputs.items()})


class PadNet(nn.Module):
    def __init__(self, make, everything: dict[str, int]) -> None:
        super().__init__()
        self.backbone, self.everything, width = make(), list(everything), 256
        channels = self.backbone.channels
        self.reads_all = self.backbone.stride != 8
        inputs = sum(channels) if self.reads_all else channels[-1]
        self.initial_task_prediction_heads = InitialHeads(inputs, everything, width)
        self.multi_modal_distillation = Distillation(self.everything, width)
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(bottleneck(width, width), bottleneck(width, width), nn.Conv2d(width, n, 1))
                for task, n in TASKS.items()
            }
        )

    def forward(self, images):
        found = features(self.backbone, images)
        read = found[-1]
        if self.reads_all:
            read = torch.cat([resize(one, found[0].shape[-2:]) for one in found], 1)
        front = self.initial_task_prediction_heads
        maps = {task: front.layers[task](read) for task in self.everything}
        initial = {task: resize(front.conv_out[task](maps[task]), SIZE) for task in self.everything}
        maps = self.multi_modal_distillation(maps)
        return {task: resize(self.heads[task](maps[task]), SIZE) for task in TASKS}, [initial]


class Scale(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: dict[str, int]) -> None:
        super().__init__()

        def blocks():
            return nn.Sequential(bottleneck(inputs, width, BasicBlock), bottleneck(width, width, BasicBlock))

        self.refinement = nn.ModuleDict({task: blocks() for task in outputs})
        self.decoders = nn.ModuleDict({task: nn.Conv2d(width, n, 1) for task, n in outputs.items()})


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 16
        self.squeeze = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))

    def forward(self, maps):
        return maps * torch.sigmoid(self.squeeze(maps.mean((2, 3))))[:, :, None, None]


class Propagation(nn.Module):
    """With the published program's groups: of as many neighbouring channels as there are tasks."""

    def __init__(self, everything: list[str], channels: int) -> None:
        super().__init__()
        self.everything, together = everything, len(everything) * channels
        inner = together // 4
        self.non_linear = nn.Sequential(
            bottleneck(together, inner, BasicBlock), bottleneck(inner, inner, BasicBlock), nn.Conv2d(inner, together, 1)
        )
        self.dimensionality_reduction = bottleneck(together, channels, BasicBlock)
        self.se = nn.ModuleDict({task: Squeeze(channels) for task in everything})

    def forward(self, maps):
        together = torch.cat([maps[task] for task in self.everything], 1)
        scores, count = self.non_linear(together), len(self.everything)
        mask = torch.cat([one.softmax(1) for one in scores.split(count, 1)], 1)
        shared = self.dimensionality_reduction(mask * together)
        return {task: maps[task] + self.se[task](shared) for task in self.everything}


class MtiNet(nn.Module):
    def __init__(self, make, everything: dict[str, int]) -> None:
        super().__init__()
        self.backbone, self.everything = make(), list(everything)
        channels = self.backbone.channels
        for scale, (own, coarser) in enumerate(zip(channels, [*channels[1:], 0], strict=True)):
            setattr(self, f"scale_{scale}", Scale(own + coarser, own, everything))
            setattr(self, f"distillation_scale_{scale}", Distillation(self.everything, own))
        for scale in (1, 2, 3):
            setattr(self, f"fpm_scale_{scale}", Propagation(self.everything, channels[scale]))
        self.heads = nn.ModuleDict({task: HRNetHead(channels, n) for task, n in TASKS.items()})

    def forward(self, images):
        found = features(self.backbone, images)
        initial, distilled, passed = {}, {}, None
        for scale in (3, 2, 1, 0):
            part, maps = getattr(self, f"scale_{scale}"), {}
            for task in self.everything:
                read = found[scale]
                if passed is not None:
                    read = torch.cat([read, resize(passed[task], read.shape[-2:])], 1)
                maps[task] = part.refinement[task](read)
            initial[scale] = {task: resize(part.decoders[task](maps[task]), SIZE) for task in self.everything}
            distilled[scale] = getattr(self, f"distillation_scale_{scale}")(maps)
            passed = getattr(self, f"fpm_scale_{scale}")(maps) if scale else None
        final = {
            task: resize(self.heads[task]([distilled[scale][task] for scale in range(4)]), SIZE) for task in TASKS
        }
        return final, [initial[scale] for scale in range(4)]


def randomised(reference: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics as after training."""
    generator = torch.Generator().manual_seed(3)
    for part in reference.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.2, generator=generator)
            part.running_var.uniform_(0.7, 1.5, generator=generator)
            for value in (part.bias.data, part.running_mean):
                value.uniform_(-0.2, 0.2, generator=generator)
    return reference.eval()


ALL_TASKS = {**TASKS, **AUXILIARY}
MIXED = {"normals": 3, "semseg": 5, "edge": 1, "depth": 1}
PUBLISHED = {"pad_net": {"distill": "published"}, "mti_net": {"grouping": "published"}}
REFERENCES = {
    "single_task": SingleTask,
    "baseline": Baseline,
    "cross_stitch": lambda make: Columns(make, "cross_stitch", CrossStitchUnit),
    "nddr": lambda make: Columns(make, "nddr", NddrLayer),
    "mtan": Mtan,
    "pad_net": lambda make: PadNet(make, ALL_TASKS),
    "mti_net": lambda make: MtiNet(make, ALL_TASKS),
}
QUICK = {
    ("single_task", "hrnet"), ("baseline", "resnet18 dilated"),
    ("cross_stitch", "resnet18"), ("nddr", "resnet18 dilated"), ("mtan", "resnet18"), ("mtan", "resnet50 dilated"),
    ("pad_net", "hrnet"), ("pad_net", "resnet18 dilated"), ("mti_net", "hrnet"),
}  # fmt: skip
IMPOSSIBLE = {
    ("cross_stitch", "hrnet"), ("nddr", "hrnet"), ("mtan", "hrnet"),
    ("mti_net", "resnet18 dilated"), ("mti_net", "resnet50 dilated"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def ours(name: str, backbone: str, dense=None, auxiliary=None, **options) -> nn.Module:
    dense = {"semseg": 5} if name == "single_task" else dense or TASKS
    if name in PUBLISHED:
        options, auxiliary = PUBLISHED[name] | options, auxiliary or AUXILIARY
    else:
        options = {"head": "hrnet" if backbone == "hrnet" else "deeplab"} | options
    timm_name, _, dilated = backbone.partition(" ")
    if timm_name == "hrnet":
        timm_name = "hrnet_w18_small_v2"
    if dilated:
        options["output_stride"] = 8
    return build_model(name, timm_name, dense, auxiliary=auxiliary, **options).eval()


def saved(reference: nn.Module) -> dict[str, Tensor]:
    """The file of a network that was trained in several processes."""
    return {f"module.{key}": value for key, value in reference.state_dict().items()}


def check(reference: nn.Module, model: nn.Module) -> None:
    reference = randomised(reference)
    images = torch.randn(1, 3, *SIZE)
    load_vandenhende(model, saved(reference))
    with torch.no_grad():
        expected, initial = reference(images)
        output = model(images, **model.as_in_training)
    assert output.predictions.keys() == expected.keys() and len(output.intermediate) == len(initial)
    for got, wanted in zip([output.predictions, *output.intermediate], [expected, *initial], strict=True):
        assert got.keys() == wanted.keys()
        for task, value in wanted.items():
            assert 1e-3 < value.std() < 1e3
            torch.testing.assert_close(got[task], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        pytest.param(name, backbone, marks=[] if (name, backbone) in QUICK else pytest.mark.slow)
        for name in REFERENCES
        for backbone in BACKBONES
        if (name, backbone) not in IMPOSSIBLE
    ],
)
def test_predictions_are_the_original_ones(name, backbone):
    check(REFERENCES[name](BACKBONES[backbone]), ours(name, backbone))


def test_tasks_may_stand_in_another_order():
    """What reads all tasks side by side finds them by the order of the file's keys."""
    check(MtiNet(hrnet, MIXED), ours("mti_net", "hrnet"))
    flipped = dict(reversed(TASKS.items()))
    check(REFERENCES["nddr"](BACKBONES["resnet18"]), ours("nddr", "resnet18", flipped))


def test_sorted_keys_tell_no_order():
    reference = randomised(REFERENCES["nddr"](BACKBONES["resnet18"]))
    same, other = ours("nddr", "resnet18"), ours("nddr", "resnet18", dict(reversed(TASKS.items())))
    state = saved(reference)
    load_vandenhende(same, dict(sorted(state.items())))
    load_vandenhende(other, state)
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(same(images).predictions["depth"], other(images).predictions["depth"])


def test_an_order_that_cannot_be_changed_is_refused():
    everything = {"parts": 7, **MIXED}  # groups of five channels of 36 cross the tasks' borders
    model = ours("mti_net", "hrnet", auxiliary={**AUXILIARY, "parts": 7})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match="order parts, normals, semseg, edge, depth, the network semseg, depth"):
        load_vandenhende(model, saved(MtiNet(hrnet, everything)))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


REFUSED = {
    "cross_stitch": ("hrnet_w18_small", {"head": "hrnet"}, "several branches is not in the original code base"),
    "nddr": ("hrnet_w18_small", {"head": "hrnet"}, "several branches is not in the original code base"),
    "pad_net": ("resnet10t", {}, "distill=published"),
    "mti_net": ("resnet10t", {}, "grouping=published"),
    "pap_net": ("resnet10t", {}, "no counterpart in the original code base"),
    "baseline": ("resnet10t", {"head": "psp"}, "head 'psp' .* not in the original code base"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_original_lacks_is_refused(name):
    backbone, options, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        load_vandenhende(build_model(name, backbone, TASKS, **options), {})


def test_what_does_not_fit_is_refused_and_leaves_the_model_alone():
    state = saved(SingleTask(BACKBONES["resnet18"]))
    model = ours("single_task", "resnet18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    missing, extra = dict(state), {**state, "module.extra": torch.zeros(1)}
    del missing["module.decoder.4.bias"]
    channels = {**state, "module.decoder.4.weight": torch.zeros(6, 256, 1, 1)}
    checkpoint = {"epoch": 3, "model": state}
    shapes = r"'module.decoder.4.weight' has shape \(6, 256, 1, 1\), the network's 'heads.semseg.* has \(5, 256, 1, 1\)"
    whole = "has a value of type int at 'epoch'.* give the part .*checkpoint\\['model'\\]"
    cases = ((missing, "1 missing"), (extra, "1 unexpected"), (channels, shapes), (checkpoint, whole))
    for candidate, message in (*cases, ({3: torch.zeros(1)}, "at 3, and not only")):
        with pytest.raises(UserError, match=message):
            load_vandenhende(model, candidate)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_counters_may_be_missing_and_wrappers_too():
    state = saved(SingleTask(BACKBONES["resnet18"]))
    model = ours("single_task", "resnet18")
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    load_vandenhende(model, {key: value for key, value in bare.items() if not key.endswith("num_batches_tracked")})
    assert torch.equal(model.backbone.conv1.weight, state["module.backbone.conv1.weight"])
