"""Stanford Cars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet
from pretrain.evaluation.labelled import LABELLED


@LABELLED.register("cars")
class Cars(FileSet):
    """Stanford Cars (Krause et al., 2013): 196 makes, models and years, seen whole (not cut to their boxes).

    Reported as top-1 accuracy (Kornblith et al., 2019, table 1).

    Args:
        root: the folder with ``cars_train``, ``cars_test`` and ``devkit``.
    """

    holds = "class"
    about = About(
        "Stanford Cars", "https://ai.stanford.edu/~jkrause/cars/car_dataset.html", "for research", """\
ROOT/
  cars_train/NUMBER.jpg, cars_test/NUMBER.jpg    8144 and 8041
  devkit/cars_meta.mat                           class_names
  devkit/cars_train_annos.mat                    annotations: class, fname and a box
  devkit/cars_test_annos_withlabels.mat          the same; also in ROOT itself""", {"train": 8144, "test": 8041},
        "the devkit's own cars_test_annos.mat has no classes: the file with them is handed out on its own. The page "
        "has not always been there; copies elsewhere have the same files")

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)
        meta = self._find("cars_meta.mat")
        names = np.atleast_1d(_variable(meta, "class_names"))
        self.class_names = tuple(str(name) for name in names.ravel())
        for split, file in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            source = self._find(file)
            rows = np.atleast_1d(_variable(source, "annotations"))
            lacking = [field for field in ("fname", "class") if field not in (rows.dtype.names or ())]
            if lacking:
                raise UserError(f"{source} has no {' and no '.join(lacking)} in its annotations: {self.hint}")
            try:
                labels = rows["class"].astype(np.int64) - 1
                paths = [f"cars_{split}/{name}" for name in rows["fname"].tolist() if isinstance(name, str)]
            except (TypeError, ValueError) as error:
                raise UserError(f"{source} has classes that are no numbers: get the file again") from error
            wrong = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
            if len(paths) != len(labels) or len(wrong):
                what = f"class {labels[wrong[0]] + 1} in entry {wrong[0] + 1}" if len(wrong) else "a nameless entry"
                raise UserError(f"{source} has {what}, and cars_meta.mat names {len(self.class_names)} classes: get "
                                "the files again")
            self.put(split, source, paths, f"cars_{split}", classes=labels)

    def _find(self, file: str) -> Path:
        return self.find(f"devkit/{file}", file, f"car_devkit/devkit/{file}")


def _variable(path: Path, name: str) -> Any:
    """One variable of a MATLAB file.

    Raises:
        UserError: it cannot be read or has no such variable.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[name], squeeze_me=True)
    except Exception as error:  # scipy raises nearly everything on damaged files
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split()) or type(error).__name__}): get the file "
                        "again") from error
    if name not in content:
        raise UserError(f"{path} has no variable '{name}': is it a file of Stanford Cars?")
    return content[name]
