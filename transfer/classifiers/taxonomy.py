"""Concepts in an "is-a" hierarchy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from harness.errors import UserError


class Taxonomy:
    """A graph of concepts and what they are kinds of.

    Args:
        edges: (concept, what it is a kind of); several for a concept that is a kind of several.

    Raises:
        UserError: a concept is a kind of itself.
    """

    def __init__(self, edges: Iterable[tuple[str, str]]) -> None:
        self.parents: dict[str, list[str]] = {}
        for child, parent in edges:
            self.parents.setdefault(child, []).append(parent)
            self.parents.setdefault(parent, [])
        self._depth: dict[str, int] = {}
        self._above: dict[str, dict[str, int]] = {}
        for concept in self.parents:
            self._measure(concept)

    def __contains__(self, concept: str) -> bool:
        return concept in self.parents

    def wu_palmer(self, one: str, other: str) -> float:
        """2 N₃ / (N₁ + N₂ + 2 N₃) (Wu and Palmer 1994).

        N₃ is the number of concepts from the deepest common ancestor to its root, both included, and N₁ and N₂ are the
        numbers of steps from the two concepts to that ancestor. Where there are several ways, the depth is that of the
        longest one, and steps are those of the shortest; of several deepest ancestors the nearest counts. 0 without a
        common ancestor.
        """
        first, second = self._ancestors(one), self._ancestors(other)
        common = first.keys() & second.keys()
        if not common:
            return 0.0
        deepest = max(self._depth[concept] for concept in common)
        steps = min(first[concept] + second[concept] for concept in common if self._depth[concept] == deepest)
        return 2 * deepest / (steps + 2 * deepest)

    def _ancestors(self, concept: str) -> dict[str, int]:
        """The concept and all above it, with the least number of steps to each."""
        if concept not in self._above:
            found, queue = {concept: 0}, deque([concept])
            while queue:
                here = queue.popleft()
                for parent in self.parents[here]:
                    if parent not in found:
                        found[parent] = found[here] + 1
                        queue.append(parent)
            self._above[concept] = found
        return self._above[concept]

    def _measure(self, concept: str) -> None:
        """Depth of a concept: 1 at a root; without recursion, since hierarchies may be deep."""
        stack, open_ = [concept], set()
        while stack:
            here = stack[-1]
            waiting = [parent for parent in self.parents[here] if parent not in self._depth]
            if here in self._depth or not waiting:
                self._depth.setdefault(here, 1 + max((self._depth[p] for p in self.parents[here]), default=0))
                open_.discard(stack.pop())
                continue
            open_.add(here)
            loop = next((parent for parent in waiting if parent in open_), None)
            if loop is not None:
                raise UserError(f"classifier.taxonomy: '{loop}' is a kind of itself: take one of the lines out")
            stack += waiting
