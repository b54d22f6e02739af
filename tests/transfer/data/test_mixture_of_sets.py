"""Data sets with different tasks, trained on together."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from harness.errors import UserError
from scenes.export import export
from transfer.data import DATASETS
from transfer.data.loading import collate

SCENES = {"name": "scenes", "train_count": 6, "val_count": 2, "test_count": 2, "size": 48}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(export("nyud", tmp_path_factory.mktemp("mixture") / "nyud", {"train": 4, "val": 3}, (48, 48)))


@pytest.fixture
def mixture(root):
    """A function that mixes NYUD and scenes."""

    def make(weight: float = 1, other: float = 1, kind: str = "times", renamed: bool = True):
        tasks = {"tasks": {"semseg": "indoor"}} if renamed else {}
        return DATASETS.get("mixture")(sets=[{"name": "nyud", "root": root, "weight": weight, **tasks},
                                             {**SCENES, "weight": other}], weights=kind)

    return make


def test_samples_have_the_labels_of_their_own_set(mixture):
    data = mixture()
    tasks = data.choose(["indoor", "semseg", "depth", "scene"], {"depth": {}})
    assert tasks["indoor"].channels == 40 and tasks["semseg"].channels == 15
    split = pickle.loads(pickle.dumps(data.split("train")))
    found = [set(sample["targets"]) for sample in split]
    assert found == [{"indoor", "depth"}] * 4 + [{"semseg", "depth", "scene"}] * 6
    assert split.sizes["depth"] == 10 and split.sizes["indoor"] == 4
    assert len({sample["id"] for sample in split}) == 10
    batch = collate([split[i] for i in (0, 5)], tasks)
    assert (batch["targets"]["semseg"][0] == 255).all() and (batch["targets"]["indoor"][1] == 255).all()
    alone = DATASETS.get("nyud")(root=data.sets[0].root)
    np.testing.assert_array_equal(split[2]["targets"]["indoor"], alone.split("train")[2]["targets"]["semseg"])


def test_other_splits_have_all_samples(mixture):
    data = mixture()
    assert data.splits == ("train", "val", "test")
    data.choose(["indoor", "depth"])
    assert len(data.split("val")) == 2 and len(data.split("test")) == 3 + 2
    data.choose(["indoor"])
    assert len(data.split("test")) == 3
    with pytest.raises(UserError, match="no data set has both split 'val'"):
        data.split("val")


@pytest.mark.parametrize(("weight", "other", "kind", "counts"), [
    (1, 1, "times", (4, 6)), (0.5, 2, "times", (2, 12)), (3, 1, "shares", (8, 2)), (1, 1, "shares", (5, 5)),
])
def test_sampling_ratios(mixture, weight, other, kind, counts):
    data = mixture(weight, other, kind)
    data.choose(["depth"])
    split = data.split("train")
    assert split.samples_per_epoch == sum(counts)
    drawn = np.zeros(10, int)
    for epoch in range(12):
        order = split.order(7, epoch)
        np.testing.assert_array_equal(order, split.order(7, epoch))
        assert ((order < 4).sum(), (order >= 4).sum()) == counts
        np.add.at(drawn, order, 1)
    # every sample of a set as often as any other, up to the pass that is not finished
    assert np.ptp(drawn[:4]) <= 1 and np.ptp(drawn[4:]) <= 1 and drawn.sum() == 12 * sum(counts)
    assert not np.array_equal(split.order(7, 0), split.order(8, 0))


def test_an_epoch_takes_up_where_the_last_one_ended(mixture):
    data = mixture(0.5, 0.5)
    data.choose(["depth"])
    split = data.split("train")
    two = np.concatenate([split.order(0, epoch) for epoch in (0, 1)])
    assert sorted(two[two < 4]) == [0, 1, 2, 3] and sorted(two[two >= 4]) == list(range(4, 10))


def test_fingerprint(mixture):
    prints = [mixture().fingerprint(), mixture(2).fingerprint(), mixture(kind="shares").fingerprint()]
    assert len(set(prints)) == 3 and prints[0] == mixture().fingerprint()


@pytest.mark.parametrize(("sets", "message"), [
    (None, "data.sets is not set"),
    ([{"name": "nothing"}], "data set 1 .nothing.*unknown data set"),
    ([{"root": "x"}], "data set 1: .*is not a data set"),
    ([{**SCENES, "weight": 0}], "weight must be a number above 0"),
    ([{**SCENES, "siz": 3}], "did you mean 'size'"),
    ([{**SCENES, "tasks": {"deph": "x"}}], "did you mean 'depth'"),
    ([{**SCENES, "tasks": {"depth": "semseg"}}], "the same name"),
    ([{**SCENES, "tasks": "depth"}], "write new names"),
    ([{"name": "nyud", "root": 5}], "data set 1 .nyud.*cannot take the options root: 5"),
    (SCENES, "give a list"),
])
def test_mistakes_are_named(sets, message):
    with pytest.raises(UserError, match=message):
        DATASETS.get("mixture")(sets=sets)


def test_the_same_task_needs_the_same_classes(mixture):
    with pytest.raises(UserError, match="task 'semseg' of data set 2 has other classes"):
        mixture(renamed=False)


def test_a_run_on_two_data_sets(programs, root):
    sets = [{"name": "nyud", "root": root, "weight": 2, "tasks": {"semseg": "indoor"}}, SCENES]
    done = programs.main("transfer", "--data.name=mixture", f"--data.sets={json.dumps(sets)}",
                         "--tasks=[indoor, semseg, depth]", "--name=run")
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "outputs" / "run" / "results.json").read_text())
    assert set(results["metrics"]) >= {"indoor", "semseg", "depth"}
    log = (programs.folder / "outputs" / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    steps = max(line["step"] for line in lines if "step" in line)
    assert steps == 2 * ((2 * 4 + 6) // 4 + 1)  # two epochs of 14 samples in batches of 4, the last one of 2


def test_a_data_set_with_tasks_of_its_own(root, tmp_path):
    """A manifest's ``tasks`` say what its columns are, those of an entry what tasks are called."""
    place = export("manifest", tmp_path / "table", {"train": 3, "val": 1, "test": 1}, (48, 48))
    columns = json.loads((place / "tasks.json").read_text())
    table = {"file": str(place / "samples.csv"), "tasks": columns}
    mixed = DATASETS.get("mixture")
    data = mixed(sets=[{"name": "nyud", "options": {"root": root}},
                       {"name": "manifest", "options": table, "tasks": {"semseg": "mine"}}])
    assert data.labels["mine"].classes == tuple(columns["semseg"]["classes"])
    data.choose(["mine", "semseg"])
    assert [set(sample["targets"]) for sample in data.split("train")][:5] == [{"semseg"}] * 4 + [set()]
    flat = mixed(sets=[{"name": "nyud", "root": root}, {"name": "manifest", "options": table,
                                                        "tasks": {"semseg": "mine"}}])
    assert flat.fingerprint() == data.fingerprint()
    kept = mixed(sets=[{"name": "subset", "of": "nyud", "options": {"root": root}}])
    assert len(kept.split("train")) == 1
    for entry, words in (
            ({"name": "manifest", **table}, "options: {tasks: "),
            ({"name": "manifest", "file": "x"}, "options: {tasks: "),
            ({"name": "nyud", "root": root, "options": {"root": root}}, "'root' stands in its entry and in options"),
            ({"name": "nyud", "options": [root]}, "write the data set's own options")):
        with pytest.raises(UserError) as error:
            mixed(sets=[entry])
        assert words in str(error.value) and "\n" not in str(error.value)
