"""Pairs of handwritten digits."""

from __future__ import annotations

from harness.about import About
from transfer.data._mnist import DIGITS, mnist_folder
from transfer.data._pairs import Pairs
from transfer.data.base import DATASETS


@DATASETS.register("multimnist")
class MultiMnist(Pairs):
    """MultiMNIST: two digits on 36×36 pixels, tasks ``left`` and ``right`` (Sener and Koltun, 2018, section 4.1).

    For each image of a split another one of the same split; one stands at (0, 0), the other at (6, 6), and of two
    pixels the brighter one is seen. 60 000 pairs to train, 10 000 to test, the same ones for every run.

    Args:
        root: folder of MNIST's four idx files, packed or not; known local places when none.
        size: side of the images, pixels; 36 as composed, 28 as in the programs of some papers.
        seed: of the draw.
        val_count: training images that become the split ``val``, before pairs are drawn; 0: there is none.
        train_count: pairs of the training split; all when none.
        test_count: pairs of the test split; all when none.
    """

    holds = "left, right"
    about = About("MNIST", "https://yann.lecun.com/exdb/mnist/", "not stated; cite LeCun et al. (1998)", """\
ROOT/ (or ROOT/raw, as torchvision unpacks)
  train-images-idx3-ubyte, train-labels-idx1-ubyte    (or with .gz)
  t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte""", {"train": 60000, "test": 10000})

    def __init__(self, root: str | None = None, size: int = 36, seed: int = 0, val_count: int = 0,
                 train_count: int | None = None, test_count: int | None = None) -> None:
        super().__init__("multimnist", mnist_folder("multimnist", root), DIGITS, size, seed, val_count, train_count,
                         test_count)
