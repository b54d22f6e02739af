"""Even and odd digits, each a task with images of its own."""

from __future__ import annotations

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._arrays import ArraySplit, held_out
from transfer.data._mnist import DIGITS, mnist_folder
from transfer.data.base import DATASETS, DataSet, Label, Split


@DATASETS.register("mnist_parity")
class MnistParity(DataSet):
    """MNIST with two tasks of five classes on disjoint images (Wu et al., 2023, section 3.1).

    ``even`` tells 0, 2, 4, 6 and 8 apart, ``odd`` 1, 3, 5, 7 and 9; an image has a label of the task that its digit
    belongs to, and none of the other.

    Args:
        root: folder of MNIST's four idx files, packed or not; known local places when none.
        seed: of the draw of validation images.
        val_count: training images that become the split ``val``; 0: there is none. The source trains on 50 000 images.
        train_count: training images, the first ones; all when none.
        test_count: test images, likewise.
    """

    holds = "even, odd"
    about = About("MNIST", "https://yann.lecun.com/exdb/mnist/", "not stated; cite LeCun et al. (1998)", """\
ROOT/ (or ROOT/raw, as torchvision unpacks)
  train-images-idx3-ubyte, train-labels-idx1-ubyte    (or with .gz)
  t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte""", {"train": 60000, "test": 10000})

    def __init__(self, root: str | None = None, seed: int = 0, val_count: int = 0, train_count: int | None = None,
                 test_count: int | None = None) -> None:
        if val_count < 0 or min(train_count or 1, test_count or 1) < 1 or 0 in (train_count, test_count):
            raise UserError(f"mnist_parity: val_count {val_count}, train_count {train_count} and test_count "
                            f"{test_count} must be positive (val_count may be 0)")
        self.folder = mnist_folder("mnist_parity", root)
        self.seed, self.val_count = seed, val_count
        self.counts = {"train": train_count, "val": None, "test": test_count}
        self.splits = ("train", "val", "test") if val_count else ("train", "test")
        self._read: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def labels(self) -> dict[str, Label]:
        return {"even": Label("classification", DIGITS[::2]), "odd": Label("classification", DIGITS[1::2])}

    def load(self, split: str) -> Split:
        if split not in self._read:
            images, digits = self.folder.read("test" if split == "test" else "train")
            if self.val_count and split != "test":
                chosen = held_out("mnist_parity", len(images), self.val_count, self.seed)
                chosen = chosen if split == "val" else ~chosen
                images, digits = images[chosen], digits[chosen]
            self._read[split] = images[: self.counts[split]], digits[: self.counts[split]]
        images, digits = self._read[split]
        labels = {task: np.where(digits % 2 == parity, digits.astype(np.int64) // 2, -1)
                  for parity, task in enumerate(("even", "odd"))}
        return ArraySplit(split, images, {task: labels[task] for task in self.tasks})

    def fingerprint(self) -> str:
        counts = "-".join(str(count) for count in (*self.counts.values(), self.val_count))
        return f"mnist_parity-{self.folder.fingerprint()}-{self.seed}-{counts}"
