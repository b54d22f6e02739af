"""An encoder cut into stages computes what the whole does."""

from __future__ import annotations

import copy

import pytest
import timm
import torch

from harness.errors import UserError
from mtl_heads.encoder import Encoder
from mtl_heads.stages import stages_of

TINY = {
    "resnet18": {"channels": [8, 16, 16, 32], "layers": [1, 1, 1, 1]},
    "hrnet_w18_small": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "mobilenetv3_small_050": {},
    "mobilenetv2_035": {},
    "swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "vit_tiny_patch16_224": {"embed_dim": 24, "depth": 4, "num_heads": 2},
    "vit_small_patch14_reg4_dinov2": {"embed_dim": 24, "depth": 3, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {"embed_dim": 24, "depth": 3, "num_heads": 2},
    "densenet121": {"growth_rate": 4, "block_config": (1, 1, 1, 1)},
    "dpn48b": {},
}


def make(name: str, **options) -> Encoder:
    torch.manual_seed(0)
    return Encoder(name, backbone_options=TINY.get(name, {}), **options).eval()


@pytest.mark.parametrize("name", TINY)
def test_same_as_the_whole(name):
    """Also for images that have to be padded; and the stages' parameters are the backbone's."""
    encoder = make(name)
    stages = stages_of(encoder)
    images = torch.rand(2, 3, 65, 47)
    with torch.no_grad():
        whole, states = encoder(images), stages(images)
        parts = stages.pyramid(states, (65, 47))
    assert [[maps.shape[1] for maps in state] for state in states] == stages.channels
    assert len(whole) == len(parts)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
    found = [id(value) for i in range(stages.count) for value in stages.parameters(i)]
    assert sorted(found) == sorted(id(value) for value in encoder.backbone.parameters())


@pytest.mark.parametrize("name, options, count", [
    ("resnet18_cifar", {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}, 4),
    ("lenet", {}, 3),
    ("celeba_cnn9", {"width": 8}, 6),
    ("vgg16_thin32", {}, 7),
    ("resnet18", TINY["resnet18"], 4),
    pytest.param("regnetx_002", {}, 4, marks=pytest.mark.slow),
    ("densenet121", TINY["densenet121"], 4),
    pytest.param("dpn48b", {}, 4, marks=pytest.mark.slow),
    ("mobilenetv3_small_050", {}, 4),
    ("test_efficientnet", {}, 5),
    pytest.param("tiny_vit_5m_224", {}, 4, marks=pytest.mark.slow),
])
def test_a_stage_for_each_feature_but_the_stems(name, options, count):
    """Also for those that are too fine for the pyramid, which has only what it had."""
    encoder = Encoder(name, backbone_options=options).eval()
    stages = stages_of(encoder)
    assert stages.count == count
    assert all(stages.parameters(i) for i in range(count))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole, parts = encoder(images), stages.pyramid(stages(images), (64, 64))
    assert len(whole) == len(parts) == len(encoder.pyramid.strides)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_a_feature_of_the_stem_that_is_asked_for_ends_a_stage():
    asked = {**TINY["resnet18"], "out_indices": (0, 2, 4)}
    encoder = Encoder("resnet18", backbone_options=asked).eval()
    stages = stages_of(encoder)
    assert stages.channels == [[64], [16], [32]] and encoder.pyramid.strides == (2, 8, 32)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        parts = stages.pyramid(stages(images), (64, 64))
        assert all(torch.equal(a, b) for a, b in zip(encoder(images), parts, strict=True))


def test_branches_of_hrnet():
    stages = stages_of(make("hrnet_w18_small"))
    assert [len(channels) for channels in stages.channels] == [1, 2, 3, 4]
    assert stages.channels[-1] == list(stages.encoder.backbone_pyramid.channels)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "vit_tiny_patch16_224", "resnet18"])
def test_a_state_stays_as_it_is(name):
    """A stage can run again on the same state, as in a tree."""
    stages = stages_of(make(name))
    with torch.no_grad():
        states = stages(torch.rand(1, 3, 64, 64))
        before = copy.deepcopy(states)
        for i in range(1, stages.count):
            again = stages.run(i, states[i - 1])
            assert all(torch.equal(a, b) for a, b in zip(again, states[i], strict=True))
    for old, new in zip(before, states, strict=True):
        assert len(old) == len(new) and all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("name", [
    pytest.param("hrnet_w18_small", marks=pytest.mark.slow), "vit_tiny_patch16_224", "resnet18",
    pytest.param("mobilenetv3_small_050", marks=pytest.mark.slow),
])
def test_stages_of_two_encoders(name):
    """Another encoder's stage can go on, and what is not kept has no weights left."""
    whole, upper = make(name), make(name)
    first, second = stages_of(whole), stages_of(upper)
    split = first.count - 1
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole(images)
        first.keep(range(split))
        second.keep([split])
        states = []
        state = first.start(images)
        for i in range(split + 1):
            state = (first if i < split else second).run(i, state)
            states.append(state)
        got = second.pyramid(states, (64, 64))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    kept = [*whole.backbone.parameters(), *upper.backbone.parameters()]
    assert sum(value.numel() for value in kept) == sum(value.numel() for value in make(name).backbone.parameters())


def test_with_a_neck_dilation_and_other_features():
    for options in ({"neck": "fpn"}, {"output_stride": 8}):
        encoder = make("resnet18", **options)
        stages = stages_of(encoder)
        images = torch.rand(1, 3, 33, 64)
        with torch.no_grad():
            for a, b in zip(encoder(images), stages.pyramid(stages(images), (33, 64)), strict=True):
                assert torch.equal(a, b)
    fewer = Encoder("resnet18", backbone_options={**TINY["resnet18"], "out_indices": (2, 4)})
    assert stages_of(fewer).channels == [[16], [32]]


def test_copies_have_their_own_modules():
    """A copy of a network with stages runs the copy's weights."""
    encoder = make("resnet18")
    encoder.stages = stages_of(encoder)
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    states = other.stages(torch.rand(1, 3, 32, 32))
    assert not states[-1][0].any() and encoder.stages.modules[0][0] is encoder.backbone["conv1"]


@pytest.mark.parametrize("name, options, reason", [
    ("levit_128s", {}, "how a LevitDistilled passes features"),
    ("xception41", {}, "how a FeatureHookNet passes"),
    ("mobilenetv3_small_050", {"feature_location": "expansion", "out_indices": (1, 2, 3, 4)},
     "leave feature_location out"),
    ("hrnet_w18_small", {"out_indices": (0, 1, 2, 3, 4)}, "stem: leave 0 out of out_indices"),
])
def test_refused(name, options, reason):
    encoder = Encoder(name, backbone_options=options)
    with pytest.raises(UserError, match=reason):
        stages_of(encoder)


def test_a_module_of_unknown_structure():
    class Strange(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model("resnet18", features_only=True, **TINY["resnet18"])

        def forward(self, images):
            return self.net(images)

    with pytest.raises(UserError, match="the given Strange cannot be cut"):
        stages_of(Encoder(Strange()))
