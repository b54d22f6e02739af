"""Runs without values: the shapes, the graph and the errors of real ones."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mtl_heads import build_model
from mtl_heads.dry_run import dry_run
from mtl_heads.reach import reach
from mtl_heads.shapes import _RESULTS, ShapesOnly


def norm(x, n):
    return F.batch_norm(x, torch.zeros(n), torch.ones(n), torch.ones(n, requires_grad=True), torch.zeros(n))


#: Calls on maps [2, 6, 5, 7].
CALLS = {
    "batch norm": lambda x: norm(x, 6),
    "batch norm of images": lambda x: F.batch_norm(x[:, :, 0, 0], torch.zeros(6), torch.ones(6)),
    "batch norm of a batch": lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), training=True),
    "batch norm of other channels": lambda x: norm(x, 5),
    "layer norm": lambda x: F.layer_norm(x, (7,), torch.ones(7), torch.zeros(7)),
    "layer norm of two axes": lambda x: F.layer_norm(x, [5, 7]),
    "layer norm of another axis": lambda x: F.layer_norm(x, (6,)),
    "group norm": lambda x: F.group_norm(x, 3, torch.ones(6)),
    "group norm that does not divide": lambda x: F.group_norm(x, 4),
    "to a size": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=False),
    "to a square": lambda x: F.interpolate(x, 8),
    "by a factor": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "by a broken factor": lambda x: F.interpolate(x, scale_factor=0.7, mode="bilinear", align_corners=True),
    "by two factors": lambda x: F.interpolate(x, scale_factor=(1.5, 0.5), mode="bicubic"),
    "by a factor that is rounded": lambda x: F.interpolate(x, scale_factor=1.3, recompute_scale_factor=True),
    "by nothing": lambda x: F.interpolate(x),
    "by both": lambda x: F.interpolate(x, (3, 3), 2.0),
    "to nothing": lambda x: F.interpolate(x, (0, 3)),
    "to one side": lambda x: F.interpolate(x, (3,)),
    "ReLU": F.relu,
    "ReLU in place": lambda x: F.relu(x * 2, inplace=True),
    "ReLU of swapped axes": lambda x: F.relu(x.flatten(2).transpose(1, 2)),
    "ReLU 6": F.relu6,
    "GELU": lambda x: F.gelu(x, approximate="tanh"),
    "hard swish": F.hardswish,
    "hard sigmoid": F.hardsigmoid,
    "of one axis": lambda x: F.interpolate(x[:, :, 0], 4, mode="linear"),
}


class Call(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call, self.scale = call, nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.call(images * self.scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("call", CALLS)
def test_norms_and_resizes(call, dtype):
    """Same shape, type and layout; and what is wrong is refused alike."""
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.rand(2, 6, 5, 7, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
        expected = failed = None
        try:
            expected = CALLS[call](images)
        except (RuntimeError, ValueError) as error:
            failed = type(error)
        with torch.device("meta"), ShapesOnly(), pytest.raises(failed) if failed else contextlib.nullcontext():
            found = CALLS[call](images.detach().to("meta").requires_grad_())
        if expected is not None:
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype) and found.is_meta
            assert found.stride() == expected.stride()
            assert found.requires_grad


def test_real_tensors_are_computed():
    values = torch.rand(1, 4, 3, 3)
    with ShapesOnly():
        found = F.interpolate(norm(values, 4), (5, 5))
    assert torch.equal(found, F.interpolate(norm(values, 4), (5, 5)))
    assert all(getattr(F, function.__name__) is function for function in _RESULTS)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_the_graph_is_made_where_gradients_are(gradients, inference):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        output, _ = dry_run(model, (1, 3, 8, 8))
        assert torch.is_grad_enabled() == gradients
    assert output.requires_grad == gradients and output.is_meta


def test_every_weight_is_reached_through_norms_and_resizes():
    tiny = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}
    model = build_model("baseline", "resnet18", {"a": 2, "b": 1}, head="hrnet", backbone_options=tiny).eval()
    found = reach(model, (1, 3, 40, 40)).tasks
    predictions = model(torch.rand(1, 3, 40, 40)).predictions
    names, values = zip(*model.named_parameters(), strict=True)
    for task, value in predictions.items():
        gradients = torch.autograd.grad(value.sum(), values, allow_unused=True, retain_graph=True)
        reached = {name for name, one in zip(names, gradients, strict=True) if one is not None}
        assert reached == {name for name, owners in found.items() if task in owners}


def test_nothing_runs_really_where_that_is_refused():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale, self.ran = nn.Conv2d(3, 4, 1), torch.ones(4, 1, 1), []

        def forward(self, images):
            self.ran.append(images.device.type)
            return self.conv(images) * self.scale

    model = Plain()
    with pytest.raises(RuntimeError):
        dry_run(model, (1, 3, 8, 8), really=False)
    assert model.ran == ["meta"]
    assert dry_run(model, (1, 3, 8, 8))[0].device.type == "cpu" and model.ran == ["meta", "meta", "cpu"]
