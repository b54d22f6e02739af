"""Writing of our backbone files: safetensors, the same bytes for the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from harness.files import write_atomically
from pretrain.formats.backbone_file import metadata_of
from pretrain.formats.base import bare


def save_backbone(
    path: str | Path,
    model: nn.Module | Mapping[str, Tensor],
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
        model: the backbone, a timm model, or its state; wrappers of data parallel or compile are left out of the names.
        architecture: its timm name.
        mean: of the channels that it was trained with, in [0, 1].
        std: of the channels that it was trained with, in [0, 1].
        input_size: (channels, height, width) that it was trained at.
        metadata: anything else to keep, as JSON.
        options: of the timm model, needed to build it again.

    Raises:
        UserError: the file cannot be written; a file that was there stays.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    state = {bare(key): value.detach().cpu().contiguous() for key, value in state.items() if isinstance(value, Tensor)}
    content = save(state, metadata_of(architecture, options or {}, mean, std, input_size, metadata or {}))
    write_atomically(path, lambda file: file.write(_in_order(content)))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in another order every time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
