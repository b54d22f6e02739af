"""Files of the original code base."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from mtl_heads import build_model, load_vandenhende


def original(model, head: str, decoders: dict[str, str]) -> dict[str, torch.Tensor]:
    """A state dict with the original names, made of a model of ours with random weights."""
    inner = "layers." if head == "deeplab" else ""
    renamed = {}
    for key, value in model.state_dict().items():
        name = key.replace("encoder.backbone.", "backbone.", 1)
        for task, theirs in decoders.items():
            name = name.replace(f"heads.{task}.{inner}", theirs, 1)
        renamed[f"module.{name}"] = value.clone()
    return renamed


@pytest.mark.parametrize("head", ["deeplab", "hrnet"])
@pytest.mark.parametrize("name", ["baseline", "single_task"])
def test_names_map_onto_ours(head, name):
    tasks = {"semseg": 5, "depth": 1} if name == "baseline" else {"depth": 1}
    decoders = {t: f"decoders.{t}." for t in tasks} if name == "baseline" else {"depth": "decoder."}
    options = {"head": head, "output_stride": 8} if head == "deeplab" else {"head": head}
    backbone = "resnet18" if head == "deeplab" else "hrnet_w18_small_v2"
    source, target = (build_model(name, backbone, tasks, **options).eval() for _ in range(2))
    state = original(source, head, decoders)
    some = "module.backbone.layer1.0.conv1.weight"
    assert some in state
    last = "4" if head == "deeplab" else "last_layer.3"
    assert f"module.{decoders['depth']}{last}.weight" in state
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    load_vandenhende(target, {key: value for key, value in state.items() if key not in counters})
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(target(images).predictions["depth"], source(images).predictions["depth"])


def test_what_does_not_fit_is_refused_and_leaves_the_model_alone():
    model = build_model("single_task", "resnet10t", {"depth": 1})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = original(model, "deeplab", {"depth": "decoder."})
    zeros = {key: torch.zeros_like(value) for key, value in state.items()}
    wrong = {
        "1 missing": {key: value for key, value in zeros.items() if key != "module.decoder.4.bias"},
        "1 unexpected": {**zeros, "module.extra": torch.zeros(1)},
        "has shape": {**zeros, "module.decoder.4.bias": torch.zeros(3)},
    }
    for message, candidate in wrong.items():
        with pytest.raises(UserError, match=message):
            load_vandenhende(model, candidate)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_heads_that_the_original_lacks():
    with pytest.raises(UserError, match="not in the original code base"):
        load_vandenhende(build_model("single_task", "resnet10t", {"depth": 1}, head="psp"), {})
