"""What the finished runs of a sweep come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.run import read_metrics
from transfer.delta import delta_mtl
from transfer.results import read_results
from transfer.sweeping.measures import (
    average_ranks,
    losses_to_best,
    normalised_scores,
    performance_profile,
    profile_area,
    share_of_top,
)
from transfer.sweeping.plan import SINGLE, Entry, Plan, RunPlan
from transfer.units import heading_of, unit_of

TOP = 0.2
"""The share of best settings that methods are counted in (Vandenhende 2022, section 6.3.2)."""

Metrics = dict[str, dict[str, float | None]]


@dataclass
class Measured:
    """A setting with one seed, of one run or of a run for each task.

    Args:
        seed: of the run.
        folders: of the runs.
        metrics: by split, of each task.
    """

    seed: int
    folders: list[str]
    metrics: dict[str, Metrics]


@dataclass
class Row:
    """A setting, measured.

    Args:
        entry: what was planned.
        measured: its finished seeds.
        failures: why, for each of its runs that failed.
        number: of its recipe among the single-task ones.
    """

    entry: Entry
    measured: list[Measured]
    failures: dict[str, str] = field(default_factory=dict)
    rank: float = math.nan
    score: float = math.nan

    @property
    def label(self) -> str:
        return self.entry.label

    @property
    def method(self) -> str:
        return self.entry.method

    @property
    def single(self) -> bool:
        """Whether it is a network for each task."""
        return self.entry.method == SINGLE


class Outcome:
    """The comparison.

    Args:
        plan: the sweep.
        failed: why, for each run that failed.

    Attributes:
        rows: single-task recipes first, then the settings; those without a finished seed too.
        tasks: names, in the order in which they first come.
        primary: metric of each task.
        higher: its direction.
        units: its unit.
        split: whose figures are the runs' results.
        guide: the split that settings are ranked and chosen on.
        criterion: ``delta_mtl``, ``score``, ``rank`` or ``none``.
    """

    def __init__(self, plan: Plan, failed: Mapping[str, str] = ()) -> None:
        self.plan, self.failed = plan, dict(failed)
        self.primary: dict[str, str] = {}
        self.higher: dict[str, bool] = {}
        self.units: dict[str, str] = {}
        self.split = plan.entries[0].config.evaluation.split
        sweep = plan.config
        self.guide = self.split if sweep.criterion == "none" else "val"
        self._given = self._named() if sweep.baseline not in ("auto", "none") else None
        self.rows = [self._row(entry) for entry in (*plan.singles, *plan.entries)]
        self.tasks = list(self.primary)
        automatic = "score" if sweep.baseline == "none" else "delta_mtl"
        self.criterion = automatic if sweep.criterion == "auto" else sweep.criterion
        done = self.done
        for row, rank, score in zip(done, *self._ranked(done, self.guide), strict=True):
            row.rank, row.score = rank, score

    # -- reading ----------------------------------------------------------------------------------

    def _row(self, entry: Entry) -> Row:
        measured = []
        for seed, runs in entry.runs.items():
            if all((run.folder / "results.json").exists() for run in runs):
                parts = [self._read(run.folder, run.config.evaluation.select) for run in runs]
                joined = {split: {task: values for part in parts for task, values in part[split].items()}
                          for split in parts[0]}
                measured.append(Measured(seed, [str(run.folder) for run in runs], joined))
        runs = {run.name: run for runs in entry.runs.values() for run in runs}
        return Row(entry, measured, {name: self.failed[name] for name in runs if name in self.failed})

    def _read(self, folder: str | Path, select: str) -> dict[str, Metrics]:
        results = read_results(folder)
        for task, metric in results["primary"].items():
            if self.primary.setdefault(task, metric) != metric:
                raise UserError(f"task '{task}' is measured by {self.primary[task]} in one run and by {metric} in "
                                f"{folder}: sweep over them apart")
            self.higher[task] = results["higher_is_better"][task]
            self.units[task] = unit_of([results], task, metric)
        found = {results["split"]: results["metrics"]}
        if results["split"] != "val" and self.guide == "val":
            found["val"] = validation_metrics(folder, select)
        return found

    def _named(self) -> dict[str, dict[str, Metrics]]:
        """Metrics of the single-task runs that ``baseline`` names, by task and split."""
        found: dict[str, dict[str, Metrics]] = {}
        for folder in self.plan.config.baseline.split(","):
            results = read_results(folder.strip())
            if results["architecture"] != "single_task":
                raise UserError(f"baseline: {folder} is a run of '{results['architecture']}': give single-task runs")
            read = self._read(results["folder"], "last")
            found.update(dict.fromkeys(results["metrics"], read))
        return found

    # -- numbers ----------------------------------------------------------------------------------

    @property
    def done(self) -> list[Row]:
        """Rows with a finished seed."""
        return [row for row in self.rows if row.measured]

    @property
    def settings(self) -> list[Row]:
        """Rows of the settings themselves that have a finished seed."""
        return [row for row in self.done if not row.single]

    def heading(self, task: str) -> str:
        """A task and its primary metric with its unit."""
        return f"{task} {heading_of(self.primary[task], self.units[task])}"

    def values(self, row: Row, task: str, split: str) -> list[float]:
        """A task's primary metric, one value for each seed; nan for what is no number."""
        found = [one.metrics.get(split, {}).get(task) for one in row.measured]
        return [_number(metrics.get(self.primary[task])) for metrics in found if metrics is not None]

    def mean(self, row: Row, task: str, split: str) -> float | None:
        """Their mean; None for a task that the setting does not have."""
        values = self.values(row, task, split)
        return statistics.fmean(values) if values else None

    def deltas(self, row: Row, split: str) -> list[float]:
        """Δ_MTL of each seed, against the mean over seeds of the reference; none without a reference."""
        found = []
        for one in row.measured:
            metrics = one.metrics.get(split, {})
            reference = {task: self.reference(row, task, split) for task in metrics}
            if not metrics or any(value is None for value in reference.values()):
                return []
            values = {task: _number(metrics[task].get(self.primary[task])) for task in metrics}
            found.append(delta_mtl(values, reference, {task: self.higher[task] for task in metrics}))
        return found

    def delta(self, row: Row, split: str) -> float:
        """Mean over seeds of Δ_MTL; nan without a reference."""
        found = self.deltas(row, split)
        return statistics.fmean(found) if found else math.nan

    def reference(self, row: Row, task: str, split: str) -> float | None:
        """What Δ_MTL of a row is measured against: its mean over seeds, None when there is none.

        The task's best single-task recipe, chosen on the validation split; where nothing is chosen, that
        with the row's own recipe.
        """
        if self._given is not None:
            source = self._given.get(task, {}).get(split)
            return None if source is None else _number(source[task][self.primary[task]])
        source = self.references.get(task)
        if self.criterion == "none" and self.plan.singles:
            singles = [one for one in self.rows if one.single]
            source = row if row.single else singles[row.entry.recipe]
        return None if source is None else self.mean(source, task, split)

    @cached_property
    def references(self) -> dict[str, Row]:
        """For each task its best single-task recipe on the guiding split."""
        found = {}
        for task in self.primary:
            rows = [row for row in self.done if row.single and math.isfinite(_number(self.mean(row, task, self.guide)))]
            if rows:
                sign = 1 if self.higher[task] else -1
                found[task] = max(rows, key=lambda row: sign * self.mean(row, task, self.guide))  # noqa: B023
        return found

    def _ranked(self, rows: Sequence[Row], split: str) -> tuple[list[float], list[float]]:
        values = {task: [self.mean(row, task, split) for row in rows] for task in self.tasks}
        return average_ranks(values, self.higher), normalised_scores(values, self.higher)

    def quality(self, row: Row) -> float:
        """What settings are chosen by: more is better. Without a criterion Δ_MTL or the normalised score."""
        if self.criterion == "rank":
            return -row.rank
        delta = math.nan if self.criterion == "score" else self.delta(row, self.guide)
        return row.score if math.isnan(delta) and self.quantity == "score" else delta

    @cached_property
    def quantity(self) -> str:
        """What profiles and pictures of hyper-parameters show: ``delta_mtl``, ``score``, or ``rank``."""
        if self.criterion in ("score", "rank"):
            return self.criterion
        return "delta_mtl" if any(math.isfinite(self.delta(row, self.guide)) for row in self.settings) else "score"

    # -- choosing ---------------------------------------------------------------------------------

    def best(self, rows: Iterable[Row]) -> Row | None:
        """The best of some on the guiding split: among those with all seeds, where there are any."""
        rows = [row for row in rows if math.isfinite(self.quality(row))]
        whole = [row for row in rows if len(row.measured) == len(row.entry.runs)]
        return max(whole or rows, key=self.quality, default=None)

    @cached_property
    def methods(self) -> dict[str, list[Row]]:
        """Settings by method; a setting that failed is one of them, one that was not run is not."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.measured or row.failures:
                found.setdefault(row.method, []).append(row)
        return found

    @cached_property
    def chosen(self) -> dict[str, Row]:
        """The best setting of each method; of the single-task networks each task's best recipe."""
        if self.criterion == "none":
            return {}
        best = {method: self.best(rows) for method, rows in self.methods.items() if method != SINGLE}
        tuned = self._tuned()
        return {**({SINGLE: tuned} if tuned else {}), **{method: row for method, row in best.items() if row}}

    def _tuned(self) -> Row | None:
        """The single-task networks, each with its task's best recipe, seed by seed."""
        if not self.references:
            return None
        different = len({id(row) for row in self.references.values()}) > 1
        first = next(iter(self.references.values()))
        if not different and len(first.measured[0].metrics[self.guide]) == len(self.references):
            return first
        seeds = set.intersection(*({one.seed for one in row.measured} for row in self.references.values()))
        measured = []
        for seed in sorted(seeds):
            parts = {task: next(one for one in row.measured if one.seed == seed)
                     for task, row in self.references.items()}
            splits = next(iter(parts.values())).metrics
            joined = {split: {task: one.metrics[split][task] for task, one in parts.items()} for split in splits}
            measured.append(Measured(seed, [folder for one in parts.values() for folder in one.folders], joined))
        entry = Entry(f"{SINGLE}, each task's best", SINGLE, "each task's best", {}, {}, first.entry.config,
                      first.entry.runs)
        return Row(entry, measured) if measured else None

    @cached_property
    def winner(self) -> Row | None:
        """The best of all settings; None when nothing is chosen."""
        return None if self.criterion == "none" else self.best(self.settings)

    @cached_property
    def benchmark(self) -> list[tuple[str, Row, float, float]]:
        """Method, chosen setting, its rank and score among the chosen ones on the split of the results."""
        rows = list(self.chosen.values())
        return list(zip(self.chosen, rows, *self._ranked(rows, self.split), strict=True)) if rows else []

    # -- robustness -------------------------------------------------------------------------------

    def losses(self, task: str | None = None) -> dict[str, list[float]]:
        """How far each setting is behind the best of all, by method; a failed one infinitely far.

        Args:
            task: in percent of the best primary metric of this task; in the unit of :attr:`quantity` without.
        """
        if task is None:
            rows = [row for rows in self.methods.values() for row in rows]
            values = [self.quality(row) if row.measured else math.nan for row in rows]
            losses = losses_to_best(values, True)
        else:
            rows = [row for rows in self.methods.values() for row in rows
                    if not row.measured or self.values(row, task, self.guide)]
            values = [_number(self.mean(row, task, self.guide)) if row.measured else math.nan for row in rows]
            losses = losses_to_best(values, self.higher[task], relative=True)
        found: dict[str, list[float]] = {}
        for row, loss in zip(rows, losses, strict=True):
            found.setdefault(row.method, []).append(loss)
        return found

    @cached_property
    def robustness(self) -> dict[str, dict[str, Any]]:
        """For each method: number of settings, quality of the best, median and worst, share of the best fifth, and
        area under its performance profile."""
        losses = self.losses()
        together = [loss for row in losses.values() for loss in row]
        limit = max((loss for loss in together if math.isfinite(loss)), default=0.0)
        top = share_of_top([method for method, row in losses.items() for _ in row], together, TOP)
        found = {}
        for method, rows in self.methods.items():
            values = sorted((self.quality(row) for row in rows if row.measured and math.isfinite(self.quality(row))),
                            reverse=True)
            taus = sorted({loss for loss in losses[method] if math.isfinite(loss)})
            found[method] = {
                "settings": len(rows), "failed": sum(not row.measured for row in rows),
                "best": values[0] if values else None, "median": statistics.median(values) if values else None,
                "worst": values[-1] if values else None, "share_of_top_fifth": top[method],
                "profile_area": profile_area(losses[method], limit),
                "profile": {"tau": taus, "share": performance_profile(losses[method], taus)},
            }
        return found

    # -- writing ----------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, as it stands in ``sweep.json``."""
        chosen = {id(row): method for method, row in self.chosen.items()}

        def described(row: Row) -> dict[str, Any]:
            splits = list(row.measured[0].metrics) if row.measured else []
            return {
                "label": row.label, "method": row.method, "axes": row.entry.values, "options": row.entry.options,
                "seeds": [one.seed for one in row.measured],
                "runs": [folder for one in row.measured for folder in one.folders],
                "metrics": {split: {task: _summary(self.values(row, task, split)) for task in self.tasks
                                    if self.values(row, task, split)} for split in splits},
                "delta_mtl": {split: _summary(self.deltas(row, split)) for split in splits if self.deltas(row, split)},
                "rank": row.rank, "score": row.score, "chosen": id(row) in chosen, "failures": row.failures,
            }

        return {
            "name": self.plan.config.folder.name, "split": self.split, "chosen_on": None if self.criterion == "none"
            else "val", "criterion": self.criterion, "ranked_on": self.guide, "quantity": self.quantity,
            "seeds": self.plan.config.seed_list,
            "tasks": {task: {"primary": self.primary[task], "higher_is_better": self.higher[task]}
                      for task in self.tasks},
            "winner": self.winner.label if self.winner else None,
            "reference": {task: row.label for task, row in self.references.items()},
            "benchmark": [{"method": method, **described(row), "rank": rank, "score": score}
                          for method, row, rank, score in self.benchmark],
            "settings": [described(row) for row in self.rows],
            "methods": self.robustness, "failed": self.failed,
            "unfinished": [run.name for run in self.unfinished],
        }

    @property
    def unfinished(self) -> list[RunPlan]:
        """Runs without results that did not fail."""
        return [run for run in self.plan.runs
                if run.name not in self.failed and not (run.folder / "results.json").exists()]


def validation_metrics(folder: str | Path, select: str) -> Metrics:
    """Metrics on the validation split of the weights whose figures are a run's results.

    Args:
        folder: of the run.
        select: its ``evaluation.select``: the last validation, or the first with the best score.

    Raises:
        UserError: it was never validated.
    """
    lines = [line for line in read_metrics(folder) if "val" in line]
    if not lines:
        raise UserError(f"{folder} was never validated, and settings are chosen on the validation split only: give it "
                        "evaluation.every, or set the sweep's criterion to none")
    scored = [line for line in lines if line.get("score") is not None]
    if select == "best" and scored:
        return max(scored, key=lambda line: line["score"])["val"]
    return lines[-1]["val"]


def _summary(values: Sequence[float]) -> dict[str, Any]:
    several = len(values) > 1 and all(math.isfinite(value) for value in values)
    return {"mean": statistics.fmean(values), "spread": statistics.stdev(values) if several else None,
            "values": list(values)}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
