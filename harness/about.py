"""What is known about a published data set before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class About:
    """Where a data set comes from, and what its folder looks like.

    Args:
        title: its name in the literature.
        url: page that hands it out.
        licence: under which terms, in a few words; the page's own words count.
        tree: the folder as it is read, several lines.
        counts: samples of each split as published.
        note: what else one has to know to get it.
    """

    title: str
    url: str
    licence: str
    tree: str
    counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def text(self) -> str:
        """All of it, in lines."""
        counts = ", ".join(f"{split} {count}" for split, count in self.counts.items())
        facts = {"get it from": self.url, "licence": self.licence, "samples": counts, "note": self.note}
        return "\n".join([*(f"{name:13} {fact}" for name, fact in facts.items() if fact), "", self.tree])
