"""Backbones from and to checkpoint files.

    python -m pretrain.checkpoints inspect FILE
    python -m pretrain.checkpoints export RUN_OR_FILE OUT.safetensors|OUT.pth
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from harness.checkpoint import load_file, save_file
from harness.errors import UserError, closest
from harness.files import write_atomically
from harness.program import run_program
from pretrain.formats.backbone_file import metadata_of
from pretrain.formats.base import FORMATS, CheckpointError, Encoder, Loaded, wrapper_length

__all__ = ["CheckpointError", "CheckpointInfo", "inspect_checkpoint", "load_backbone", "save_backbone"]

RUNS = Path("outputs")
_IN_RUN = ("backbone.safetensors", "checkpoints/backbone.safetensors", "checkpoints/last.pt")
_GUESSES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2",
    "resnet26", "resnet10t", "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224",
    "vit_small_patch8_224", "vit_base_patch8_224", "convnext_tiny", "convnext_small", "convnext_base",
)
"""Architectures that a file without a name is compared with."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds.

    Attributes:
        format: name of the layout.
        architecture: timm name, from the file or by comparison; none if nothing known fits.
        encoder_prefix: what the backbone's keys start with.
        matched: the backbone's keys that the architecture takes.
        missing: the architecture's keys that the file lacks or has in another shape.
        unexpected: the file's keys that the backbone does not take (heads, momentum encoders, queues, …).
    """

    format: str
    architecture: str | None
    encoder_prefix: str
    matched: list[str]
    missing: list[str]
    unexpected: list[str]


_OF_PYRAMIDS = ("feature_cls", "feature_location", "out_indices", "output_stride")
"""Options of timm's pyramids that many whole networks refuse; no tensor's shape depends on them."""


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
        source: a checkpoint file in any known format, a run's folder, or the name of a run in ``outputs``.
        architecture: timm name; by default what the file says, or the known architecture that fits it.
        features_only: return timm's feature pyramid instead of the whole network.
        min_matched: least share of the backbone's tensors that the file must have, 0 to 1.
        keep_classifier: load the classifier as well, with as many classes as the file has.
        timm_kwargs: more arguments of ``timm.create_model``.

    Returns:
        The model, in training mode; ``pretrained_cfg`` carries the file's mean, std and input size.

    Raises:
        CheckpointError: unreadable, of no known format, or not of this architecture.
    """
    path, format_name, encoder = _read(source)
    if architecture in (None, encoder.architecture):
        timm_kwargs = {**encoder.options, **timm_kwargs}
    architecture = architecture or encoder.architecture or _guess(encoder.state)
    if architecture is None:
        raise CheckpointError(
            f"{path} ('{format_name}') does not say its architecture and fits none of the known ones: name "
            "it (architecture=…, a timm name)"
        )
    if keep_classifier:
        timm_kwargs["num_classes"] = _classes(path, encoder.state, architecture)
    whole = {key: value for key, value in timm_kwargs.items() if not (features_only and key in _OF_PYRAMIDS)}
    model = _create(architecture, {"num_classes": 0, **whole})
    matched, missing, _ = _match(encoder, model.state_dict())
    needed = len(matched) + len(missing)
    if needed and len(matched) < min_matched * needed:
        raise CheckpointError(_mismatch(path, format_name, architecture, encoder, model, matched, missing))
    state = {key: encoder.state[key] for key in matched}
    if features_only:
        # timm renames the modules of a pyramid, so it has to load the whole network's weights itself.
        model = _create(
            architecture,
            {**timm_kwargs, "features_only": True, "pretrained": True,
             "pretrained_cfg_overlay": {"state_dict": state, "source": "", "hf_hub_id": None}},
        )
    else:
        model.load_state_dict(state, strict=False)  # what is missing was checked above
    convention = {key: encoder.pretrained_cfg[key] for key in ("mean", "std", "input_size")
                  if key in encoder.pretrained_cfg}
    known = dict(getattr(model, "pretrained_cfg", None) or timm.get_pretrained_cfg(architecture).to_dict())
    known.pop("state_dict", None)
    model.pretrained_cfg = model.default_cfg = {
        **known, "architecture": architecture, "options": dict(encoder.options), **convention
    }
    return model


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """Recognise a checkpoint and compare it with its architecture; nothing is built in memory.

    Args:
        path: as ``source`` of :func:`load_backbone`.

    Returns:
        Format, architecture, prefix and keys.

    Raises:
        CheckpointError: unreadable, or of no known format.
    """
    _, format_name, encoder = _read(path)
    architecture = encoder.architecture or _guess(encoder.state)
    if architecture is None:
        keys = [encoder.prefix + key for key in encoder.state]
        return CheckpointInfo(format_name, None, encoder.prefix, [], [], [*keys, *encoder.others])
    with torch.device("meta"):
        model = _create(architecture, {"num_classes": 0, **encoder.options})
    matched, missing, unexpected = _match(encoder, model.state_dict())
    return CheckpointInfo(format_name, architecture, encoder.prefix, matched, missing, unexpected)


def save_backbone(
    path: str | Path,
    model: nn.Module,
    architecture: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    input_size: tuple[int, int, int],
    metadata: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write a backbone as safetensors, atomically.

    Args:
        path: of the file.
        model: the backbone, a timm model; wrappers of data parallel or compile are left out of the names.
        architecture: its timm name.
        mean: of the channels that it was trained with, in [0, 1].
        std: of the channels that it was trained with, in [0, 1].
        input_size: (channels, height, width) that it was trained at.
        metadata: anything else to keep, as JSON.
        options: of the timm model, needed to build it again.

    Raises:
        UserError: the file cannot be written; a file that was there stays.
    """
    state = {
        key[wrapper_length(key) :]: value.detach().cpu().contiguous()
        for key, value in model.state_dict().items() if isinstance(value, Tensor)
    }
    content = save(state, metadata_of(architecture, options or {}, mean, std, input_size, metadata or {}))
    write_atomically(path, lambda file: file.write(_in_order(content)))


def content_digest(source: str | Path) -> str:
    """Hash of a checkpoint file: the same for the same bytes, wherever they lie.

    Args:
        source: as in :func:`load_backbone`.
    """
    digest = hashlib.blake2b()
    with open(_resolve(source), "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()[:20]


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in another order every time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _read(source: str | Path) -> tuple[Path, str, Encoder]:
    """Path, format name and encoder of a checkpoint."""
    path = _resolve(source)
    loaded = _read_file(path)
    formats = [(name, FORMATS.get(name)()) for name in FORMATS.names()]
    for name, known in sorted(formats, key=lambda entry: (entry[1].rank, entry[0])):
        if known.recognises(loaded):
            encoder = known.encoder(loaded)
            if encoder.state:
                return path, name, encoder
    top = ", ".join(map(str, list(loaded.content)[:6]))
    raise CheckpointError(
        f"{path} is in no known checkpoint format (top level: {top or 'empty'}): give a file of one of: "
        + ", ".join(FORMATS.names())
    )


def _resolve(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.exists() and (RUNS / path).is_dir():
        path = RUNS / path
    if path.is_file():
        return path
    if not path.is_dir():
        runs = [run.name for run in RUNS.iterdir()] if RUNS.is_dir() else []
        raise CheckpointError(
            f"there is no checkpoint {source}{closest(str(source), runs)}: give a file, a run's folder, or "
            f"the name of a run in {RUNS}/"
        )
    for name in _IN_RUN:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"the folder {path} holds no backbone ({', '.join(_IN_RUN)}): give the folder of a pretraining "
        "run that has saved one, or a checkpoint file"
    )


def _read_file(path: Path) -> Loaded:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return Loaded(path, {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    try:
        content = load_file(path)
    except UserError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint: give a state dict")
    return Loaded(path, content)


def _create(architecture: str, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(architecture):
        raise CheckpointError(
            f"timm has no model '{architecture}'{closest(architecture, timm.list_models())}: "
            "name one that it has"
        )
    try:
        return timm.create_model(architecture, **{"pretrained": False, **options})
    except (TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"timm cannot build '{architecture}' with these options: {reason}") from error


def _match(encoder: Encoder, wanted: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Keys of the model that the file has, keys that it lacks, and keys of the file left over."""
    matched, missing = [], []
    for key, value in wanted.items():
        if key in encoder.state and encoder.state[key].shape == value.shape:
            matched.append(key)
        elif not key.endswith("num_batches_tracked"):  # older files lack it, and nothing depends on it
            missing.append(key)
    taken = set(matched)
    unexpected = [encoder.prefix + key for key in encoder.state if key not in taken]
    return matched, missing, [*unexpected, *encoder.others]


def _classifier(architecture: str) -> str:
    name = timm.get_pretrained_cfg(architecture).classifier
    return name if isinstance(name, str) else (name or ("fc",))[0]


def _classes(path: Path, state: Mapping[str, Tensor], architecture: str) -> int:
    if not timm.is_model(architecture):
        _create(architecture, {})  # raises
    key = f"{_classifier(architecture)}.weight"
    if key not in state:
        raise CheckpointError(f"{path} has no classifier ({key}): load it without keep_classifier")
    return len(state[key])


@cache
def _shapes(architecture: str) -> dict[str, Tensor]:
    """State dict of an architecture without its classifier, as tensors without memory."""
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=0).state_dict()


def _guess(state: Mapping[str, Tensor]) -> str | None:
    """The first known architecture whose tensors are all that the state dict has, a classifier aside."""
    for name in filter(timm.is_model, _GUESSES):
        wanted = _shapes(name)
        matched, missing, _ = _match(Encoder(state), wanted)
        left = [key for key in state if key not in wanted and not key.startswith(f"{_classifier(name)}.")]
        if matched and not missing and not left:
            return name
    return None


def _mismatch(
    path: Path,
    format_name: str,
    architecture: str,
    encoder: Encoder,
    model: nn.Module,
    matched: list[str],
    missing: list[str],
) -> str:
    first = missing[0]
    if first in encoder.state:
        there, here = tuple(encoder.state[first].shape), tuple(model.state_dict()[first].shape)
        detail = f"{first} is {list(there)} there and {list(here)} in the model"
    else:
        detail = f"{first} is not in it"
    fits = encoder.architecture or _guess(encoder.state)
    advice = f"set the architecture to {fits}" if fits and fits != architecture else "give another checkpoint"
    return (
        f"{path} (closest known format: '{format_name}') does not fit '{architecture}': it has "
        f"{len(matched)} of {len(matched) + len(missing)} tensors of the backbone, and {detail}: {advice}"
    )


def _print_info(info: CheckpointInfo) -> None:
    def some(keys: list[str]) -> str:
        return f"{len(keys)}" + (f"  ({', '.join(keys[:4])}{', …' if len(keys) > 4 else ''})" if keys else "")

    rows = {
        "format": info.format, "architecture": info.architecture or "unknown",
        "encoder prefix": info.encoder_prefix or "none", "matched": str(len(info.matched)),
        "missing": some(info.missing), "unexpected": some(info.unexpected),
    }
    for name, value in rows.items():
        print(f"{name:<16}{value}")


def _export(source: str, target: str, architecture: str | None) -> None:
    model = load_backbone(source, architecture)
    if Path(target).suffix == ".safetensors":
        config = model.pretrained_cfg
        save_backbone(
            target, model, config["architecture"], config["mean"], config["std"], config["input_size"],
            {"source": str(source)}, model.pretrained_cfg["options"],
        )
    elif Path(target).suffix in (".pth", ".pt"):
        save_file(target, model.state_dict())
    else:
        raise CheckpointError(f"cannot export to {target}: name a file that ends in .safetensors or .pth")
    print(f"wrote {target}")


def main() -> int:
    """The command ``python -m pretrain.checkpoints``."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.checkpoints", description="Checkpoint files.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="say what a checkpoint holds")
    inspect.add_argument("file", help="checkpoint file, or a run's folder")
    export = commands.add_parser("export", help="write a checkpoint's backbone under timm's names")
    export.add_argument("file", help="checkpoint file, or a run's folder")
    export.add_argument("target", help="file to write, .safetensors or .pth")
    export.add_argument("--architecture", help="timm name, if the file does not say it")
    arguments = parser.parse_args()
    if arguments.command == "inspect":
        _print_info(inspect_checkpoint(arguments.file))
    else:
        _export(arguments.file, arguments.target, arguments.architecture)
    return 0


if __name__ == "__main__":
    run_program(main)
