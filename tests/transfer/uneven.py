"""A data set whose samples have unequal numbers of labels, and networks for it, for tests of training."""

from __future__ import annotations

import numpy as np

from harness.config import load
from harness.world import start
from transfer.config import TransferConfig
from transfer.data.base import DATASETS, DataSet, Label, Split
from transfer.engine import Transfer

GROUPS = "{channels: [32, 32, 64, 64], norm_layer: groupnorm}"
COMMON = ["--data.name", "uneven", "--tasks", "[semseg, depth, normals, saliency, scene]", "--model.name", "baseline",
          "--model.backbone", "resnet18", "--model.head", "linear", "--model.output_stride", "8", "--epochs", "2",
          "--augmentation.size", "32", "--batch_size", "6", "--workers", "0", "--threads", "1", "--baseline", "none",
          "--optimizer.name", "sgd", "--optimizer.lr", "0.01", "--evaluation.batch_size", "2",
          "--model.backbone_options"]


if "uneven" not in DATASETS.names():

    @DATASETS.register("uneven")
    class Uneven(DataSet):
        """Random labels, many of them missing, and more in some samples than in others."""

        splits = ("train", "val", "test")

        @property
        def labels(self) -> dict[str, Label]:
            classes = ("a", "b", "c", "d")
            return {"semseg": Label("semseg", classes), "depth": Label("depth"), "normals": Label("normals"),
                    "saliency": Label("saliency"), "scene": Label("scene", classes)}

        def load(self, split: str) -> Split:
            return UnevenSplit(split, 16 if split == "train" else 5, tuple(self.tasks))

        def fingerprint(self) -> str:
            return "uneven"


class UnevenSplit(Split):
    def __init__(self, name: str, count: int, tasks: tuple[str, ...]) -> None:
        self.name, self.count, self.tasks = name, count, tasks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        draw = np.random.default_rng((index, len(self.name)))
        normals = draw.normal(size=(36, 40, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        missing = draw.random((36, 40)) < index / self.count  # ever fewer labels
        semseg = np.where(missing, 255, draw.integers(0, 4, (36, 40))).astype(np.uint8)
        depth = np.where(missing, 0, draw.uniform(1, 5, (36, 40))).astype(np.float32)
        targets = {"semseg": semseg, "depth": depth, "normals": np.where(missing[..., None], 0, normals),
                   "saliency": np.where(missing, 255, draw.integers(0, 2, (36, 40))).astype(np.uint8),
                   "scene": np.int64(draw.integers(0, 4))}
        left_out = {"depth": index % 3 == 0, "scene": index % 2 == 1, "saliency": index > 9}
        return {"image": draw.integers(0, 256, (36, 40, 3), dtype=np.uint8), "id": f"{self.name}/{index}",
                "targets": {name: targets[name] for name in self.tasks if not left_out.get(name)}}


def make(options: list[str], leave_out: tuple[str, ...] = ()) -> Transfer:
    """A run with the common options (but for those of them that an architecture does not have) and others."""
    common = [word for i, word in enumerate(COMMON) if not {word, COMMON[i - 1]} & set(leave_out)]
    config = load(TransferConfig, [*common, *options])
    transfer = Transfer(config, start(threads=config.threads, cpu=True))
    transfer.model.train()
    return transfer
