"""Every architecture on every family of backbones, with every set of tasks and odd image sizes.

By default a pairwise cover of the supported combinations runs: any two choices that go together are
together in some case. All of them run with ``-m slow``. Combinations that an architecture refuses are
in ``REFUSED`` with a part of the reason, and are built to see it.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import timm
import torch
from timm.models.hrnet import HighResolutionNetFeatures
from torch import nn

from harness.errors import UserError
from mtl_heads import architectures, build_model, encoder
from mtl_heads.registry import ARCHITECTURES


class Case(NamedTuple):
    """A combination; ``count`` main tasks of a kind, a mixture being half dense, and perhaps an auxiliary one."""

    architecture: str
    backbone: str
    size: tuple[int, int]
    count: int
    kind: str
    auxiliary: bool

    def __str__(self) -> str:
        more = "+auxiliary" if self.auxiliary else ""
        height, width = self.size
        return f"{self.architecture}-{self.backbone}-{height}x{width}-{self.count}_{self.kind}{more}"

    @property
    def tasks(self) -> dict[str, dict[str, int]]:
        """Arguments of ``build_model``."""
        dense = {"dense": self.count, "image": 0, "mixed": self.count // 2}[self.kind]
        outputs = {"semseg": 5, "depth": 1, "normals": 3, "edges": 1}
        labels = {"scene": 3, "lamps": 1, "rooms": 4, "people": 2}
        return {
            "dense": dict(list(outputs.items())[:dense]),
            "image": dict(list(labels.items())[: self.count - dense]),
            "auxiliary": {"saliency": 2} if self.auxiliary else {},
        }

    @property
    def maps(self) -> int:
        """Number of tasks that predict maps, auxiliary ones included."""
        return len(self.tasks["dense"]) + len(self.tasks["auxiliary"])


def tiny_hrnet(features: tuple[int, ...] = (1, 2, 3, 4)) -> nn.Module:
    """HRNet at its four branches, with few channels."""

    def stage(*channels: int, block: str = "BASIC") -> dict[str, Any]:
        one = (1,) * len(channels)
        return {"num_modules": 1, "num_branches": len(channels), "block_type": block, "num_blocks": one,
                "num_channels": channels, "fuse_method": "SUM"}  # fmt: skip

    branches = (4, 8, 16, 24)
    stages = {f"stage{n}": stage(*branches[:n]) for n in (2, 3, 4)}
    config = {"stem_width": 8, "stage1": stage(4, block="BOTTLENECK"), **stages}
    return HighResolutionNetFeatures(config, feature_location="", out_indices=features)


def tiny(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, features_only=True, **options)


class Backbone(NamedTuple):
    """How a backbone is made, and the neck that it needs."""

    make: Callable[[], nn.Module]
    neck: str | None = None


SWIN = {
    "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "img_size": 64, "window_size": 4,
    "strict_img_size": False,
}  # fmt: skip
VIT = {"embed_dim": 16, "depth": 4, "num_heads": 2, "dynamic_img_size": True, "dynamic_img_pad": True}
BACKBONES: dict[str, Backbone] = {
    "resnet": Backbone(tiny("resnet18", channels=(8, 16, 24, 32), layers=(2, 1, 2, 1))),
    "hrnet": Backbone(tiny_hrnet),
    "convnext": Backbone(tiny("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))),
    "efficientnet": Backbone(tiny("test_efficientnet")),
    "swin": Backbone(tiny("swin_tiny_patch4_window7_224", **SWIN)),
    "vit": Backbone(tiny("vit_tiny_patch16_224", **VIT)),
    "vit+pyramid": Backbone(tiny("vit_tiny_patch16_224", **VIT), "simple_pyramid"),
    "segnet": Backbone(tiny("segnet", channels=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1))),
}
FACTORS: dict[str, tuple] = {
    "backbone": tuple(BACKBONES),
    "size": ((65, 47), (33, 64), (40, 57)),
    "count": (1, 2, 4),
    "kind": ("dense", "image", "mixed"),
    "auxiliary": (False, True),
}
#: Options without which an architecture is too big for a quick test.
OPTIONS: dict[str, dict[str, Any]] = {
    "jtrl": {"channels": 8},
    "pad_net": {"channels": 16},
    "pap_net": {"channels": 16, "grid": 6},
}
ONE_TASK = (lambda case: case.count + case.auxiliary > 1, "exactly one task")
NO_MAPS = (lambda case: not case.maps, "tasks that predict maps")
NO_NECK = (lambda case: BACKBONES[case.backbone].neck is not None, "no option 'neck'")
ONE_SCALE = (lambda case: case.backbone in ("vit", "segnet"), "strides?, .* gives 1")
ONLY_SEGNET = (lambda case: case.backbone != "segnet", "choose backbone segnet, or another architecture")
NO_STAGES = (lambda case: case.backbone == "segnet", "cannot be cut into stages")
NOT_RESIDUAL = (lambda case: case.backbone != "resnet", "inside the stages of a residual network")
#: For each architecture: which cases it refuses, and a part of the reason that it gives.
REFUSED: dict[str, list[tuple[Callable[[Case], bool], str]]] = {
    "jtrl": [
        (lambda case: len(case.tasks["dense"]) != 2 or case.auxiliary, "exactly two tasks in turn"), ONE_SCALE
    ],
    "mti_net": [NO_MAPS, ONE_SCALE],
    "pad_net": [NO_MAPS],
    "pap_net": [NO_MAPS],
    "single_task": [ONE_TASK],
    "stan_segnet": [NO_NECK, ONE_TASK, ONLY_SEGNET],
    **dict.fromkeys(("lasso", "mtan", "astmt"), [NOT_RESIDUAL]),
    **dict.fromkeys(("branched", "cross_stitch", "nddr", "progressive"), [NO_STAGES]),
    **{
        name: [NO_NECK, ONLY_SEGNET]
        for name in ("mtan_segnet", "mtlbl1_segnet", "mtlbl2_segnet", "split_segnet")
    },
    "unet": [(lambda case: case.maps and case.backbone in ("vit", "segnet"), "at least two strides")],
}


def exists(case: Case) -> bool:
    """Whether the choices mean anything: one task is no mixture."""
    return not (case.count == 1 and case.kind == "mixed")


def reason(case: Case) -> str | None:
    """Part of the reason for which the case is refused; ``None``: it is supported."""
    rules = REFUSED.get(case.architecture, ())
    return next((text for refuses, text in rules if refuses(case)), None)


def every_case(names: Iterable[str]) -> list[Case]:
    combinations = itertools.product(names, *FACTORS.values())
    return [case for case in itertools.starmap(Case, combinations) if exists(case)]


def pairwise_cover(cases: list[Case]) -> list[Case]:
    """Some of the cases in which each pair of choices is, of the pairs that are in any of them.

    Greedy: the case that has the most pairs not seen yet comes next. It is looked for among the cases
    of one architecture and backbone at a time, since each such pair needs a case of its own anyway.
    """
    pairs = {case: set(itertools.combinations(enumerate(case), 2)) for case in cases}
    unseen = set().union(*pairs.values())
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault(case[:2], []).append(case)
    chosen: list[Case] = []
    while unseen:
        for group in groups.values():
            best = max(group, key=lambda case: len(pairs[case] & unseen))
            if pairs[best] & unseen:
                chosen.append(best)
                unseen -= pairs[best]
    return chosen


def one_per_reason(cases: list[Case]) -> list[Case]:
    """For each architecture, reason and backbone one case that is refused, its other choices taking turns."""
    groups: dict[tuple[str, str | None, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.architecture, reason(case), case.backbone), []).append(case)
    return [group[7 * number % len(group)] for number, group in enumerate(groups.values())]


ALL = every_case(architectures())
SUPPORTED = [case for case in ALL if reason(case) is None]
COVER = pairwise_cover(SUPPORTED)


MULTIPLES: dict[str, int | None] = {}


def build(case: Case) -> nn.Module:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    known = inspect.signature(ARCHITECTURES.get(case.architecture)).parameters
    options = {"head": "hrnet" if case.backbone == "hrnet" else "fcn"} if "head" in known else {}
    backbone = BACKBONES[case.backbone]
    options |= {"neck": backbone.neck} if backbone.neck else {}
    options |= OPTIONS.get(case.architecture, {})
    probe = encoder._needed_multiple

    def probe_once(*arguments: Any) -> int | None:  # the same for all models of a backbone, and slow
        if case.backbone not in MULTIPLES:
            MULTIPLES[case.backbone] = probe(*arguments)
        return MULTIPLES[case.backbone]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "_needed_multiple", probe_once)
        return build_model(case.architecture, backbone.make(), **case.tasks, **options)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_shapes(model: nn.Module, output: Any, case: Case) -> None:
    """Predictions and intermediate ones have the shapes that the contract says."""
    dense, image, auxiliary = case.tasks.values()
    shapes = {task: (2, channels, *case.size) for task, channels in (dense | auxiliary).items()}
    shapes |= {task: (2, channels) for task, channels in image.items()}
    assert list(output.predictions) == model.tasks == [*dense, *image]
    for maps in (output.predictions, *output.intermediate):
        assert maps, "an entry of the intermediate predictions is empty"
        for task, value in maps.items():
            assert value.shape == shapes[task], task
            assert value.isfinite().all(), task
    assert all(output.of(task) for task in model.task_set.all)


def check_parameter_sets(model: nn.Module, gradients: dict[str, dict[str, torch.Tensor]]) -> None:
    """Every parameter is in exactly one set, the one that autograd puts it in."""
    names = {id(value): name for name, value in model.named_parameters()}
    sets = {task: [names[id(value)] for value in model.task_parameters(task)] for task in gradients}
    shared = [names[id(value)] for value in model.shared_parameters()]
    assert sorted(itertools.chain(shared, *sets.values())) == sorted(names.values())
    for task, found in sets.items():
        others = set().union(*(gradients[other] for other in gradients if other != task))
        assert set(found) == gradients[task].keys() - others, task
    last = {names[id(value)] for value in model.last_shared_parameters()}
    assert all(last <= reached.keys() for reached in gradients.values())
    assert last <= set(shared)


def check_unreached(model: nn.Module, case: Case) -> None:
    """Nothing is there for show but parts of backbones and necks: everything of the architecture has a loss.

    Image tasks read the coarsest features, so what is made for finer ones is theirs in vain.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    unreached = [names[id(value)] for value in model.unreached_parameters()]
    if case.kind == "dense":
        ours = [name for name in unreached if not name.startswith(("encoder.", "encoders.", "branches."))]
        assert not ours, ours


def forget(model: nn.Module) -> None:
    """Give other values to all that a state dict holds; quicker than building another model."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.5)


def check(case: Case, model: nn.Module, copies: bool = True) -> None:
    """Check all that every architecture promises.

    Args:
        case: what the model was built for; other sizes of images will do.
        model: changed by running statistics alone.
        copies: another model takes the weights: a copy, which must not share any.
    """
    model.train()
    images = torch.randn(2, 3, *case.size)
    output = model(images)
    check_shapes(model, output, case)

    names, values = zip(*model.named_parameters(), strict=True)
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    for task in model.task_set.all:
        loss = sum(value.square().mean() for value in output.of(task))
        found = torch.autograd.grad(loss, values, allow_unused=True, retain_graph=True)
        gradients[task] = {name: value for name, value in zip(names, found, strict=True) if value is not None}
        assert gradients[task], task
        assert all(value.isfinite().all() for value in gradients[task].values()), task
    check_parameter_sets(model, gradients)
    check_unreached(model, case)

    model.eval()
    expected = model(images, **model.as_in_training)
    other = copy.deepcopy(model) if copies else model
    state = model.state_dict() if copies else copy.deepcopy(model.state_dict())
    forget(other)
    if copies:
        torch.testing.assert_close(model(images, **model.as_in_training).predictions, expected.predictions)
    task = model.tasks[zlib.crc32(str(case).encode()) % len(model.tasks)]
    assert not torch.equal(other(images).predictions[task], expected.predictions[task])
    other.load_state_dict(state)
    alone = other(images, [task], **other.as_in_training)
    assert set(alone.predictions) == {task} and all(set(maps) == {task} for maps in alone.intermediate)
    for value, wanted in zip(alone.of(task), expected.of(task), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", COVER, ids=str)
def test_cover(case):
    check(case, build(case))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FACTORS["backbone"])
@pytest.mark.parametrize("name", architectures())
def test_whole(name, backbone):
    """Images of all sizes go through one model for each set of tasks."""
    groups: dict[tuple, list[Case]] = {}
    for case in SUPPORTED:
        if (case.architecture, case.backbone) == (name, backbone):
            groups.setdefault(case._replace(size=None), []).append(case)
    for group in groups.values():
        model = None
        for case in group:
            try:
                copies = model is None
                model = model or build(case)
                check(case, model, copies)
            except Exception as error:
                raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("case", one_per_reason([case for case in ALL if reason(case) is not None]), ids=str)
def test_refused(case):
    with pytest.raises(UserError, match=reason(case)) as error:
        build(case)(torch.zeros(2, 3, *case.size))
    assert "\n" not in str(error.value)


def test_cover_has_every_pair_and_few_cases():
    wanted = {pair for case in SUPPORTED for pair in itertools.combinations(enumerate(case), 2)}
    assert {pair for case in COVER for pair in itertools.combinations(enumerate(case), 2)} == wanted
    assert len(COVER) < 1.3 * len({case[:2] for case in SUPPORTED}) + 9


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("name", ["cross_stitch", "nddr", "progressive"])
def test_features_of_every_branch_are_exchanged(name, tasks):
    """A head that reads all branches trains whatever is done to them, and its gradient is not zero."""
    torch.manual_seed(0)
    outputs = dict(list({"semseg": 5, "depth": 1, "normals": 3}.items())[:tasks])
    model = build_model(name, tiny_hrnet(), outputs, head="hrnet").train()
    assert model.unreached_parameters() == []
    output = model(torch.randn(2, 3, 64, 64))
    sum(value.square().mean() for task in model.tasks for value in output.of(task)).backward()
    first = 2 if name == "progressive" else 1  # of a name's parts, the number of the stage
    moved: dict[str, bool] = {}
    for key, value in model.named_parameters():
        if key.startswith(("exchanges.", "adapters.")):
            one = ".".join(key.split(".")[: first + 2])
            moved[one] = moved.get(one, False) or bool(value.grad.any())
    assert all(moved.values())
    places = {tuple(one.split(".")[first:]) for one in moved}
    assert places == {(str(stage), str(branch)) for stage in range(4) for branch in range(stage + 1)}


@pytest.mark.parametrize("features, multiple", [((1,), 32), ((1, 2), 32), ((1, 2, 3, 4), 32)])
def test_images_are_padded_no_more_than_needed(features, multiple):
    """Also where the coarse features that make it necessary are not asked for."""
    assert encoder.Encoder(tiny_hrnet(features)).multiple == multiple


def test_every_rule_refuses_something_and_every_name_is_known():
    assert REFUSED.keys() | OPTIONS.keys() <= set(architectures())
    for name, rules in REFUSED.items():
        for refuses, text in rules:
            assert any(refuses(case) for case in ALL if case.architecture == name), (name, text)
