"""Parameters and multiply-adds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from mtl_heads import ARCHITECTURES, architectures, build_model
from mtl_heads.dry_run import dry_run
from mtl_heads.resources import (
    Resources,
    multiply_adds,
    parameters,
    resources,
    single_task_resources,
)
from mtl_heads.segnet_based import SegNetBased
from mtl_heads.tasks import Tasks


def test_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1))
    assert parameters(model) == 3 * 8 * 9 + 8 + 8 * 2 + 2
    assert multiply_adds(model, (5, 7)) == 5 * 7 * (3 * 8 * 9 + 8 * 2)


@pytest.mark.parametrize("backbone", ["resnet10t", "hrnet_w18_small_v2", "vit_tiny_patch16_224"])
def test_equals_half_of_the_counter_of_a_real_run(backbone):
    model = build_model("baseline", backbone, {"semseg": 5, "depth": 1}, head="fcn").eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 45, 70))
    assert multiply_adds(model, (45, 70)) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", architectures())
def test_of_every_architecture_equals_the_counter_of_a_real_run(name):
    """As at the end of a run, with parameters that require gradients; the real one's are frozen."""
    if issubclass(ARCHITECTURES.get(name), SegNetBased):
        backbone, narrow = "segnet", {"channels": (4, 8), "depths": (1, 1)}
    else:
        backbone, narrow = "resnet10t", {"channels": (8, 16, 24, 32)}
    dense = {"semseg": 5, "depth": 1}
    tasks = ({"semseg": 5},) if name in ("single_task", "stan_segnet") else (dense, {"scene": 3})
    model = build_model(name, backbone, *tasks, backbone_options=narrow)
    counted = multiply_adds(model, 64)
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 64))
    assert counted == counter.get_total_flops() // 2 > 0


def test_state_and_modes_stay():
    model = build_model("baseline", "resnet10t", {"semseg": 5}, head="fcn").train()
    model.backbone.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    random = torch.get_rng_state()
    multiply_adds(model, 64)
    model.shared_parameters()
    assert modes == [part.training for part in model.modules()]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_a_module_with_a_plain_tensor_runs_really():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.scale = torch.full((4, 1, 1), 2.0)

        def forward(self, images):
            return self.conv(images) * self.scale

    model = Scaled()
    assert multiply_adds(model, 8) == 8 * 8 * 3 * 4
    output, state = dry_run(model, (1, 3, 8, 8))
    assert output.device.type == "cpu"
    assert torch.autograd.grad(output.sum(), state["conv.weight"])[0].shape == (4, 3, 1, 1)


def test_size_must_be_positive():
    with pytest.raises(UserError, match="not positive"):
        multiply_adds(nn.Conv2d(3, 4, 1), 0)


def test_sum_of_single_task_networks():
    def make(tasks: Tasks) -> nn.Module:
        made.append(tasks.all)
        return build_model("single_task", "resnet10t", tasks.dense, tasks.image, head="fcn", backbone_options=narrow)

    made: list[list[str]] = []
    narrow = {"channels": (8, 16, 24, 32)}
    dense, image = {"semseg": 5, "depth": 1, "edge": 1}, {"scene": 5}
    total = single_task_resources(make, Tasks(dense, image, {"normals": 3}), (40, 56))
    assert made == [["semseg"], ["depth"], ["scene"]]  # edge is as depth; normals only help
    common = {"head": "fcn", "backbone_options": narrow}
    networks = [build_model("single_task", "resnet10t", {task: n}, **common) for task, n in dense.items()]
    networks.append(build_model("single_task", "resnet10t", {}, image, **common))
    assert total == Resources(
        sum(map(parameters, networks)), sum(multiply_adds(one, (40, 56)) for one in networks)
    )


def test_change_in_percent():
    assert Resources(50, 300).change(Resources(100, 200)) == (-50.0, 50.0)


def cells_of(lines: list[str]) -> dict[str, list[str]]:
    """Figures of a Markdown table by the first cell of their row."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: figures for name, *figures in rows}


@pytest.mark.slow
@pytest.mark.parametrize(("table", "close"), [
    ("NYUD", ["baseline", "pad_net, `distill=published`", "mti_net, `propagation_reduction=1`"]),
    ("PASCAL", ["baseline", "astmt, `reduction=8`"]),
])
def test_the_tables_of_the_documentation_are_what_is_printed(table, close):
    """Table 5.6 (Vandenhende, 2022); and the rows that are said to be the thesis's are so within five points."""
    from benchmarks import resources as benchmark

    text = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text().splitlines()
    setting = getattr(benchmark, table)
    printed = benchmark.lines(setting)
    start = text.index(printed[0])
    documented = text[start : text.index("", start)]
    assert not [line for line in documented if line not in printed]
    ours = cells_of(printed)
    left_out = [name for name in ours if name not in cells_of(documented)]
    assert all(", with auxiliary " in name for name in left_out)
    for name in close:
        values = [int(cell.removesuffix(" %").replace("−", "-")) for cell in ours[name]]
        assert values[::2] == [pytest.approx(value, abs=5) for value in values[1::2]], name


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "options", "two", "four"), [
    ("resnet18", {"head": "fcn"}, 27, 53),
    ("resnet50", {"head": "deeplab", "output_stride": 8}, 48, 61),
    ("resnet50", {"head": "fcn"}, 164, 277),
])
def test_costs_of_mtan_in_the_documentation(backbone, options, two, four):
    text = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    assert f"{two} % ({four} %)" in text
    tasks = {"semseg": 21, "depth": 1, "normals": 3, "edge": 1}
    for count, expected in ((2, two), (4, four)):
        some = dict(list(tasks.items())[:count])
        mtan, baseline = (resources(build_model(name, backbone, some, **options), 256) for name in ("mtan", "baseline"))
        assert mtan.change(baseline)[1] == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize(
    "name, options, parameters_change, multiply_adds_change",
    [
        ("baseline", {"head": "hrnet"}, -50, -45),
        pytest.param("pad_net", {"distill": "published"}, -15, 204, marks=pytest.mark.slow),
    ],
)
def test_relative_to_table_5_6a(name, options, parameters_change, multiply_adds_change):
    """HRNet-18 on two NYUD tasks (Vandenhende, 2022); within five points."""
    backbone, size, dense = "hrnet_w18_small_v2", (480, 640), {"semseg": 40, "depth": 1}
    singles = single_task_resources(
        lambda one: build_model("single_task", backbone, one.dense, head="hrnet"), Tasks(dense, {}, {}), size
    )
    assert singles.parameters == pytest.approx(8.0e6, rel=0.03)
    assert singles.multiply_adds == pytest.approx(22.0e9, rel=0.03)
    change = resources(build_model(name, backbone, dense, **options), size).change(singles)
    assert change == (pytest.approx(parameters_change, abs=5), pytest.approx(multiply_adds_change, abs=5))
