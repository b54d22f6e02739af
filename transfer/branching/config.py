"""What a search for a branched network is made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from harness.config import Selection, option_defaults, selection, volatile
from harness.errors import UserError, closest
from mtl_heads.registry import ARCHITECTURES
from mtl_heads.trees import Tree
from transfer.branching.search import EXACT_TREES
from transfer.config import ModelConfig, TransferConfig

GROUPINGS = ("affinity", "shared", "split", "random", "fafs")
"""By affinity, which is always there; all shared; all apart; drawn; by difficult examples. The last two have as many
groups at each stage as the first."""


@dataclass
class BranchConfig(TransferConfig):
    """Group tasks by affinity into a branched network of limited size, train it, and compare it with other groupings.

    Every other field is that of a transfer run.

    Args:
        budget: largest size of the network, as a share of the single-task networks' together.
        resource: what the budget counts.
        images: held-out images that representations are compared on; all of the split when it has fewer.
        held_out: split that they are of.
        share: of the training samples that the networks whose representations are compared learn from; below 1 they
            are others than those that Δ_MTL is measured against. With runs in baseline it stays 1.
        affinity: file of affinities that another search measured (affinity.safetensors); none measures them.
        exact_trees: largest number of trees that are searched completely, of up to ten tasks; above it the search is
            by beam alone.
        beam: width of the beam.
        groupings: what is trained, some of affinity, shared, split, random, fafs.
        train: train and compare; false only searches.
    """

    model: Selection = selection(ARCHITECTURES, "branched", common=ModelConfig, help="branched, or baseline")
    budget: float = 0.7
    resource: Literal["parameters", "macs"] = "parameters"
    images: int = 500
    held_out: str = "val"
    share: float = 1.0
    affinity: str | None = None
    exact_trees: int = EXACT_TREES
    beam: int = 16
    groupings: list[str] = volatile(default_factory=lambda: list(GROUPINGS))
    train: bool = volatile(True)

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: a field with such a value.
        """
        if self.model.name not in ("branched", "baseline", "single_task"):
            raise UserError(f"model.name is {self.model.name}, and this program builds branched networks: leave "
                            "model.name out or set it to branched")
        if self.model.options.get("tree") is not None:
            raise UserError("model.tree is given, and this program searches it: leave it out, or train it with "
                            "transfer/main.py")
        if len(self.names) < 2:
            raise UserError("one task has nothing to be grouped with: give two or more in tasks")
        if not self.budget > 0:
            raise UserError(f"budget is {self.budget}: give the share of the single-task networks' size, such as 0.7")
        if not 0 < self.share <= 1:
            raise UserError(f"share is {self.share}: it must be above 0 and at most 1")
        if self.share < 1 and self.baseline not in ("auto", "none"):
            raise UserError("share is below 1 and baseline names runs that are trained already: leave one of them out")
        if self.images < 3:
            raise UserError(f"images is {self.images}: representations are compared on three images or more")
        if self.beam < 1:
            raise UserError(f"beam is {self.beam}: give a width of 1 or more")
        for name in self.groupings:
            if name not in GROUPINGS:
                raise UserError(f"unknown grouping '{name}'{closest(name, GROUPINGS)}: choose some of "
                                f"{', '.join(GROUPINGS)}")

    @property
    def names(self) -> list[str]:
        """All tasks, auxiliary ones too: they are grouped like the others."""
        return [*self.tasks, *self.auxiliary]

    def run(self, tree: Tree | None = None, **fields: Any) -> TransferConfig:
        """The configuration of an ordinary run of the branched network with a tree.

        Args:
            tree: none leaves the architecture's default.
            fields: of the run, in place of those here.
        """
        known = option_defaults(self.model.registry.get("branched"))
        options = {key: self.model.options.get(key, default) for key, default in known.items()}
        options["tree"] = None if tree is None else [[list(group) for group in level] for level in tree]
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(TransferConfig)}
        own |= {"name": None, "output": None, "model": Selection("branched", options, self.model.common,
                                                                 self.model.registry)}
        return TransferConfig(**{**own, **fields})

    def learners(self) -> TransferConfig:
        """The configuration whose single-task networks' representations are compared."""
        data = self.data
        if self.share < 1:
            options = {"of": data.name, "share": self.share, "seed": self.seed, "options": data.options}
            data = Selection("subset", options, None, data.registry)
        return self.run(data=data, tasks=self.names, auxiliary=[])
