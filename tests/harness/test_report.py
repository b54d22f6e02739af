from __future__ import annotations

import base64
import re

from harness.report import Curves, Section, write_report


def test_a_page_opens_offline_and_escapes(tmp_path):
    figure = Curves({"loss": {"a": ([1, 2, 3], [3.0, 2.0, 1.0]), "b": ([1], [2.0])}, "none": {"c": ([], [])}}).draw(
        tmp_path / "figures" / "curves.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    path = tmp_path / "report.html"
    write_report(path, "Run <1>", [
        Section("Table & more", text=["a < b"], header=("x", "y"), rows=[("<b>", 1)], figures=[(figure, "Curves")]),
        Section("Configuration", code="name: <script>alert(1)</script>"),
    ], lead="lead & all")
    page = path.read_text(encoding="utf-8")
    assert "Run &lt;1&gt;" in page and "&lt;script&gt;" in page and "<script" not in page and "<b>" not in page
    figure.unlink()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert base64.b64decode(sources[0].split(",")[1]).startswith(b"\x89PNG")
    assert not re.search(r"https?://|@import|url\(", page)


def test_curves_without_any_line(tmp_path):
    assert Curves({}).draw(tmp_path / "empty.png").exists()
