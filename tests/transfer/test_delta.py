"""Δ_MTL against equation 2.2 and published rows."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from harness.errors import UserError
from transfer import delta_mtl

UP_DOWN = {"semseg": True, "depth": False}


def test_published_rows():
    # Vandenhende 2022, NYUD with HRNet-18: MTI-Net without and with auxiliary tasks
    single = {"semseg": 33.18, "depth": 0.667}
    assert delta_mtl({"semseg": 35.12, "depth": 0.620}, single, UP_DOWN) == pytest.approx(6.40, abs=0.06)
    assert delta_mtl({"semseg": 37.49, "depth": 0.607}, single, UP_DOWN) == pytest.approx(10.91, abs=0.1)


def test_directions_and_average():
    assert delta_mtl({"a": 11, "b": 11}, {"a": 10, "b": 10}, {"a": True, "b": False}) == pytest.approx(0)
    assert delta_mtl({"a": 12.0}, {"a": 10.0, "b": 1.0}, {"a": True}) == pytest.approx(20)
    assert delta_mtl({"a": 8.0}, {"a": 10.0}, {"a": False}) == pytest.approx(20)


def test_undefined():
    assert math.isnan(delta_mtl({"a": 1.0}, {"a": 0.0}, {"a": True}))
    assert math.isnan(delta_mtl({"a": math.nan}, {"a": 1.0}, {"a": True}))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="at least one task"):
        delta_mtl({}, {}, {})
    with pytest.raises(UserError, match="baseline lacks depth"):
        delta_mtl({"semseg": 1, "depth": 1}, {"semseg": 1}, UP_DOWN)
    with pytest.raises(UserError, match="higher_is_better lacks depth"):
        delta_mtl({"depth": 1}, {"depth": 1}, {})


def test_a_single_task_network_measured_by_another_metric_is_told():
    from transfer.results import compare_with

    results = {"metrics": {"edge": {"odsF": 60.0}}, "primary": {"edge": "odsF"}, "higher_is_better": {"edge": True}}
    assert compare_with(results, {"edge": {"metrics": {"edge": {"odsF": 50.0}}}})["delta_mtl"] == pytest.approx(20)
    with pytest.raises(UserError, match="edge in outputs/x was not measured by odsF.*remove that folder"):
        compare_with(results, {"edge": {"metrics": {"edge": {"odsF_quick": 50.0}}, "folder": "outputs/x"}})


def test_importing_it_does_not_import_torch():
    code = "import sys; from transfer import delta_mtl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
