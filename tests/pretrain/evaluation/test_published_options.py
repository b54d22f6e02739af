"""What the protocols are when nobody says anything: as they were published."""

from __future__ import annotations

import pytest

from harness.config import option_defaults
from pretrain.evaluation.base import PROTOCOLS
from pretrain.evaluation.region_and_boundary import TOLERANCE

PUBLISHED = {
    "knn": {"k": (20, 200), "temperature": 0.07},
    "voc_svm": {"cost": 0.5, "positive_weight": 2, "negative_weight": 1, "difficult": "negative"},
    "segment_retrieval": {"clusters": 15, "layer": "-1"},
    "video_propagation": {"top": 10, "context": 20, "radius": 12, "temperature": 0.05, "layer": "-2", "size": None},
    "cam": {"top": 0.2},
    "view_iou": {"global_scale": (0.2, 1.0), "max_iou": None},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_options_of_a_protocol(name):
    assert {key: option_defaults(PROTOCOLS.get(name))[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_the_tolerance_of_a_boundary():
    assert TOLERANCE == 0.008
