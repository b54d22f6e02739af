"""Files trained with the original multi-task code base (names in the thesis of Vandenhende, 2022)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.errors import UserError
from mtl_heads.model import MultiTaskModel

_WRAPPERS = ("module.", "_orig_mod.")
_OPTIONAL = ".num_batches_tracked"


def load_vandenhende(model: MultiTaskModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict of the original code base into the same architecture of ours.

    Every parameter and buffer must be found; only ``num_batches_tracked`` may be missing. The model
    is unchanged unless everything fits.

    Args:
        model: built with the backbone, head and tasks that the file was trained with.
        state_dict: its keys, with or without the wrappers' ``module.`` and ``_orig_mod.``.

    Raises:
        UserError: the architecture was not in that code base, or keys or shapes do not fit.
    """
    prefixes = model.vandenhende_prefixes()
    own = model.state_dict()
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for key, value in state_dict.items():
        bare = key
        while bare.startswith(_WRAPPERS):
            bare = bare.partition(".")[2]
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
    model.load_state_dict({**own, **renamed})
