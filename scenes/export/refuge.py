"""The layout of REFUGE."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

_FOLDERS = {
    "train": ("Training400", "Annotation-Training400", "Fovea_location.xlsx"),
    "val": ("REFUGE-Validation400", "REFUGE-Validation400-GT", "Fovea_locations.xlsx"),
    "test": ("Test400", "REFUGE-Test-GT", "Glaucoma_label_and_Fovea_location.xlsx"),
}
_SPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@LAYOUTS.register("refuge")
class RefugeLayout(Layout):
    """The disc is what is salient, the cup its part in the upper half; every fourth scene has glaucoma."""

    splits = ("train", "val", "test")
    size = (96, 96)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: dict[str, list[tuple]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        images, labels, _ = _FOLDERS[split]
        sick = glaucoma(number)
        kind = ("Non-Glaucoma/", "Glaucoma/")[sick] if split == "train" else ""
        name = f"{('n', 'g')[sick] if split == 'train' else split[0].upper()}{number + 1:04d}"
        self.jpeg(f"{images}/{kind}{name}.jpg", view["image"])
        self.image(f"{labels}/Disc_Cup_Masks/{kind}{name}.bmp", mask(view))
        self.rows[split].append((f"{name}.jpg", *fovea(number, view), sick))

    def finish(self) -> None:
        for split, rows in self.rows.items():
            _, labels, file = _FOLDERS[split]
            head = ("ID", "ImgName", "Fovea_X", "Fovea_Y") + (() if split == "train" else ("Glaucoma Label",))
            cells = [(place + 1, *row)[: len(head)] for place, row in enumerate(rows)]
            self.path(f"{labels}/{file}").write_bytes(_workbook([head, *cells]))


def glaucoma(number: int) -> int:
    """Whether a sample has it."""
    return int(number % 4 == 1)


def mask(view: View) -> np.ndarray:
    """0 cup, 128 disc, 255 neither."""
    upper = np.arange(len(view["saliency"]))[:, None] < len(view["saliency"]) // 2
    return np.where(view["saliency"] == 0, 255, np.where(upper, 0, 128)).astype(np.uint8)


def fovea(number: int, view: View) -> tuple[float, float]:
    """A point (x, y) in pixels; every fifth sample has none, (0, 0)."""
    height, width = view["saliency"].shape
    if number % 5 == 4:
        return 0.0, 0.0
    return width * (0.3 + 0.1 * (number % 4)) + 0.25, height * (0.6 - 0.1 * (number % 3)) + 0.5


def _workbook(rows: list[tuple]) -> bytes:
    """The least that is an xlsx file: one sheet, texts shared; the same bytes every time."""
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str)})
    body = []
    for number, row in enumerate(rows, 1):
        cells = "".join(
            f'<c r="{chr(65 + place)}{number}" t="s"><v>{texts.index(cell)}</v></c>' if isinstance(cell, str)
            else f'<c r="{chr(65 + place)}{number}"><v>{cell!r}</v></c>' for place, cell in enumerate(row))
        body.append(f'<row r="{number}">{cells}</row>')
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "xl/sharedStrings.xml": f'<sst xmlns="{_SPACE}">'
                                + "".join(f"<si><t>{escape(text)}</t></si>" for text in texts) + "</sst>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_SPACE}"><sheetData>{"".join(body)}</sheetData></worksheet>',
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), f'<?xml version="1.0" encoding="UTF-8"?>\n{content}')
    return buffer.getvalue()
