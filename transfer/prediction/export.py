"""A network as one file that other programs run."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.files import write_atomically
from transfer.network import Network

TOLERANCE = {".pt2": 1e-4, ".onnx": 1e-3}
"""Largest difference that a file may show from the network, relative to the largest value of a task (at least 1)."""


class Exported(nn.Module):
    """What a model file computes: uint8 images ``[B, C, H, W]`` to the raw prediction of each task, in order.

    Logits where the task is about classes, values otherwise; dense ones at the images' size.

    Args:
        network: with its weights.
        tasks: names, in the order of the outputs.
    """

    def __init__(self, network: Network, tasks: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = network.model, list(tasks)
        self.register_buffer("mean", network.mean.detach().clone())
        self.register_buffer("std", network.std.detach().clone())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        predictions = self.model((images.float() / 255 - self.mean) / self.std, self.names).predictions
        return tuple(predictions[name] for name in self.names)


def export(network: Network, tasks: Sequence[str], path: Path, size: tuple[int, int], channels: int) -> str:
    """Write a model file, checked: what is read back gives the network's numbers on random images, or nothing is kept.

    Args:
        network: with its weights.
        tasks: names, in the order of the outputs.
        path: ending in ``.pt2`` (torch.export) or ``.onnx``.
        size: height and width of the images that the check is made with.
        channels: of the images.

    Returns:
        One line about the file.

    Raises:
        UserError: the network cannot be exported, a library is missing, or the numbers differ.
    """
    suffix = path.suffix.lower()
    if suffix not in TOLERANCE:
        raise UserError(f"{path}: a model file ends in {' or '.join(TOLERANCE)}")
    module = Exported(network, tasks).cpu().eval()
    draw = torch.Generator().manual_seed(0)

    def images(batch: int, height: int, width: int) -> Tensor:
        return torch.randint(0, 256, (batch, channels, height, width), generator=draw, dtype=torch.uint8)

    example = images(2, *size)
    with torch.no_grad(), _quiet():
        content, run = (_onnx if suffix == ".onnx" else _torch)(module, example, path)
        worst = _difference(module, run, images(2, *size), TOLERANCE[suffix], path)
        other = size[0] + 32, size[1] + 64
        try:
            _difference(module, run, images(1, *other), TOLERANCE[suffix], path)
            sizes = "images of any number and size"
        except Exception:  # a runtime raises whatever it likes for a shape that it does not take
            try:
                _difference(module, run, images(1, *size), TOLERANCE[suffix], path)
                sizes = f"any number of images of {size[0]} × {size[1]}"
            except Exception:
                sizes = f"batches of 2 images of {size[0]} × {size[1]}"
    write_atomically(path, lambda file: file.write(content))
    return (f"{path}: {', '.join(tasks)} of uint8 images [B, {channels}, H, W] ({sizes}); "
            f"{len(content) / 2**20:.1f} MiB; differs from the network by {worst:.1e} at most "
            f"(allowed {TOLERANCE[suffix]:g})")


Runner = Callable[[Tensor], list[np.ndarray]]


def _torch(module: nn.Module, example: Tensor, path: Path) -> tuple[bytes, Runner]:
    """A ``torch.export`` archive, and what runs it."""
    program = _program(module, example, path)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    return buffer.getvalue(), lambda images: [value.numpy() for value in loaded(images)]


def _program(module: nn.Module, example: Tensor, path: Path) -> torch.export.ExportedProgram:
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    first: Exception | None = None
    for shapes in (free, {0: torch.export.Dim.AUTO}, None):
        try:
            return torch.export.export(module, (example,), dynamic_shapes=(shapes,) if shapes else None, strict=False)
        except Exception as error:  # tracing raises whatever the network's code meets
            first = first or error
    raise UserError(f"{path}: this network cannot be exported ({' '.join(str(first).split())[:200]})")


def _onnx(module: nn.Module, example: Tensor, path: Path) -> tuple[bytes, Runner]:
    """An ONNX model, and what runs it."""
    missing = [name for name in ("onnx", "onnxscript") if not _installed(name)]
    if missing:
        raise UserError(f"{path}: writing ONNX needs {' and '.join(missing)}: 'pip install onnx onnxscript "
                        "onnxruntime' (or --export for torch's own format, which needs nothing)")
    names = module.names
    try:
        made = torch.onnx.export(_program(module, example, path), (example,), dynamo=True, input_names=["images"],
                                 output_names=names, verbose=False)
    except UserError:
        raise
    except Exception as error:  # the converter raises whatever it meets
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: this network cannot be written as ONNX ({reason})") from error
    content = made.model_proto.SerializeToString()
    if _installed("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return content, lambda images: session.run(names, {"images": images.numpy()})
    from onnx.reference import ReferenceEvaluator

    reference = ReferenceEvaluator(made.model_proto)
    return content, lambda images: reference.run(names, {"images": images.numpy()})


def _difference(module: nn.Module, run: Runner, images: Tensor, allowed: float, path: Path) -> float:
    """Largest difference between the network and its file, relative to the largest value of a task.

    Raises:
        UserError: it is more than is allowed.
    """
    worst = 0.0
    for name, expected, got in zip(module.names, module(images), run(images), strict=True):
        expected = expected.numpy()
        if expected.shape != got.shape:
            raise UserError(f"{path}: the file's '{name}' has shape {got.shape}, the network's {expected.shape}")
        worst = max(worst, float(np.abs(expected - got).max() / max(1.0, float(np.abs(expected).max()))))
    if not worst <= allowed:
        raise UserError(f"{path}: the file's numbers differ from the network's by {worst:.1e}, and {allowed:g} is "
                        "allowed: it was not kept")
    return worst


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


@contextlib.contextmanager
def _quiet():
    """Without the chatter of exporters."""
    levels = {name: logging.getLogger(name).level for name in ("torch", "torch.onnx", "torch.export", "onnxscript")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
