"""Figures of what a strategy did, and the table of strategies, from logs made by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from PIL import Image

from harness.run import read_metrics
from transfer import strategy_figures as figures
from transfer.strategy_table import strategy_of, strategy_section


def log(tasks, steps, missing=0.0, every=10):
    """As of a run with a rule on gradients, its distance tracked and a partition that roams."""
    generator = np.random.default_rng(0)
    lines = []
    for step in range(1, steps + 1):
        here = [name for name in tasks if generator.random() >= missing] or tasks[:1]
        gradients = {name: generator.normal(size=4) for name in here}
        pairs = {f"{a}|{b}": float(gradients[a] @ gradients[b] / np.linalg.norm(gradients[a])
                                   / np.linalg.norm(gradients[b]))
                 for i, a in enumerate(here) for b in here[i + 1:]}
        line = {"step": every * step, "loss": 1.0, "lr": 0.1, **{f"loss_{name}": 2.0 / step for name in here},
                "weights": {name: float(generator.random()) for name in here},
                "gradient_norm": {name: float(np.linalg.norm(gradients[name])) for name in here}}
        if pairs:
            line |= {"cosine": pairs} if len(tasks) <= 10 else {}
            line |= {"mean_cosine": float(np.mean(list(pairs.values()))),
                     "conflicts": float(np.mean([value < 0 for value in pairs.values()]))}
        lines.append({**line, "covered_distance": 2.0 * step, "shortest_path": 1.0 * step, "distance_ratio": 2.0,
                      "visited": 1 - 0.5 / step})
    return lines


def names(count):
    return [f"task_{i}" for i in range(count)]


@pytest.fixture
def unwritten(monkeypatch):
    """Figures are made and closed, but not rendered, which takes most of the time."""
    def close(figure, path):
        figures.pyplot().close(figure)
        return path

    monkeypatch.setattr(figures, "save_figure", close)


def size(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("count, steps, missing", [pytest.param(2, 120, 0, marks=pytest.mark.slow), (8, 90, 0.2),
                                                  (40, 70, 0.9)])
def test_few_and_many_tasks_are_drawn_on_one_page(tmp_path, count, steps, missing):
    lines = log(names(count), steps, missing)
    found = dict(figures.draw_strategy(lines, tmp_path, names(count), "the last shared layer"))
    assert [path.name for path in found] == ["weights.png", "gradient_norms.png", "cosines.png", "distance.png",
                                            "visited.png"]
    losses = figures.draw_losses(lines, tmp_path, names(count))
    for path in (*found, losses):
        width, height = size(path)
        assert 300 < width < 1700 and 200 < height < 1700, path
    assert "with respect to the last shared layer" in found[tmp_path / "cosines.png"]


@pytest.mark.parametrize("count", [1, 300])
def test_any_number_of_tasks(tmp_path, count):
    lines = [{"step": step, "weights": dict.fromkeys(names(count), 1.0)} for step in (1, 2)]
    assert figures.draw_weights(lines[:1], tmp_path) is None  # a single point is no figure
    assert max(size(figures.draw_weights(lines, tmp_path))) < 1800


def test_many_tasks_have_no_lines_of_their_own(tmp_path, monkeypatch, unwritten):
    drawn = []
    monkeypatch.setattr(figures, "_line", lambda *values, **named: drawn.append(values))
    figures.draw_weights(log(names(10), 5), tmp_path)
    assert len(drawn) == 10
    figures.draw_weights(log(names(11), 5), tmp_path)
    assert len(drawn) == 10


def test_only_what_the_log_has(tmp_path, unwritten):
    plain = [{"step": 1, "loss": 1.0, "loss_a": 1.0, "lr": 0.1}, {"step": 1, "val": {"a": {"accuracy": 3.0}}},
             {"step": 2, "loss": 0.5, "loss_a": 0.5, "lr": 0.1}]
    assert figures.draw_losses(plain[:2], tmp_path) is None
    assert list(figures.draw_strategy(plain, tmp_path)) == [] and figures.draw_losses(plain, tmp_path) is not None
    assert list(figures.draw_strategy([], tmp_path)) == [] and figures.draw_losses([], tmp_path) is None
    assert figures.strategy_measures(plain) == figures.strategy_measures([]) == {}
    weights = [{"step": step, "weights": {}, "gradient_norm": {"a": 1.0}} for step in (1, 2)]  # one task, no weights
    assert [path.name for path, _ in figures.draw_strategy(weights, tmp_path)] == ["gradient_norms.png"]


@pytest.mark.parametrize("key", ["weights", "gradient_norm", "cosine", "mean_cosine", "conflicts", "covered_distance",
                                 "shortest_path", "distance_ratio", "visited"])
def test_a_field_may_be_missing(tmp_path, key, unwritten):
    lines = [{name: value for name, value in line.items() if name != key} for line in log(names(3), 4)]
    assert len(list(figures.draw_strategy(lines, tmp_path))) >= 4
    lines[1:3] = log(names(3), 3)[1:3]  # and be there in two steps
    assert len(list(figures.draw_strategy(lines, tmp_path))) == 5


def test_what_is_not_finite_is_no_value(tmp_path, unwritten):
    """As a run writes it: NaN, which comes back as None."""
    lines = [{"step": step, "loss_a": math.nan, "weights": {"a": math.nan, "b": 1.0}, "gradient_norm": {"a": math.nan},
              "distance_ratio": math.nan, "covered_distance": 0.0, "shortest_path": 0.0} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    back = read_metrics(tmp_path)
    assert figures.draw_losses(back, tmp_path) is None
    assert [path.name for path, _ in figures.draw_strategy(back, tmp_path)] == ["weights.png", "distance.png"]
    assert figures.strategy_measures(back) == {"covered_distance": 0.0, "shortest_path": 0.0}


def test_names_are_in_the_order_of_the_tasks():
    lines = [{"step": 1, "weights": {"c": 1.0}}, {"step": 2, "weights": {"extra": 4.0, "b": 2.0, "a+d": None}}]
    found = figures.series(lines, lambda line: line["weights"], ["a", "b", "c"])
    assert found.names == ["a+d", "b", "c", "extra"] and found.steps.tolist() == [1, 2]
    np.testing.assert_equal(found.values, [[math.nan, math.nan, 1, math.nan], [math.nan, 2, math.nan, 4]])


def test_a_moving_average_and_bins():
    values = np.arange(120.0)
    assert figures._smooth(values)[:59].tolist() != values[:59].tolist()
    middle = slice(2, -2)
    np.testing.assert_allclose(figures._smooth(values)[middle], values[middle])  # a line stays one
    np.testing.assert_allclose(figures._smooth(np.full(200, 3.0)), 3.0)
    noise = np.random.default_rng(0).normal(size=300)
    slow = [noise[max(0, i - 5):i + 6].mean() for i in range(300)]
    np.testing.assert_allclose(figures._smooth(noise), slow)
    steps, table = figures._binned(figures.Series(["a"], np.arange(1, 251), np.arange(250.0)[:, None]))
    assert len(steps) == figures.MOST_COLUMNS and table[0, 0] == 1.0 and steps[:2].tolist() == [1, 4]


def test_measures_are_means_and_ends():
    lines = [{"step": 1, "mean_cosine": 0.5, "conflicts": 0.0, "covered_distance": 1.0, "visited": 0.8},
             {"step": 2, "mean_cosine": -0.1, "conflicts": 1.0, "covered_distance": 3.0, "visited": 0.9}, {"step": 3}]
    assert figures.strategy_measures(lines) == {"mean_cosine": 0.2, "conflicts": 0.5, "covered_distance": 3.0,
                                                "visited": 0.9}


def run(folder, lines=(), options=None, **strategy):
    """A folder as a finished run leaves it, and its results."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chosen = {"balance": "equal", "schedule": "shared", "partition": "full"} | strategy
    config = {part: {"name": name} for part, name in chosen.items()}
    config["balance"] |= {"importance": {}, "level": None, **(options or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return {"name": folder.name, "strategy": chosen, "folder": str(folder), "step_seconds": 0.0123}


def test_table_of_strategies(tmp_path):
    plain = run(tmp_path / "plain")
    assert strategy_section([plain]) is None and strategy_section([{"name": "no folder"}]) is None
    surgery = run(tmp_path / "averse", [{"step": 1, "mean_cosine": 0.25, "conflicts": 0.5}],
                  {"c": 0.8, "rescale": "none", "level": "last"}, balance="cagrad")
    section = strategy_section([{"name": "no folder"}, plain, surgery])
    assert section.header == ["run", "balance", "schedule", "partition", "mean cosine", "pairs in conflict [%]",
                              "step [ms]"]
    assert section.rows == [["plain", "equal", "shared", "full", "–", "–", "12.3"],
                            ["averse", "cagrad, level last, c 0.8", "shared", "full", "+0.250", "50.0", "12.3"]]
    assert strategy_section([surgery]).header[0] == "balance"


def test_a_rule_of_a_plugin_is_told_with_all_its_options(tmp_path):
    mine = run(tmp_path / "mine", (), {"scale": 2.0}, balance="mine")
    assert strategy_of(mine)["balance"] == "mine, scale 2.0"
    (tmp_path / "mine" / "config.yaml").unlink()
    assert strategy_of(mine) == {"balance": "mine", "schedule": "shared", "partition": "full"}
