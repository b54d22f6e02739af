"""Labelled data sets, one file each, and what turns their samples into batches."""

from __future__ import annotations

from transfer.data.base import DATASETS, DataSet, Label, Split

__all__ = ["DATASETS", "DataSet", "Label", "Split"]
