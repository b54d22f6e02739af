"""What the tables of benchmarks.ablation compare is alike but for what they are about."""

from __future__ import annotations

from benchmarks.ablation import TASKS, WHOLE, Plan
from harness.config import as_dict, load
from transfer.config import TransferConfig


def test_single_task_networks_are_the_multi_task_one_with_one_task(tmp_path):
    cells = {cell.name: cell.command for cell in Plan(tmp_path, 0, 8, ("--epochs=60",)).cells()}
    settings = {}
    for kind in (f"transfer-{WHOLE}-0", f"single-{WHOLE}-{TASKS[0]}-0"):
        settings[kind] = as_dict(load(TransferConfig, cells[kind][2:]))
        del settings[kind]["output"]
    several, one = settings.values()
    assert (several.pop("tasks"), one.pop("tasks")) == (list(TASKS), [TASKS[0]])
    assert (several["model"].pop("name"), one["model"].pop("name")) == ("baseline", "single_task")
    assert several == one and one["epochs"] == 60


def test_the_supervised_backbone_has_the_epochs_of_the_others(tmp_path):
    cells = {cell.name: cell.command for cell in Plan(tmp_path, 0, 8, ("--epochs=60",)).cells()}
    assert load(TransferConfig, cells["pretrain-supervised-0"][2:]).epochs == 8
