"""Backbones from and to checkpoint files.

    python -m pretrain.checkpoints inspect FILE
    python -m pretrain.checkpoints export FILE TARGET.safetensors|TARGET.pth|TARGET.pkl
    python -m pretrain.checkpoints zoo [NAME]
    python -m pretrain.checkpoints fetch NAME [--sha256 HEX | --unverified]
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from harness.errors import closest
from harness.files import file_digests
from harness.program import run_program
from pretrain import zoo
from pretrain.backbone_file import save_backbone
from pretrain.describe import CheckpointInfo, describe, summary
from pretrain.exports import export_for
from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Loaded, Part
from pretrain.matching import (
    POSITIONS,
    Fit,
    checked_options,
    classifier_name,
    create,
    guess,
    match,
    mismatch,
    outline,
    resized_positions,
)
from pretrain.reading import read_file

__all__ = ["CheckpointError", "CheckpointInfo", "inspect_checkpoint", "load_backbone", "save_backbone"]

RUNS = Path("outputs")
_IN_RUN = ("backbone.safetensors", "checkpoints/backbone.safetensors", "checkpoints/last.pt")
_OF_PYRAMIDS = ("feature_cls", "feature_location", "out_indices", "output_stride")
"""Options of timm's pyramids that many whole networks refuse; no tensor's shape depends on them."""
_logger = logging.getLogger(__name__)


def load_backbone(
    source: str | Path,
    architecture: str | None = None,
    *,
    features_only: bool = False,
    min_matched: float = 1.0,
    keep_classifier: bool = False,
    **timm_kwargs: Any,
) -> nn.Module:
    """A timm model with the backbone of a checkpoint.

    Args:
        source: a checkpoint file in any known format, a run's folder, the name of a run in ``outputs``, or the
            name of a published backbone (``python -m pretrain.checkpoints zoo`` lists them).
        architecture: timm name; by default what the file says, or the known architecture that fits it.
        features_only: return timm's feature pyramid instead of the whole network.
        min_matched: least share of the backbone's tensors that the file must have, 0 to 1.
        keep_classifier: load the classifier as well, with as many classes as the file has.
        timm_kwargs: more arguments of ``timm.create_model``.

    Returns:
        The model, in training mode; ``pretrained_cfg`` carries the file's mean, std and input size, and
        ``load_report`` is the :class:`CheckpointInfo` of what was matched, missing and unexpected.

    Raises:
        CheckpointError: unreadable, of no known format, or not of this architecture.
    """
    if not 0 <= min_matched <= 1:
        raise CheckpointError(f"min_matched is {min_matched}: set the least share of the backbone's tensors, 0 to 1")
    if features_only and keep_classifier:
        raise CheckpointError("a feature pyramid has no classifier: leave features_only or keep_classifier out")
    opened = _open(source)
    plan = _plan(opened, architecture, timm_kwargs, keep_classifier, features_only)
    needed = len(plan.fit.matched) + len(plan.fit.missing)
    if needed and len(plan.fit.matched) < min_matched * needed:
        raise CheckpointError(mismatch(opened.path, opened.format, plan.architecture, opened.encoder, plan.wanted,
                                       plan.fit))
    state = {key: plan.state[key] for key in plan.fit.matched}
    _check_finite(opened.path, opened.encoder, state)
    if features_only:
        # timm renames the modules of a pyramid, so it has to load the whole network's weights itself.
        model = create(
            plan.architecture,
            {**plan.options, "features_only": True, "pretrained": True,
             "pretrained_cfg_overlay": {"state_dict": state, "source": "", "hf_hub_id": None}},
        )
    else:
        model = create(plan.architecture, plan.whole)
        model.load_state_dict(state, strict=False)  # what is missing was checked above
    known = dict(getattr(model, "pretrained_cfg", None) or timm.get_pretrained_cfg(plan.architecture).to_dict())
    known.pop("state_dict", None)
    model.pretrained_cfg = model.default_cfg = {
        **known, "architecture": plan.architecture, "options": dict(plan.own), **plan.convention
    }
    model.load_report = _info(opened, plan)
    if plan.fit.missing:
        _logger.warning("%s: %d of %d tensors of %s are not in it and stay random (%s, …)", opened.path,
                        len(plan.fit.missing), needed, plan.architecture, plan.fit.missing[0])
    return model


def inspect_checkpoint(path: str | Path, architecture: str | None = None) -> CheckpointInfo:
    """Recognise a checkpoint and compare it with its architecture; nothing is built in memory.

    Args:
        path: as ``source`` of :func:`load_backbone`.
        architecture: timm name to compare with; by default what the file says, or the known one that fits it.

    Returns:
        Format, architecture, prefix, keys, and what else is in it.

    Raises:
        CheckpointError: unreadable, or of no known format.
    """
    opened = _open(path)
    encoder = opened.encoder
    if architecture is None and encoder.architecture is None and guess(encoder) is None:
        keys = [encoder.name(key) for key in encoder.state]
        return CheckpointInfo(
            opened.format, None, encoder.prefix, [], [], [*keys, *encoder.others], path=opened.path,
            kind=opened.kind, values=_values(encoder), parts=encoder.parts, training=opened.training,
            input=encoder.pretrained_cfg,
        )
    return _info(opened, _plan(opened, architecture, {}))


def content_digest(source: str | Path) -> str:
    """Hash of a checkpoint file: the same for the same bytes, wherever they lie.

    Args:
        source: as in :func:`load_backbone`.
    """
    return file_digests(_resolve(source), ["blake2b"])["blake2b"][:20]


@dataclass(frozen=True)
class _Opened:
    """A file that was recognised. The rest of its content is let go, so queues and optimizers take no memory."""

    path: Path
    format: str
    encoder: Encoder
    kind: str
    training: dict[str, str]


@dataclass(frozen=True)
class _Plan:
    """What is to be built and loaded.

    Attributes:
        architecture: timm name.
        said_by: where it comes from, in words.
        own: options of the model that the weights need.
        options: the same and the user's.
        whole: those of the whole network, where the model is to be a pyramid of features.
        wanted: state dict of the whole network, without memory.
        state: of the file, resized, with its classifier if that is wanted.
        fit: of the two.
        convention: mean, std and input size.
        classes: of the file's classifier.
    """

    architecture: str
    said_by: str
    own: Mapping[str, Any]
    options: Mapping[str, Any]
    whole: Mapping[str, Any]
    wanted: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    fit: Fit
    convention: Mapping[str, Any]
    classes: int | None


def _plan(opened: _Opened, asked: str | None, timm_kwargs: Mapping[str, Any], keep_classifier: bool = False,
          features_only: bool = False) -> _Plan:
    architecture, said_by, own = _architecture(opened, asked)
    options = {**own, **timm_kwargs}
    encoder = opened.encoder
    state = dict(encoder.state)
    if not timm.is_model(architecture):
        create(architecture, {})  # raises
    head = classifier_name(architecture)
    if encoder.classifier and f"{head}.weight" not in state:
        state |= {f"{head}.{name}": value for name, value in encoder.classifier.items()}
    classifier = state.get(f"{head}.weight")
    classes = len(classifier) if classifier is not None and classifier.ndim == 2 else None
    if keep_classifier:
        if classes is None:
            raise CheckpointError(f"{opened.path} has no classifier ({head}.weight): load it without keep_classifier")
        options["num_classes"] = classes
    elif encoder.classifier:
        state = dict(encoder.state)
    whole = {"num_classes": 0,
             **{key: value for key, value in options.items() if not (features_only and key in _OF_PYRAMIDS)}}
    model = outline(architecture, whole)
    resized = resized_positions(state, model)
    wanted = model.state_dict()
    fit = match(replace(encoder, state={**state, **resized}), wanted, resized)
    default = timm.get_pretrained_cfg(architecture).to_dict()
    convention = {key: tuple(default[key]) for key in ("mean", "std", "input_size") if key in default}
    side = own.get("img_size")
    if isinstance(side, int):
        convention["input_size"] = (3, side, side)
    convention |= {key: encoder.pretrained_cfg[key] for key in ("mean", "std", "input_size")
                   if key in encoder.pretrained_cfg}
    return _Plan(architecture, said_by, own, options, whole, wanted, {**state, **resized}, fit, convention, classes)


def _architecture(opened: _Opened, asked: str | None) -> tuple[str, str, dict[str, Any]]:
    """Name of the architecture, where it comes from, and its options as far as the file tells them."""
    encoder = opened.encoder
    if encoder.architecture is not None:
        name, said_by = encoder.architecture, "said by the file"
        options = checked_options(encoder.options, opened.path)
    elif asked is not None and not encoder.options and POSITIONS not in encoder.state:
        return asked, "asked for", {}
    else:
        found = guess(encoder)
        if found is None and asked is None:
            raise CheckpointError(
                f"{opened.path} ('{opened.format}') does not say its architecture and fits none of the known ones: "
                "name it, as a timm name (architecture=… in Python, --architecture of programs)"
            )
        name = found.architecture if found else None
        said_by = "by the shapes of its tensors" if found and found.exact else "the most similar one"
        options = {**found.options, **encoder.options} if found else {}
    if asked is not None and asked.split(".")[0] != name:
        return asked, "asked for", {}
    return asked or name, said_by, options


def _check_finite(path: Path, encoder: Encoder, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that nothing can be computed with."""
    for key, value in state.items():
        try:
            sound = not value.is_floating_point() or bool(torch.isfinite(value).all())
        except (RuntimeError, NotImplementedError) as error:
            raise CheckpointError(f"{path}: {encoder.name(key)} is a tensor of a kind that holds no weights "
                                  f"({value.layout}, {value.dtype}): give another checkpoint") from error
        if not sound:
            raise CheckpointError(f"{path}: {encoder.name(key)} is not finite, so its training diverged or the file is "
                                  "damaged: give an earlier checkpoint")


def _values(encoder: Encoder) -> int:
    return sum(value.numel() for value in encoder.state.values())


def _info(opened: _Opened, plan: _Plan) -> CheckpointInfo:
    encoder = opened.encoder
    values, parts = _values(encoder), encoder.parts
    head = f"{classifier_name(plan.architecture)}."
    own = [key for key in encoder.state if key.startswith(head)] if plan.classes is not None else []
    if own:
        numbers = sum(encoder.state[key].numel() for key in own)
        values, parts = values - numbers, (*parts, Part("classifier", tuple(map(encoder.name, own)), numbers))
    return CheckpointInfo(
        opened.format, plan.architecture, opened.encoder.prefix, plan.fit.matched, plan.fit.missing,
        plan.fit.unexpected, plan.fit.resized, opened.path, opened.kind, plan.said_by, values,
        parts, plan.classes, plan.convention, opened.training,
    )


def _open(source: str | Path) -> _Opened:
    """Read a checkpoint and find the encoder in it."""
    path = _resolve(source)
    loaded = read_file(path)
    formats = [(name, FORMATS.get(name)()) for name in FORMATS.names()]
    for name, known in sorted(formats, key=lambda entry: (entry[1].rank, entry[0])):
        try:
            if known.recognises(loaded) and (encoder := known.encoder(loaded)).state:
                return _Opened(path, name, encoder, loaded.kind, summary(known.training(loaded)))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} looks like '{name}' and is not made like it ({type(error).__name__}: "
                                  f"{error}): it is damaged; fetch or write it again") from error
    raise CheckpointError(_unknown(path, loaded, formats))


def _unknown(path: Path, loaded: Loaded, formats: list[tuple[str, Any]]) -> str:
    top = ", ".join(map(str, list(loaded.content)[:6]))
    (share, lacking), near = max(((known.likeness(loaded), name) for name, known in formats),
                                 key=lambda entry: entry[0][0])
    closest_known = f"; the closest is '{near}', which also has {lacking}" if share >= 0.5 else ""
    return (f"{path} is in no known checkpoint format (top level: {top or 'empty'}{closest_known}): give a file of one "
            f"of: {', '.join(name for name, _ in formats)}")


def _resolve(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.exists() and (RUNS / path).is_dir():
        path = RUNS / path
    if path.is_file():
        return path
    if not path.is_dir():
        if str(source) in zoo.entries():
            return zoo.fetch(str(source))
        runs = [run.name for run in RUNS.iterdir()] if RUNS.is_dir() else []
        raise CheckpointError(
            f"there is no checkpoint {source}{closest(str(source), [*runs, *zoo.entries()])}: give a file, a run's "
            f"folder, the name of a run in {RUNS}/, or a name of python -m pretrain.checkpoints zoo"
        )
    for name in _IN_RUN:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"the folder {path} holds no backbone ({', '.join(_IN_RUN)}): give the folder of a pretraining "
        "run that has saved one, or a checkpoint file"
    )


def _export(source: str, target: str, architecture: str | None, classifier: bool = False) -> None:
    kind = export_for(target)
    model = load_backbone(source, architecture, keep_classifier=classifier)
    note = kind.write(Path(target), model, Path(source).name)
    config = model.pretrained_cfg
    print(f"wrote {target}: {config['architecture']}, {os.path.getsize(target) / 1e6:.1f} MB")
    if note:
        print(note)


def _print_zoo(name: str | None) -> None:
    known = zoo.entries()
    if name is not None and name not in known:
        raise CheckpointError(f"the zoo has no '{name}'{closest(name, known)}: see python -m pretrain.checkpoints zoo")
    rows = [("name", "architecture", "licence", "checked by", "published", "here")]
    for each, entry in known.items():
        rows.append((each, entry.architecture, entry.licence, entry.checked_by, entry.scores, _here(entry)))
    if name is None:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
        print("\n" + "\n".join((*_ZOO_NOTES, f"files: {next(iter(known.values())).path.parent}")))
        return
    entry = known[name]
    print(name)
    for what, value in (("address", entry.address), ("format", entry.format), ("architecture", entry.architecture),
                        ("licence", f"{entry.licence} (of the repository)"), ("checked by", entry.checked_by),
                        ("published", entry.scores), ("here", _here(entry)), ("file", entry.path)):
        print(f"  {what:<14}{value}")


_ZOO_NOTES = (
    "licence: of the authors' repository; none of them states another for the weights",
    "checked by: what the authors publish to tell their file; \"sha256 unknown\": it is fetched by the command fetch "
    "alone,\n            with --sha256 or --unverified, and what came then is checked from then on",
    "published: the authors' own figures; none was measured again",
    "addresses (zoo NAME) are those of the authors' pages, and may have moved since",
)


def _here(entry: zoo.Entry) -> str:
    if entry.path.is_file():
        return "yes"
    return "by hand" if entry.by_hand else "when used" if entry.digest.startswith("sha256:") else "by fetch"


def main() -> int:
    """The command ``python -m pretrain.checkpoints``."""
    arguments = _parser().parse_args()
    if arguments.command == "inspect":
        print(describe(inspect_checkpoint(arguments.file, arguments.architecture)))
    elif arguments.command == "export":
        _export(arguments.file, arguments.target, arguments.architecture, arguments.classifier)
    elif arguments.command == "fetch":
        print(zoo.fetch(arguments.name, sha256=arguments.sha256, unverified=arguments.unverified))
    else:
        _print_zoo(arguments.name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.checkpoints",
        description="Backbones in checkpoint files of other projects and of ours. No code in a file is ever run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="inspect|export|zoo|fetch")
    source = "checkpoint file of any known format, a run's folder or name, or a name of the zoo"
    inspect = commands.add_parser("inspect", help="say what a checkpoint holds and what of it would load",
                                  description="Say what a checkpoint holds and what of it would load.")
    inspect.add_argument("file", metavar="FILE", help=source)
    inspect.add_argument("--architecture", metavar="NAME", help="timm name to compare it with")
    export = commands.add_parser(
        "export", help="write a checkpoint's backbone for timm, torchvision or Detectron2",
        description="Write a checkpoint's backbone for other programs; the ending of TARGET chooses the kind: "
                    ".safetensors (timm's names, with architecture and input convention), .pth (a state dict of timm "
                    "and torchvision), .pkl (Detectron2, ResNets only).")
    export.add_argument("file", metavar="FILE", help=source)
    export.add_argument("target", metavar="TARGET", help="file to write: .safetensors, .pth or .pkl")
    export.add_argument("--architecture", metavar="NAME", help="timm name, if the file does not say it")
    export.add_argument("--classifier", action="store_true", help="write the classifier too (not to .pkl)")
    listing = commands.add_parser("zoo", help="list the published backbones that are known by name",
                                  description="List the published backbones that are known by name.")
    listing.add_argument("name", metavar="NAME", nargs="?", help="one of them, with its address")
    fetch = commands.add_parser("fetch", help="fetch a published backbone into the cache of torch's hub",
                                description="Fetch a published backbone into the cache of torch's hub, and check it.")
    fetch.add_argument("name", metavar="NAME", help="of the zoo")
    sure = fetch.add_mutually_exclusive_group()
    sure.add_argument("--sha256", metavar="HEX", help="what the file must have, from a source that you trust")
    sure.add_argument("--unverified", action="store_true", help="take what comes where no sha256 is published; it is "
                      "recorded, and checked from then on")
    return parser


if __name__ == "__main__":
    run_program(main)
