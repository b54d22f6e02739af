"""What is known about a published data set before anything is read."""

from __future__ import annotations

import inspect
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


def _words(kind: type) -> str:
    """What a class says of itself before its arguments, without the markup of code."""
    return (inspect.getdoc(kind) or "").split("\n\nArgs:")[0].replace("``", "")


def list_data_sets(kinds: Mapping[str, type]) -> str:
    """A line for each data set: its name, and its title or what its class says first.

    Args:
        kinds: classes of data sets with an attribute ``about``, by name.
    """
    width = max(map(len, kinds))
    titles = {name: kind.about.title if kind.about else _words(kind).split("\n")[0] for name, kind in kinds.items()}
    return "\n".join(f"{name.ljust(width)}  {title}" for name, title in titles.items())


def where_to_get(kind: type) -> str:
    """What a data set is, where to get it, its licence and its folder."""
    return f"{_words(kind)}\n\n{kind.about.text() if kind.about else 'Nothing to get.'}"
