"""What a transfer run leaves of its backbone."""

from __future__ import annotations

import timm
import torch

from pretrain import inspect_checkpoint, load_backbone
from pretrain.checkpoints import save_backbone
from transfer.backbone_export import whole_names


def test_a_pyramid_has_the_names_of_the_whole_network(tmp_path):
    """convnext's pyramid calls ``stages.0`` ``stages_0``; what is written loads as any backbone does."""
    torch.manual_seed(0)
    pyramid = timm.create_model("test_convnext", features_only=True).eval()
    state = whole_names(pyramid, "test_convnext", {})
    whole = timm.create_model("test_convnext", num_classes=0)
    assert set(state) <= set(whole.state_dict()) and len(state) == len(pyramid.state_dict())
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, state, "test_convnext", (0.5,) * 3, (0.5,) * 3, (3, 64, 64))
    again = load_backbone(path, features_only=True, min_matched=0.9).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(pyramid(images), again(images), strict=True):
            torch.testing.assert_close(one, other)
    assert inspect_checkpoint(path).architecture == "test_convnext"


def test_names_of_a_network_that_is_not_timms_stay():
    model = torch.nn.Linear(2, 2)
    assert list(whole_names(model, "a network of mine", {})) == ["weight", "bias"]
