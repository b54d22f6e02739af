"""``python -m pretrain.evaluate data``: what sets of labelled images there are, and whether a folder is complete."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from harness.about import list_data_sets, where_to_get
from harness.config import Selection, load, selection
from harness.errors import UserError
from harness.files import write_atomically
from pretrain.evaluation.labelled import LABELLED
from scenes.export_command import NAME, add_export_command, run_export_command

PROGRAM = "python -m pretrain.evaluate data"


@dataclass
class CheckConfig:
    """Say whether the folder of a set of labelled images is complete, or what is missing, by name.

    Args:
        data: labelled images; 'check NAME ROOT' stands for --data.name NAME --data.root ROOT.
        plugin: Python files that register something of yours.
        samples: images and labels of each split, and frames of each video, that are read, spread over it.
        all: read every image, frame and label.
        grid: picture of the samples that is written, PNG; check_NAME.png when none.
    """

    data: Selection = selection(LABELLED, "scenes", help="labelled images")
    plugin: list[str] = field(default_factory=list)
    samples: int = 8
    all: bool = False
    grid: str | None = None


def data_program(argv: list[str]) -> int:
    """The command ``python -m pretrain.evaluate data``."""
    if argv[:1] == ["check"]:
        return _check(argv[1:])
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all sets of labelled images, their kinds of labels and splits")
    where = commands.add_parser("where", help="where to get a set, its licence and its folder")
    where.add_argument("name")
    commands.add_parser("check", help="say whether a folder is complete: check NAME [ROOT] [--data.OPTION VALUE …]")
    add_export_command(commands)
    options = parser.parse_args(argv)
    return {"list": _list, "where": _where, NAME: run_export_command}[options.command](options)


def _list(options: argparse.Namespace) -> int:
    print(list_data_sets({name: LABELLED.get(name) for name in LABELLED.names()}))
    return 0


def _where(options: argparse.Namespace) -> int:
    print(where_to_get(LABELLED.get(options.name)))
    return 0


def _check(argv: list[str]) -> int:
    places = []
    while argv and not argv[0].startswith("-") and len(places) < 2:
        places.append(argv.pop(0))
    named = [f"--data.{option}={value}" for option, value in zip(("name", "root"), places, strict=False)]
    config = load(CheckConfig, [*named, *argv], prog=f"{PROGRAM} check")
    if config.samples < 0:
        raise UserError(f"samples is {config.samples}: set it to 0 or more")
    from pretrain.evaluation import data_check as checking
    from pretrain.evaluation.spread import spread

    name, data = config.data.name, config.data.build()
    print("\n".join(checking.table(data)))
    remarks = data.remarks()
    for remark in remarks:
        print(f"- {remark}")
    chosen = {split: spread(len(data.split(split)), config.samples) for split in data.splits}
    checking.read(data, None if config.all else chosen, None if config.all else config.samples)
    if config.samples and data.splits:
        path = config.grid or f"check_{name}.png"
        picture = checking.grid(data, chosen)
        write_atomically(path, lambda file: picture.save(file, "PNG"))
        print(f"images with their labels: {path}")
    print("complete, though not as published" if remarks else "complete")
    return 0
