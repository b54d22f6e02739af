"""The network of a finished run, without its data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.checkpoint import load_file
from harness.config import load
from harness.errors import UserError, closest
from transfer.config import TransferConfig
from transfer.data.base import DataSet, Label, Split
from transfer.engine import FORMAT, tasks_of
from transfer.network import Network, build_network
from transfer.results import read_results, run_folder, weights_of
from transfer.tasks.base import Task


@dataclass
class TrainedRun:
    """What a finished run learned.

    Attributes:
        folder: of the run.
        config: its configuration.
        tasks: its main tasks by name.
        network: the network with the weights that its results are of, in evaluation mode.
    """

    folder: Path
    config: TransferConfig
    tasks: dict[str, Task]
    network: Network


def check_tasks(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raises :class:`UserError` for a task that a run has not."""
    for name in wanted:
        if name not in known:
            raise UserError(f"the run has no task '{name}'{closest(name, known)}: it has {', '.join(known)}")


class RecordedLabels(DataSet):
    """A data set of which only the labels' names are known: what a run recorded of it."""

    def __init__(self, labels: Mapping[str, Mapping[str, Any]]) -> None:
        self._labels = {name: Label(entry["task"], tuple(entry.get("classes", ())), {
            parent: tuple(indices) for parent, indices in entry.get("parents", {}).items()})
            for name, entry in labels.items()}

    @property
    def labels(self) -> Mapping[str, Label]:
        return self._labels

    def load(self, split: str) -> Split:
        raise UserError("only the names of this data set's labels are known, not its samples")

    def fingerprint(self) -> str:
        return "labels"


def load_run(name: str | Path, device: torch.device) -> TrainedRun:
    """Read a finished run.

    The data set's folder is needed only for runs that did not record their labels. Where the file of the starting
    weights is gone, the backbone is made without it, since the run's own checkpoint has all weights.

    Raises:
        UserError: the run is not finished, or does not fit this version.
    """
    folder = run_folder(name)
    results = read_results(folder)
    config = load(TransferConfig, ["--config", str(folder / "config.yaml")], prog="transfer.predict")
    config.compile = False
    data = RecordedLabels(results["labels"]) if results.get("labels") else config.data.build()
    tasks = tasks_of(config, data)
    weights = config.model.common.weights
    if weights and not Path(weights).exists() and not (Path("outputs") / weights).exists():
        config.model.common.weights, config.model.common.backbone = None, results["backbone"]
    network = build_network(config, tasks)
    path = weights_of(folder)
    state = load_file(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} is not one of a transfer run ({FORMAT}): give the folder of one")
    try:
        network.model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit the network of {folder / 'config.yaml'}: {reason}") from error
    network.to(device).model.eval()
    return TrainedRun(folder, config, {name: tasks[name] for name in config.tasks}, network)
