"""Head ``panoptic_fpn``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.panoptic_fpn import PanopticFpn
from mtl_heads.resources import parameters


def test_against_the_figure():
    """Strides 4 to 32: one, one, two and three convolutions, each but the first scale's before a resize."""
    torch.manual_seed(0)
    head = PanopticFpn(Pyramid((6, 6, 6, 6), (4, 8, 16, 32)), 3, channels=8).eval()
    features = [torch.randn(2, 6, 24 // 2**i, 16 // 2**i) for i in range(4)]
    assert [len(branch) for branch in head.branches] == [1, 1, 2, 3]
    total = 0
    for i, maps in enumerate(features):
        for convolution in head.branches[i]:
            maps = convolution(maps)
            if i:
                maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + maps
    torch.testing.assert_close(head(features), head.last_layer(total))


def test_parameters_of_the_branch_on_an_fpn():
    head = PanopticFpn(Pyramid((256,) * 4, (4, 8, 16, 32)), 21)
    norms = 7 * 2 * 128
    assert parameters(head) == 4 * 9 * 256 * 128 + 3 * 9 * 128 * 128 + norms + 128 * 21 + 21


def test_odd_sizes_and_equal_strides():
    head = PanopticFpn(Pyramid((4, 4, 4), (4, 8, 8)), 2, channels=4)
    features = [torch.randn(1, 4, 17, 12), torch.randn(1, 4, 9, 6), torch.randn(1, 4, 9, 6)]
    assert head(features).shape == (1, 2, 17, 12)


def test_wrong_options():
    with pytest.raises(UserError, match="at least two strides"):
        PanopticFpn(Pyramid((4,), (16,)), 2)
    with pytest.raises(UserError, match="0 channels"):
        PanopticFpn(Pyramid((4, 4), (4, 8)), 2, channels=0)
