"""What is written of a subset: the list, the counts of its classes, how it was made, and a drawing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import write_atomically, write_text
from harness.report import pyplot, save_figure
from pretrain.manifests.subsets import Subset

FORMAT = "tasklift-manifest/1"


def write_subset(subset: Subset, output: str | Path, source: str) -> list[Path]:
    """Write ``NAME.txt`` (the list), ``NAME.counts.csv``, ``NAME.json`` and ``NAME.png``.

    The list and the two tables are the same bytes for the same images, options and seed, on every machine.

    Args:
        subset: to write.
        output: path of the list.
        source: fingerprint of the images that it was taken from.

    Returns:
        The paths, in that order.

    Raises:
        UserError: there already is another list of that name, or nothing can be written.
    """
    path = Path(output).expanduser()
    if path.suffix in ("", ".csv", ".json", ".png"):
        raise UserError(f"--output is {output}: name a list with a suffix of its own, {path.with_suffix('.txt').name} "
                        "for example")
    content = b"".join(os.fsencode(image) + b"\n" for image in subset.images)
    try:
        differs = path.exists() and path.read_bytes() != content
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}: choose another --output") from error
    if differs:
        raise UserError(f"{path} already holds another list: choose another --output, or remove it")
    table, facts, picture = (path.with_suffix(suffix) for suffix in (".counts.csv", ".json", ".png"))
    write_atomically(path, lambda file: file.write(content))
    write_atomically(table, lambda file: file.write(os.fsencode(_table(subset))))
    write_text(facts, json.dumps(_facts(subset, content, source), indent=2, sort_keys=True) + "\n")
    draw_counts(subset, picture)
    return [path, table, facts, picture]


def draw_counts(subset: Subset, path: Path) -> Path:
    """Draw the counts of the classes, the largest first, the law, and what each class has."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    names = _ranked(subset)
    ranks = range(1, len(names) + 1)
    axis.plot(ranks, [subset.available[name] for name in names], ".", markersize=2, color="0.75", label="available")
    axis.step(ranks, [subset.counts[name] for name in names], where="mid", linewidth=1.6, label="taken")
    if subset.law:
        axis.plot(ranks, [subset.law[name] for name in names], "--", linewidth=1, color="black",
                  label=f"Pareto, α = {subset.options['alpha']:g}")
    if max(subset.available.values()) > 20:
        axis.set_yscale("symlog", linthresh=10)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("class, by its number of images")
    axis.set_ylabel("images")
    axis.set_title(f"{subset.kind}: {len(subset.images)} images, {len(names)} classes, seed {subset.options['seed']}",
                   fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def _ranked(subset: Subset) -> list[str]:
    return sorted(subset.counts, key=lambda name: (-subset.counts[name], -subset.law.get(name, 0), os.fsencode(name)))


def _table(subset: Subset) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "images", "available", *(["law"] if subset.law else [])])
    for name in _ranked(subset):
        law = [f"{subset.law[name]:.3f}"] if subset.law else []
        writer.writerow([name, subset.counts[name], subset.available[name], *law])
    return text.getvalue()


def _facts(subset: Subset, content: bytes, source: str) -> dict[str, Any]:
    counts = sorted(subset.counts.values(), reverse=True)
    return {
        "format": FORMAT, "kind": subset.kind, "images": len(subset.images), "classes": len(counts),
        "options": subset.options, "largest_class": counts[0], "median_class": counts[len(counts) // 2],
        "smallest_class": counts[-1], "source": source, "sha256": hashlib.sha256(content).hexdigest(),
    }
