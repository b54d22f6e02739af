"""The comparison table."""

from __future__ import annotations

import statistics

import pytest

from harness.errors import UserError
from harness.table import Column, Table
from transfer.table import build_table


def result(
    model: str, seed: int = 0, miou: float = 40.0, rmse: float = 0.6, delta: float | None = 1.0, **changes
):
    return {
        "name": f"{model}-{seed}",
        "dataset": "scenes",
        "architecture": model,
        "backbone": "resnet18",
        "weights": None,
        "strategy": {"balance": "equal", "schedule": "shared", "partition": "full"},
        "seed": seed,
        "metrics": {"semseg": {"mIoU": miou, "pixel_accuracy": 80.0}, "depth": {"RMSE": rmse}},
        "labels": {"semseg": {"task": "semseg"}, "depth": {"task": "depth"}},
        "primary": {"semseg": "mIoU", "depth": "RMSE"},
        "higher_is_better": {"semseg": True, "depth": False},
        "single_task": None,
        "delta_mtl": delta,
        "parameters": 11_500_000,
        "macs": 2_345_000_000,
        "train_seconds": 90.0,
        **changes,
    }


def cells(table) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.markdown().splitlines()]


def test_one_row_for_each_configuration_with_mean_and_spread():
    values = [40.0, 42.0, 47.0]
    table = build_table(
        [
            result("single_task", miou=45.0, delta=None),
            *(result("baseline", s, v) for s, v in enumerate(values)),
        ]
    )
    header, ruler, single, baseline = cells(table)
    assert header == [
        "Model",
        "Seeds",
        "semseg mIoU [%] ↑",
        "depth RMSE [m] ↓",
        "Δ_MTL [%] ↑",
        "Params [M]",
        "MACs [G]",
        "Time [min]",
    ]
    assert set("".join(ruler)) <= set("-:")
    assert single == ["single_task", "1", "**45.00**", "0.600", "–", "11.50", "2.35", "1.5"]  # half to even
    assert baseline[2] == f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert baseline[4:7] == ["+1.00 ± 0.00", "11.50", "2.35"]


def test_best_follows_the_direction():
    _, _, a, b = cells(build_table([result("a", rmse=0.5, miou=30), result("b", rmse=0.7, miou=31)]))
    assert a[1:3] == ["30.00", "**0.500**"] and b[1:3] == ["**31.00**", "0.700"]


def test_columns_tell_the_rows_apart():
    header, *_ = cells(build_table([result("a"), result("a", weights="runs/x")]))
    assert header[:2] == ["Model", "Weights"]


def test_runs_with_the_same_seed_are_not_averaged():
    header, _, first, second = cells(
        build_table([result("a", name="slow"), result("a", name="fast", miou=50.0)])
    )
    assert header[:2] == ["Run", "Model"] and first[0] == "slow" and second[0] == "fast"


def test_a_task_that_a_run_lacks():
    single = result(
        "single_task",
        metrics={"depth": {"RMSE": 0.5}},
        primary={"depth": "RMSE"},
        higher_is_better={"depth": False},
    )
    table = build_table([result("baseline"), single])
    row = cells(table)[3]
    assert row[cells(table)[0].index("semseg mIoU [%] ↑")] == "–"


def test_text_is_aligned():
    lines = build_table([result("a", rmse=0.5), result("much_longer", miou=float("nan"))]).text().splitlines()
    assert len(lines) == 4 and "nan" not in lines[3] and "0.500 *" in lines[2]
    assert lines[2].index("0.500") == lines[3].index("0.600")


def test_latex_is_escaped():
    latex = build_table([result("pad_net", miou=50), result("mti_net", weights="a&b_{c}")]).latex()
    assert latex.startswith("\\begin{tabular}{llr") and latex.endswith("\\end{tabular}")
    assert r"pad\_net" in latex and r"a\&b\_\{c\}" in latex and r"\textbf{50.00}" in latex
    assert r"$\Delta_\mathrm{MTL}$" in latex and r"$\uparrow$" in latex and r"[\%]" in latex
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")} == {7}


def test_mistakes_are_named():
    with pytest.raises(UserError, match="no results"):
        build_table([])
    other = result("b", primary={"semseg": "pixel_accuracy", "depth": "RMSE"})
    with pytest.raises(UserError, match="measured by mIoU in one run and by pixel_accuracy"):
        build_table([result("a"), other])


def test_costs_are_relative_only_where_something_is_compared():
    relative = {"parameters": -40.0, "macs": 0.0}
    alone = build_table([result("baseline", relative=relative)])
    beside = [build_table([result("single_task"), result("baseline", relative=relative)]),
              build_table([result("baseline", relative=relative, single_task={"semseg": {"mIoU": 39.0}})])]
    assert "vs ST" not in alone.markdown() and all("Params vs ST [%]" in table.markdown() for table in beside)


def test_a_page_turns_a_table_that_is_too_wide_for_it():
    from transfer.report import table_section

    def made(count: int, rows: int) -> Table:
        columns = [Column(f"task{i} mIoU [%] ↑", [[float(row)] for row in range(rows)], 2, True) for i in range(count)]
        return Table(("Model",), [(f"m{row}",) for row in range(rows)], columns)

    narrow, wide, tall = (table_section("Result", made(*size)) for size in ((3, 2), (9, 2), (9, 12)))
    assert list(narrow.header) == ["Model", *(f"task{i} mIoU [%] ↑" for i in range(3))]
    assert list(wide.header) == ["Model", "m0", "m1"] and len(wide.rows) == 9 and wide.text == ["* the best of its row"]
    assert len(tall.header) == 10


def test_a_turned_table_has_its_rows_as_columns():
    numbers = [Column("a ↑", [[1.0], [2.0]], 1, True), Column("b", [[3.0], []], 1), Column("c", [[5.0], [6.0]], 0)]
    plain, turned = (Table(("Run", "Kind"), [("x", "k"), ("y", "l")], numbers, turned) for turned in (False, True))
    assert turned.cells() == [list(line) for line in zip(*plain.cells(), strict=True)]
    assert turned.markdown().splitlines()[:4] == ["| Run | x | y |", "| --- | ---: | ---: |", "| Kind | k | l |",
                                                  "| a ↑ | 1.0 | **2.0** |"]
    assert "{lrr}" in turned.latex() and turned.text().splitlines()[0].split() == ["Run", "x", "y"]
