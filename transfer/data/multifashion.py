"""Pairs of garments."""

from __future__ import annotations

from harness.about import About
from transfer.data._pairs import Pairs
from transfer.data.base import DATASETS
from transfer.data.idx import IdxFolder

GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PLACES = ("/usr/share/datasets/fashion-mnist", "data/fashion-mnist", "data")
HINT = "Debian's package dataset-fashion-mnist installs them in /usr/share/datasets/fashion-mnist"


@DATASETS.register("multifashion")
class MultiFashion(Pairs):
    """Two garments of Fashion-MNIST (Xiao et al., 2017) on 36×36 pixels, tasks ``left`` and ``right``.

    Made as ``multimnist`` is. 60 000 pairs to train, 10 000 to test, the same ones for every run.

    Args:
        root: folder of Fashion-MNIST's four idx files, packed or not; known local places when none.
        size: side of the images, pixels; 36 as composed, 28 as in the programs of some papers.
        seed: of the draw.
        val_count: training images that become the split ``val``, before pairs are drawn; 0: there is none.
        train_count: pairs of the training split; all when none.
        test_count: pairs of the test split; all when none.
    """

    holds = "left, right"
    about = About("Fashion-MNIST", "https://github.com/zalandoresearch/fashion-mnist", "MIT", """\
ROOT/ (or ROOT/raw, as torchvision unpacks)
  train-images-idx3-ubyte, train-labels-idx1-ubyte    (or with .gz)
  t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte""", {"train": 60000, "test": 10000})

    def __init__(self, root: str | None = None, size: int = 36, seed: int = 0, val_count: int = 0,
                 train_count: int | None = None, test_count: int | None = None) -> None:
        folder = IdxFolder("multifashion", root, "FashionMNIST", PLACES, HINT)
        super().__init__("multifashion", folder, GARMENTS, size, seed, val_count, train_count, test_count)
