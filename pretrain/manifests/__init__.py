"""Subsets of a set of images, as lists that the source ``list`` reads.

    python -m pretrain.manifests uniform|longtail|random IMAGES --size N --output FILE.txt
"""

from __future__ import annotations

from pretrain.manifests.classes import read_classes
from pretrain.manifests.laws import pareto_counts, pareto_law, uniform_counts
from pretrain.manifests.subsets import Subset, longtail_subset, random_subset, uniform_subset

__all__ = ["Subset", "longtail_subset", "pareto_counts", "pareto_law", "random_subset", "read_classes",
           "uniform_counts", "uniform_subset"]
