"""Reading of the tables that a user gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import UserError


def read_lines(path: str | Path, what: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, without those that are empty or begin with #.

    Args:
        path: of the file.
        what: the option that named it.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(Path(path).expanduser(), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\r\n")
                if line.strip() and not line.startswith("#"):
                    yield number, line
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what}: {path} is not a text file in UTF-8") from error


def read_columns(path: str | Path, what: str, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines, each with as many columns, separated by tabs.

    Raises:
        UserError: a line has another number of columns.
    """
    for number, line in read_lines(path, what):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != columns:
            raise UserError(f"{what}: line {number} of {path} has {len(cells)} columns: {columns}, separated by tabs, "
                            "are expected")
        yield number, cells


def plain(name: str) -> str:
    """A name as it is compared: lower case, one space between words."""
    return " ".join(name.replace("_", " ").lower().split())


def read_terms(path: str | None) -> dict[str, str]:
    """What class names are called in a table: ``class name<TAB>term``, where that is something else."""
    return {} if path is None else {plain(name): term for _, (name, term) in
                                    read_columns(path, "classifier.terms", 2)}


def candidates(name: str, terms: Mapping[str, str], extra: Sequence[str] = ()) -> list[str]:
    """What to look a class up by, best first: what the user calls it, or else an id, the name, and its synonyms."""
    if plain(name) in terms:
        return [plain(terms[plain(name)])]
    parts = [plain(part) for part in name.split(",")]
    return list(dict.fromkeys([*map(plain, extra), plain(name), *parts]))


def words(name: str) -> list[str]:
    """The words that a name is made of."""
    return re.findall(r"[^\W_]+", name.lower())
