"""Parts of a strategy that do not go together are found before the single-task networks are trained."""

from __future__ import annotations

import pytest

from harness.config import load
from harness.errors import UserError
from transfer.config import TransferConfig
from transfer.engine import check


def checked(programs, *options):
    check(load(TransferConfig, programs.options("transfer", "--tasks=[depth, normals]", *options)))


@pytest.mark.parametrize("options, message", [
    (["--balance.name=pcgrad", "--schedule.name=individual"], "'pcgrad' combines the gradients of all tasks in one"),
    (["--balance.name=stch", "--schedule.name=sampled"], "'stch' needs the losses of all tasks in one step"),
    (["--balance.name=mgda_ub", "--partition.name=task_routing"], "a partition gives each task a forward of its own"),
    (["--balance.name=geometric_mean", "--accumulation=2"], "needs the losses of the whole batch before any gradient"),
    (["--balance.name=pcgrad", "--balance.mode=lean", "--accumulation=2"], "set --accumulation 1"),
    (["--balance.name=equal", "--schedule.name=cooperative", "--schedule.inner_steps=1", "--schedule.kl_weight=0",
      "--schedule.warmup=0"], "choose --model.name cooperative"),
    (["--balance.name=equal", "--balance.importance={dept: 2}"], "balance.importance has a weight for 'dept'"),
])
def test_refused(programs, options, message):
    with pytest.raises(UserError) as caught:
        checked(programs, *options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [
    ["--balance.name=modo", "--accumulation=2"],
    ["--balance.name=graddrop", "--accumulation=2"],
    ["--balance.name=uncertainty", "--accumulation=2"],
    ["--balance.name=uncertainty", "--schedule.name=individual_optimizers", "--schedule.track_distance=true"],
    ["--balance.name=cagrad", "--partition.name=maximum_roaming", "--schedule.groups=1"],
])
def test_not_refused(programs, options):
    checked(programs, *options)
