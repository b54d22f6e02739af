"""Where MNIST is."""

from __future__ import annotations

from transfer.data.idx import IdxFolder

DIGITS = tuple("0123456789")
PLACES = ("/usr/share/datasets/mnist", "data/mnist", "data")
HINT = "get train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"


def mnist_folder(name: str, root: str | None) -> IdxFolder:
    """MNIST's four idx files, for the data set ``name``.

    Raises:
        UserError: one is missing.
    """
    return IdxFolder(name, root, "MNIST", PLACES, HINT)
