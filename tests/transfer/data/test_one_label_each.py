"""Many samples with one label each, in turns: what the data set ``subset`` makes of another one."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UserError
from transfer.data.subset import Subset

SCENES = {"train_count": 7, "val_count": 2, "test_count": 2, "size": 32}
TURNS = ["semseg", "depth", "scene"]


def test_each_sample_keeps_the_label_of_its_turn():
    data, whole = Subset(share=1.0, turns=TURNS, options=SCENES), Subset(share=1.0, options=SCENES)
    tasks = ["depth", "semseg", "scene"]  # another order than that of the turns
    data.choose(tasks)
    whole.choose(tasks)
    split, all_labels = data.split("train"), whole.split("train")
    assert len(split) == 7
    assert split.sizes == {"semseg": 3, "depth": 2, "scene": 2}
    for index, sample in enumerate(split):
        expected = all_labels[index]
        assert list(sample["targets"]) == [TURNS[index % 3]]
        assert sample["id"] == expected["id"]
        assert np.array_equal(sample["image"], expected["image"])
        assert np.array_equal(*(one["targets"][TURNS[index % 3]] for one in (sample, expected)))
    assert len(all_labels[0]["targets"]) == 3
    assert split.batch([0, 1]) is None


def test_what_is_measured_on_keeps_all_labels():
    data = Subset(share=1.0, turns=TURNS, options=SCENES)
    data.choose(TURNS)
    assert all(set(sample["targets"]) == set(TURNS) for sample in data.split("test"))


def test_a_task_alone_has_its_own_samples():
    """Whatever else is trained, a sample's turn is the same: single-task networks see the same labels."""
    data = Subset(share=1.0, turns=TURNS, options=SCENES)
    data.choose(TURNS)
    ids = [sample["id"] for sample in data.split("train")]
    for number, task in enumerate(TURNS):
        data.choose([task])
        assert [sample["id"] for sample in data.split("train")] == ids[number::3]


def test_turns_are_part_of_what_the_samples_are():
    prints = {Subset(turns=turns, options=SCENES).fingerprint() for turns in (None, TURNS, TURNS[:2], TURNS[::-1])}
    assert len(prints) == 4


@pytest.mark.parametrize(("options", "tasks", "message"), [
    ({"turns": ["semsg"]}, None, "turns: scenes has no task 'semsg' .*semseg"),
    ({"turns": ["depth", "depth"]}, None, "turns depth, depth: one is named twice"),
    ({"turns": TURNS}, ["semseg", "edge"], "task 'edge' has no turn.*add it to data.turns"),
    ({"turns": TURNS, "share": 0.2}, TURNS, "1 training samples cannot take turns among 3 tasks: raise data.share"),
])
def test_what_makes_no_sense_is_refused(options, tasks, message):
    with pytest.raises(UserError, match=message):
        data = Subset(options=SCENES, **options)
        data.choose(tasks)
        data.split("train")
