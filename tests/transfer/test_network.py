"""Networks of a configuration are those of ``build_model`` with the same names and options."""

from __future__ import annotations

import pytest
import torch

from harness.config import load
from harness.errors import UserError
from mtl_heads import build_model
from pretrain.checkpoints import save_backbone
from transfer.config import TransferConfig
from transfer.network import build_network

TINY = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}


def both(architecture: str, backbone: str, options: dict, *arguments: str, **own):
    """The network of a configuration, and the one by name."""
    given = [f"--model.name={architecture}", f"--model.backbone={backbone}", f"--model.backbone_options={options}",
             "--model.head=fcn", "--tasks=[semseg, depth]", *arguments]
    config = load(TransferConfig, given)
    data = config.data.build()
    tasks = data.choose(list(config.tasks), config.task_options)
    outputs = {name: task.channels for name, task in tasks.items()}
    network = build_network(config, tasks).model
    return network, build_model(architecture, backbone, outputs, head="fcn", backbone_options=options, **own)


@pytest.mark.parametrize("architecture, backbone, options", [
    ("baseline", "resnet18", TINY),
    ("baseline", "resnet18", {**TINY, "out_indices": [0, 4]}),
    ("mtan", "resnet18", {**TINY, "out_indices": [0, 2, 3]}),
    ("baseline", "celeba_cnn9", {"width": 8, "dense": True, "out_indices": [0, 1, 2, 3]}),
])
def test_the_same_pyramid_and_weights(architecture, backbone, options):
    network, named = both(architecture, backbone, options)
    assert network.encoder.pyramid == named.encoder.pyramid
    network.load_state_dict(named.state_dict())
    if "out_indices" in options:
        assert len(network.encoder.pyramid.strides) == len(options["out_indices"])
        assert network.encoder.pyramid.strides[0] < 4


def test_chosen_stages_of_lasso_are_all_kept():
    options = {**TINY}
    network, named = both("lasso", "resnet18_cifar", options, "--model.stages=[1, 4]", stages=[1, 4])
    assert network.encoder.pyramid == named.encoder.pyramid
    assert network.encoder.pyramid.strides == (1, 8)
    network.load_state_dict(named.state_dict())


def test_pretrained_backbones_too(tmp_path):
    import timm

    path = tmp_path / "backbone.safetensors"
    whole = timm.create_model("resnet18", num_classes=0, **TINY)
    save_backbone(path, whole, "resnet18", (0.5,) * 3, (0.5,) * 3, (3, 32, 32), options=TINY)
    network, named = both("baseline", "resnet18", {**TINY, "out_indices": [0, 4]}, f"--model.weights={path}")
    assert network.encoder.pyramid == named.encoder.pyramid and named.encoder.pyramid.strides == (2, 32)
    assert torch.equal(network.backbone["conv1"].weight, whole.conv1.weight)


@pytest.mark.parametrize("architecture, backbone, arguments", [
    ("mtan", "convnext_atto", ["--model.output_stride=32"]),
    ("lasso", "convnext_atto", ["--model.stages=[1]"]),
    ("baseline", "convnext_atto", ["--model.neck=fpn", "--model.backbone_options.out_indices=[3]"]),
])
def test_messages_name_the_backbone(architecture, backbone, arguments):
    config = load(TransferConfig, [f"--model.name={architecture}", f"--model.backbone={backbone}",
                                   "--tasks=[depth]", *arguments])
    with pytest.raises(UserError, match=f"backbone '{backbone}'"):
        build_network(config, config.data.build().choose(["depth"], {}))
