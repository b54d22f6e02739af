"""Files trained with the original multi-task code base (names in the thesis of Vandenhende, 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from harness.errors import UserError

if TYPE_CHECKING:
    from mtl_heads.model import MultiTaskModel

_WRAPPERS = ("module.", "_orig_mod.")
_OPTIONAL = ".num_batches_tracked"


class TaskBlocks(NamedTuple):
    """A parameter that has a block of values for each task, one after another.

    Nothing in its shape tells which block is whose: that is the order in which its file lists the tasks.

    Args:
        tasks: whose blocks, in the order that ours has.
        dim: dimension along which the blocks follow each other.
        prefix: of keys in the file; the name of a task follows it.
        movable: False where a block means something in its place only.
    """

    tasks: tuple[str, ...]
    dim: int
    prefix: str
    movable: bool = True


def load_vandenhende(model: MultiTaskModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict of the original code base into the same architecture of ours.

    For example:

        model = build_model("baseline", "resnet50", {"semseg": 21, "depth": 1}, output_stride=8)
        checkpoint = torch.load("checkpoint.pth.tar", map_location="cpu", weights_only=True)
        load_vandenhende(model, checkpoint["model"])

    Every parameter and buffer must be found; only ``num_batches_tracked`` may be missing. The model
    is unchanged unless everything fits. Where layers read the features of all tasks side by side, the
    order of the tasks is that of the file's keys; a file whose keys are sorted, as ``safetensors`` does,
    does not tell, and is taken to have the order of the model.

    Args:
        model: built with the backbone, head and tasks that the file was trained with.
        state_dict: its keys, with or without the wrappers' ``module.`` and ``_orig_mod.``.

    Raises:
        UserError: the architecture was not in that code base, or keys or shapes do not fit.
    """
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"the state dict has a value of type {type(value).__name__} at {key!r}, and not only tensors by their "
                "names: of a whole checkpoint give the part that has the network's weights, such as checkpoint['model']"
            )
    prefixes = model.vandenhende_prefixes()
    own = model.state_dict()
    keys = [_bare(key) for key in state_dict]
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for bare, (key, value) in zip(keys, state_dict.items(), strict=True):
        names = (ours + bare[len(theirs) :] for theirs, ours in prefixes.items() if bare.startswith(theirs))
        name = next(names, None)
        if name is None or name not in own:
            unexpected.append(key)
        elif tuple(value.shape) != tuple(own[name].shape):
            raise UserError(
                f"'{key}' has shape {tuple(value.shape)}, the network's '{name}' has "
                f"{tuple(own[name].shape)}: build the network with the file's backbone, head and channels"
            )
        else:
            renamed[name] = value
    missing = [name for name in own if name not in renamed and not name.endswith(_OPTIONAL)]
    if missing or unexpected:
        kinds = {"missing": missing, "unexpected": unexpected}
        found = ", ".join(
            f"{len(names)} {kind} (first '{names[0]}')" for kind, names in kinds.items() if names
        )
        raise UserError(
            f"the state dict does not fit this {type(model).__name__} of {len(own)} keys: {found}; "
            "build the network with the file's backbone, head and tasks"
        )
    if keys != sorted(keys):
        for name, blocks in model.vandenhende_blocks().items():
            renamed[name] = _reorder(renamed[name], blocks, keys)
    model.load_state_dict({**own, **renamed})


def _bare(key: str) -> str:
    """A key without what wrappers put before it."""
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


def _reorder(value: Tensor, blocks: TaskBlocks, keys: Iterable[str]) -> Tensor:
    """A value of the file with the blocks of its tasks in our order."""
    after = (key[len(blocks.prefix) :].partition(".")[0] for key in keys if key.startswith(blocks.prefix))
    theirs = [task for task in dict.fromkeys(after) if task in blocks.tasks]
    if theirs == list(blocks.tasks):
        return value
    if not blocks.movable:
        raise UserError(
            f"the file has the tasks in the order {', '.join(theirs)}, the network {', '.join(blocks.tasks)}, and "
            "their features are too entangled to change places: build the network with the file's order"
        )
    parts = dict(zip(theirs, value.chunk(len(theirs), blocks.dim), strict=True))
    return torch.cat([parts[task] for task in blocks.tasks], blocks.dim)
