"""Label files as arrays. Nothing in a file is ever run, and what cannot be read is named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.images import UnreadableImage
from harness.pictures import read_picture


def read_colours(path: str | Path) -> np.ndarray:
    """A picture, uint8 ``[H, W, 3]``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_picture(path).decode()
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read ({error.reason}): get the file again") from error


def read_indices(path: str | Path) -> np.ndarray:
    """The numbers that an image of one channel stores: palette indices, grey values of 8 or 16 bits, or bits.

    Returns:
        uint8, or int32 for 16 bits, ``[H, W]``.

    Raises:
        UserError: it cannot be read, or is a colour picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode, array = image.mode, np.asarray(image)
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise UserError(f"{path} cannot be read ({_reason(error)}): get the file again") from error
    if mode not in ("P", "L", "1") and not mode.startswith("I"):
        raise UserError(f"{path} is a picture of mode {mode}, and labels are images of one channel: is it a rendering "
                        "in colour? Get the file with the indices")
    return array.astype(np.uint8) if mode == "1" else array if mode in ("P", "L") else array.astype(np.int32)


def read_numbers(path: str | Path) -> np.ndarray:
    """The array of an npy file.

    Raises:
        UserError: it cannot be read, or holds objects instead of numbers.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises many kinds on damaged files
        raise UserError(f"{path} cannot be read as numbers ({_reason(error)}): get the file again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise UserError(f"{path} is no array of numbers: get the file again")
    return array


def read_matlab(path: str | Path, name: str) -> Any:
    """One variable of a MATLAB file (version 5 to 7.2).

    Raises:
        UserError: it cannot be read or has no such variable.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[name])
    except Exception as error:  # as above
        raise UserError(f"{path} cannot be read ({_reason(error)}): get the file again") from error
    if name not in content:
        raise UserError(f"{path} has no variable '{name}': is it a file of this data set?")
    return content[name]


def plane(array: np.ndarray, path: str | Path) -> np.ndarray:
    """A label map ``[H, W]``; a channel of length 1, first or last, is dropped.

    Raises:
        UserError: it has other dimensions.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        return array[:, :, 0]
    if array.ndim == 3 and array.shape[0] == 1:
        return array[0]
    if array.ndim != 2:
        raise UserError(f"{path} has shape {array.shape}: a label of one number for each pixel has height and width")
    return array


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
