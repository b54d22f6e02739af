"""What is known about a published data set before anything is read."""

from __future__ import annotations

import inspect
import re
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
    """A line for each data set: its name, its title or what its class says first, its splits, what labels it has.

    Args:
        kinds: classes of data sets with attributes ``about``, ``splits`` and ``holds``, by name; where splits were
            published under other names, ``published`` says which.
    """
    rows = [(name, kind.about.title if kind.about else re.split(r"[,;:.]", _words(kind))[0], _splits(kind), kind.holds)
            for name, kind in kinds.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def _splits(kind: type) -> str:
    """Splits, with the samples that were published."""
    counts = kind.about.counts if kind.about else {}
    published = getattr(kind, "published", None) or {split: split for split in counts or kind.splits}
    return ", ".join(f"{own} {counts.get(split, '')}".rstrip() for own, split in published.items())


def where_to_get(kind: type) -> str:
    """What a data set is, where to get it, its licence and its folder."""
    return f"{_words(kind)}\n\n{kind.about.text() if kind.about else 'Nothing to get.'}"
