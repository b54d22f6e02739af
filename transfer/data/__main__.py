"""``python -m transfer.data``: what data sets there are, where to get them, and whether a folder is complete."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.about import list_data_sets, where_to_get
from harness.errors import UserError
from harness.files import write_atomically
from harness.program import run_program
from scenes.export_command import NAME, add_export_command, run_export_command
from transfer.data.base import DATASETS, open_data_set


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m transfer.data", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all data sets, their tasks and splits")
    where = commands.add_parser("where", help="where to get a data set, its licence and its folder")
    where.add_argument("name")
    check = commands.add_parser("check", help="say whether a folder is complete, or what is missing, by name")
    check.add_argument("name")
    check.add_argument("root", nargs="?", help="the folder; for manifest the table")
    check.add_argument("--options", default="{}", metavar="OPTIONS|FILE",
                       help="options of the data set, as '{val_count: 100}'; or a YAML or JSON file of them, which may "
                            "be a run's configuration, or for manifest say what the columns are")
    check.add_argument("--grid", metavar="FILE", help="picture of samples to write (default check_NAME.png)")
    check.add_argument("--samples", type=int, default=8, help="samples in the picture; 0: no picture")
    check.add_argument("--all", action="store_true", help="read every sample")
    add_export_command(commands)
    options = parser.parse_args()
    return {"list": _list, "where": _where, "check": _check, NAME: run_export_command}[options.command](options)


def _list(options: argparse.Namespace) -> int:
    print(list_data_sets({name: DATASETS.get(name) for name in DATASETS.names()}))
    return 0


def _where(options: argparse.Namespace) -> int:
    print(where_to_get(DATASETS.get(options.name)))
    return 0


def _check(options: argparse.Namespace) -> int:
    try:
        return _checked(options)
    except UserError as error:
        raise UserError(_as_options(str(error))) from error


def _checked(options: argparse.Namespace) -> int:
    from transfer.data import _check as checking
    from transfer.data.base import unlabelled

    name, known = options.name, list(inspect.signature(DATASETS.get(options.name)).parameters)
    given = _options(options.options, name, known)
    if options.root is not None:
        place = "file" if name == "manifest" else "root"
        if place not in known:
            raise UserError(f"data set '{name}' has no folder: leave it out")
        given[place] = options.root
    if "lacking" in known:
        given["lacking"] = "accept"  # all that is missing is to be named, not the first of it
    data = open_data_set(name, given)
    data.choose(_present(data))
    print("\n".join(checking.table(data)))
    remarks = [*data.remarks(), *(unlabelled(data.split(split), split, data.tasks) for split in data.splits)]
    for remark in (remarks := list(filter(None, remarks))):
        print(f"- {remark}")
    if options.all:
        for remark in checking.read_all(data):
            print(f"- {remark}")
            remarks.append(remark)
    if options.samples > 0:
        samples = checking.some_samples(data, options.samples)
        for sample in samples:
            checking.check_sample(sample, data)
        path = Path(options.grid or f"check_{name}.png")
        picture = checking.grid(samples, data.tasks)
        write_atomically(path, lambda file: picture.save(file, "PNG"))
        print(f"samples with their labels: {path}")
    missing = [remark for remark in remarks if "missing" in remark]
    published = any("published" in remark for remark in remarks)
    print("incomplete" if missing else "complete, though not as published" if published else
          "complete, with what is said above" if remarks else "complete")
    return 1 if missing else 0


def _present(data: Any) -> list[str]:
    """Tasks that some sample has a label of; those without any are among the remarks."""
    lacks = getattr(data, "missing", None)
    if lacks is None:
        return list(data.labels)
    found = [task for task in data.labels
             if all(len(lacks(split, task)) < len(data._names[split]) for split in data.splits)]
    if not found:
        raise UserError(f"{data.name}: there are images in {data.root} and no labels of any task: {data.hint}")
    return found


def _options(text: str, name: str, known: Sequence[str]) -> dict[str, Any]:
    """What ``--options`` says, or the file that it names: options, a run's configuration, or a table's columns."""
    path = os.path.expanduser(text)
    is_file = os.path.isfile(path)  # pathlib's raises for options that are too long for a name
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8") if is_file else text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--options {text} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise UserError(f"--options {text} must hold options, as '{{val_count: 100}}', or be a file that does")
    if is_file and isinstance(given.get("data"), dict) and "data" not in known:
        given = dict(given["data"])
        if given.pop("name", name) != name:
            raise UserError(f"--options {text}: it is the configuration of a run on another data set than {name}: "
                            "check that one, or give another file")
    elif is_file and "tasks" in known and not set(given) & set(known):
        given = {"tasks": given}
    return given


def _as_options(message: str) -> str:
    """A message for users of the mains in the words of this command."""
    message = re.sub(r"--data\.root DIR", "check NAME DIR", message)
    message = re.sub(r"--data\.file (FILE[.\w]*)", r"check manifest \1", message)
    message = re.sub(r"--data\.(\w+) (?:'([^']*)'|(\d+|accept))",
                     lambda found: f"--options '{{{found[1]}: {found[2] or found[3]}}}'", message)
    message = re.sub(r"--data\.(\w+)", r"--options '{\1: …}'", message)
    return re.sub(r"\bdata\.(root|file|tasks|sets|turns|share|of|options)\b", r"\1", message)


if __name__ == "__main__":
    run_program(main)
