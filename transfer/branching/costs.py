"""What branched networks cost, without building each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from mtl_heads.resources import multiply_adds, parameters
from mtl_heads.trees import Tree, shared_tree

RESOURCES = ("parameters", "macs")


@dataclass(frozen=True)
class Costs:
    """A tree's cost is ``fixed`` + Σ_d groups_d · ``stages[d]``: every group at a location costs the same.

    Args:
        fixed: of what every network has once, the heads.
        stages: of one group at each location; necks count with the last.
        tasks: how many there are.
    """

    fixed: int
    stages: tuple[int, ...]
    tasks: int

    def of(self, counts: Sequence[int]) -> int:
        """Cost of a network with so many groups at each location."""
        return self.fixed + sum(count * cost for count, cost in zip(counts, self.stages, strict=True))

    @property
    def single_task(self) -> int:
        """Cost of one network per task, all together."""
        return self.of([self.tasks] * len(self.stages))

    def share(self, counts: Sequence[int]) -> float:
        """:meth:`of` relative to :attr:`single_task`."""
        return self.of(counts) / self.single_task


def measure_costs(
    build: Callable[[Tree], nn.Module], tasks: Sequence[str], locations: int, image_size: tuple[int, int]
) -> dict[str, Costs]:
    """Costs by resource, from networks in which the first task leaves the others at each location in turn.

    Args:
        build: makes the network of a tree.
        tasks: their names, at least two.
        locations: how many there are.
        image_size: height and width of the images, for multiply-adds.
    """

    def measure(tree: Tree) -> tuple[int, int]:
        model = build(tree)
        return parameters(model), multiply_adds(model, image_size)

    together, apart = shared_tree(tasks, locations), ((tasks[0],), tuple(tasks[1:]))
    shared = measure(together)
    totals = [measure((*together[:first], *((apart,) * (locations - first)))) for first in range(locations)]
    found = {}
    for i, resource in enumerate(RESOURCES):
        from_here = [total[i] - shared[i] for total in totals] + [0]
        stages = tuple(more - less for more, less in zip(from_here, from_here[1:], strict=False))
        found[resource] = Costs(shared[i] - sum(stages), stages, len(tasks))
    return found
