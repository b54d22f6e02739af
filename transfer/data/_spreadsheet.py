"""The first sheet of an xlsx file as rows of text: no formulas, no styles, no library for them."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

from harness.errors import UserError

_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LARGEST = 64 * 2**20


def read_sheet(path: str | Path) -> list[list[str]]:
    """Rows of the first sheet; an empty cell is an empty text.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            shared = _shared(archive) if "xl/sharedStrings.xml" in names else []
            sheets = sorted(name for name in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name))
            return [_row(row, shared) for row in _parse(archive, sheets[0]).iter(f"{_SPACE}row")]
    except (OSError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError, ValueError, IndexError, KeyError,
            RuntimeError) as error:  # the last where it is encrypted, or packed in a way that is not known
        raise UserError(f"{path} cannot be read as a table ({error}): get the file again") from error


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is too large")
    content = archive.read(name)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{name} defines entities")
    return ElementTree.fromstring(content)


def _shared(archive: zipfile.ZipFile) -> list[str]:
    return ["".join(text.text or "" for text in entry.iter(f"{_SPACE}t"))
            for entry in _parse(archive, "xl/sharedStrings.xml").iter(f"{_SPACE}si")]


def _row(row: ElementTree.Element, shared: list[str]) -> list[str]:
    cells: list[str] = []
    for cell in row.iter(f"{_SPACE}c"):
        column = _column(cell.get("r", ""))
        if column > 16384:
            raise ValueError("a column is out of range")
        if column > len(cells):
            cells += [""] * (column - len(cells))
        value = cell.find(f"{_SPACE}v")
        text = (value.text or "") if value is not None else ""
        if cell.get("t") == "s" and text:
            text = shared[int(text)]
        elif cell.get("t") == "inlineStr":
            text = "".join(part.text or "" for part in cell.iter(f"{_SPACE}t"))
        cells.append(text.strip())
    return cells


def _column(reference: str) -> int:
    """Number from 0 of a cell such as ``C7``; −1 where it does not say."""
    number = 0
    for letter in re.match(r"[A-Z]*", reference)[0]:
        number = number * 26 + ord(letter) - 64
    return number - 1
