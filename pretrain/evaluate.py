"""Measure what frozen backbones know: ``python -m pretrain.evaluate --checkpoint FILE --tasks '[knn, linear]'``.

    python -m pretrain.evaluate --checkpoint '[FILE, RUN, random:resnet50]' --tasks '[knn, linear, segment_retrieval]'
        [--data.name scenes|folder|voc|davis|… --data.root DIR] [--output DIR]
    python -m pretrain.evaluate compare DIR… [--markdown FILE] [--latex FILE] [--report FILE]
    python -m pretrain.evaluate data list | where NAME | check NAME ROOT | export-scenes --as NAME DIR
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import locked, write_text
from harness.program import run_program
from harness.table import add_table_options


def main() -> int:
    """The command ``python -m pretrain.evaluate``."""
    if sys.argv[1:2] == ["compare"]:
        return compare(sys.argv[2:])
    if sys.argv[1:2] == ["data"]:
        from pretrain.evaluation.data_program import data_program

        return data_program(sys.argv[2:])
    from harness.config import load
    from pretrain.evaluation.config import EvaluationConfig

    config = load(EvaluationConfig, prog="python -m pretrain.evaluate")
    folder = Path(config.output).expanduser()
    _own(folder)
    with locked(folder / ".lock", wait=False, held=f"{folder} is in use by another evaluation: wait for it, or choose "
                                                   "another --output"):
        return evaluate(config, folder)


def evaluate(config: Any, folder: Path) -> int:
    """Make the measurements that a folder has not yet, and write its table and report.

    Args:
        config: a :class:`pretrain.evaluation.config.EvaluationConfig`.
        folder: where they go.

    Raises:
        UserError: a checkpoint, a protocol or the data is not as it should be; what can be measured is measured all the
            same.
    """
    import torch

    from harness.seeding import set_threads
    from pretrain.evaluation.collection import build_table, read_measurements, write_results
    from pretrain.evaluation.features import Features
    from pretrain.evaluation.report import write_evaluation_report

    set_threads(config.threads)
    device = _device(config.device)
    protocols = {name: chosen.build() for name, chosen in config.tasks.items()}
    data = config.data.build() if any(protocol.needs for protocol in protocols.values()) else None
    for name, protocol in protocols.items():
        if protocol.needs:
            data.require(protocol.needs, name)
    subjects = _subjects(config, any(protocol.backbone for protocol in protocols.values()))
    kinds = dict.fromkeys(protocol.needs for protocol in protocols.values() if protocol.needs)
    fingerprints = {kind: data.fingerprint_for(kind) for kind in kinds}  # which may read a folder, so not for each
    made, paths, failed = 0, {}, []
    for subject in [*subjects, None]:  # a backbone is built once for all its protocols, and then let go
        features = Features(subject, config.features, device, config.workers) if subject else None
        for name, protocol in protocols.items():
            if protocol.backbone != bool(subject):
                continue
            try:
                paths[name, subject and subject.label], found = _measurement(
                    config, folder, name, protocol, features, data if protocol.needs else None,
                    fingerprints.get(protocol.needs))
            except UserError as error:  # the others are not lost for it
                failed.append(error)
                continue
            made += found
    asked = [paths[place] for name, protocol in protocols.items()
             for place in ([(name, subject.label) for subject in subjects] if protocol.backbone else [(name, None)])
             if place in paths]
    if not asked:
        raise failed[0]
    if device.type == "cuda":
        torch.cuda.empty_cache()
    known = [json.loads(path.read_text()) for path in asked]
    earlier = read_measurements([folder])
    kept = [m for m in earlier if m["id"] not in {new["id"] for new in known}]
    write_results(folder, [*kept, *known])
    everything = read_measurements([folder])
    write_evaluation_report(folder / "report.html", everything, f"Evaluation {folder.name}")
    print(build_table(known).text())
    if made < len(asked):
        print(f"{len(asked) - made} of {len(asked)} measurements were in {folder} already")
    print(f"report: {folder / 'report.html'}")
    for error in failed[1:]:
        print(f"not measured: {error}")
    if failed:
        raise failed[0]
    return 0


def compare(argv: list[str]) -> int:
    """The command ``python -m pretrain.evaluate compare``."""
    from pretrain.evaluation.collection import build_table, read_measurements
    from pretrain.evaluation.report import write_evaluation_report

    parser = argparse.ArgumentParser(prog="python -m pretrain.evaluate compare",
                                     description="Put the measurements of several evaluations side by side.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of evaluations")
    add_table_options(parser, "the table and all pictures")
    arguments = parser.parse_args(argv)
    measurements = read_measurements(arguments.folders)
    table = build_table(measurements)
    print(table.text())
    table.write(arguments.markdown, arguments.latex)
    if arguments.report:
        write_evaluation_report(Path(arguments.report), measurements, "Comparison")
        print(f"report: {arguments.report}")
    return 0


def _own(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strange = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot use the folder {folder}: {error.strerror}: choose another --output") from error
    if strange and "measurements" not in strange:
        raise UserError(f"the folder {folder} holds {sorted(strange)[0]!r} and is not an evaluation: choose another "
                        "--output")


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(". ")[0][:120]
        raise UserError(f"--device {name}: {reason}: choose auto, cpu, or a device of this machine") from error
    return device


def _subjects(config: Any, needed: bool) -> list[Any]:
    from pretrain.evaluation.subject import Subject

    sources = [config.checkpoint] if isinstance(config.checkpoint, str) else list(config.checkpoint)
    if not sources and needed:
        raise UserError("no checkpoint is given: name one with --checkpoint FILE, or '[FILE, RUN, random:resnet50]'")
    labels = list(config.labels) or [""] * len(sources)
    if len(labels) != len(sources):
        raise UserError(f"there are {len(labels)} labels for {len(sources)} checkpoints: give one for each, or none")
    subjects = [Subject(source, label, config.architecture, config.seed)
                for source, label in zip(sources, labels, strict=True)]
    names = [subject.label for subject in subjects]
    for subject in subjects:
        if names.count(subject.label) > 1:
            raise UserError(f"two checkpoints would be called '{subject.label}': give names with --labels "
                            f"'[{', '.join(f'name{i + 1}' for i in range(len(names)))}]'")
    digests = {}
    for subject in subjects:
        if (same := digests.setdefault(subject.digest, subject)) is not subject:
            raise UserError(f"checkpoints {same.label} and {subject.label} have the same content: name one of them")
    return subjects


def _measurement(config: Any, folder: Path, name: str, protocol: Any, features: Any, data: Any,
                 fingerprint: str | None) -> tuple[Path, bool]:
    """The file of a measurement, and whether it had to be made; ``features`` and ``data`` where it looks at them."""
    import dataclasses

    from harness.config import digest, identity
    from harness.run import encode
    from pretrain.evaluation.collection import MEASUREMENTS

    subject = features.subject if features else None
    # not the paths: the content of the weights and of the images counts
    about: dict[str, Any] = {
        "protocol": name, "options": config.tasks[name].options, "seed": config.seed,
        "data": config.data.name if data else None, "fingerprint": fingerprint,
        "digest": subject.digest if subject else None,
        "features": identity(config.features) if subject else None,
    }
    if (inputs := protocol.inputs()) is not None:
        about["inputs"] = inputs
    key = digest(about)
    label = subject.label if subject else ""
    place = folder / MEASUREMENTS / f"{name}-{key}"
    path = place / "measurement.json"
    if path.exists():
        if (known := json.loads(path.read_text()))["checkpoint"] != label:
            write_text(path, encode({**known, "checkpoint": label}, indent=2) + "\n")
        return path, False
    print(f"{name}{f' of {label}' if label else ''}{f' on {config.data.name}' if data else ''} …", flush=True)
    place.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        finding = protocol.measure(features, data, place, config.seed)
    except UserError:
        with suppress(OSError):
            place.rmdir()
        raise
    if data:
        finding.remarks += data.remarks()
    found = {
        "id": key, "checkpoint": label, "source": subject.source if subject else None,
        "architecture": features.model.pretrained_cfg.get("architecture") if subject else None, **about,
        "seen": data.size_for(protocol.needs) if data else None,
        "columns": {metric: heading for metric, heading in protocol.columns.items() if metric in finding.metrics},
        "descriptive": sorted(protocol.descriptive),
        **dataclasses.asdict(finding), "seconds": time.perf_counter() - start,
        "figures": [(str(file.relative_to(folder)), caption) for file, caption in finding.figures],
        "files": [(str(file.relative_to(folder)), what) for file, what in finding.files],
    }
    write_text(path, encode(found, indent=2) + "\n")
    figures = [f"{heading} {finding.metrics[metric]:.1f}" for metric, heading in found["columns"].items()
               if finding.metrics[metric] is not None]
    if figures:
        print(f"  {', '.join(figures)}", flush=True)
    return path, True


if __name__ == "__main__":
    run_program(main)
