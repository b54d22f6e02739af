"""Terms that a network adds to its losses are in every step, once."""

from __future__ import annotations

import json

import pytest

LASSO = ["--model.name=lasso", "--model.head=fcn", "--tasks=[semseg,depth]", "--epochs=1"]


def first_losses(folder) -> dict[str, float]:
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return {key: value for key, value in line.items() if key.startswith("loss_")}


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_penalty_counts_once_in_a_step(programs, accumulation):
    weights = (0.0, 0.5)
    for i, weight in enumerate(weights):
        options = [*LASSO, f"--accumulation={accumulation}", f"--model.penalty_weight={weight}", f"--name={i}"]
        assert programs.main("transfer", *options).code == 0
    without, with_it = (first_losses(programs.folder / "outputs" / str(i)) for i in range(2))
    # Each of four stages has two blocks with coefficients sqrt(1/2) at first.
    extra = 0.5 * 4 * 2 * 0.5**0.5
    added = {key: with_it[key] - without[key] for key in without}
    assert list(added) == ["loss_semseg", "loss_depth"]
    assert added == pytest.approx(dict.fromkeys(added, extra), rel=1e-4)


def test_terms_made_of_gradients(programs):
    done = programs.main("transfer", "--model.name=astmt", "--model.head=fcn", "--model.adversarial=0.1",
                         "--tasks=[semseg,depth]", "--accumulation=2", "--name=astmt")  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (programs.folder / "outputs/astmt/metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "loss_depth" in line]) == 6
