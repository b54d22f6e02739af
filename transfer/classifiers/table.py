"""Similarity of classes as given."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.errors import UserError, closest
from transfer.classifiers.base import SIMILARITIES, Classes, Similarity
from transfer.classifiers.names import require_names
from transfer.classifiers.tables import plain, read_columns


@SIMILARITIES.register("table")
class Table(Similarity):
    """Similarities from a file; what is not in it is 0.

    Args:
        file: lines ``target class<TAB>source class<TAB>similarity``.
    """

    def __init__(self, file: str = "") -> None:
        if not file:
            raise UserError("classifier.file is empty: name a file of similarities")
        self.file, self.files = file, (file,)

    def similarities(self, classes: Classes) -> Tensor:
        require_names(classes, "table")
        rows = {plain(name): i for i, name in enumerate(classes.target_names)}
        columns = {plain(name): j for j, name in enumerate(classes.source_names)}
        found = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        for number, (target, source, value) in read_columns(self.file, "classifier.file", 3):
            where = f"classifier.file: line {number} of {self.file}"
            if plain(target) not in rows:
                continue  # of another task
            if plain(source) not in columns:
                raise UserError(f"{where} names source class '{source}'{closest(source, classes.source_names)}, which "
                                "the classifier has not")
            try:
                similarity = float(value)
            except ValueError:
                similarity = math.nan
            if not math.isfinite(similarity):
                raise UserError(f"{where} has similarity '{value}': a number is expected")
            found[rows[plain(target)], columns[plain(source)]] = similarity
        return found
