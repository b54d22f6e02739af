"""The examples of CONTRIBUTING.md do what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()


def example(name: str) -> str:
    return next(code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if code.startswith(f"# {name}"))


def test_data_set(programs):
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        folder = programs.folder / "photos" / split
        folder.mkdir(parents=True)
        for number in range(4):
            Image.fromarray(generator.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
            classes = generator.integers(3, size=(32, 32), dtype=np.uint8)
            Image.fromarray(classes).save(folder / f"{number}_semseg.png")
            np.save(folder / f"{number}_depth.npy", 1 + classes.astype(np.float32))
    (programs.folder / "pairs.py").write_text(example("pairs.py"))
    options = ["--plugin=pairs.py", "--data.name=pairs", "--tasks=[semseg, depth]", "--epochs=1", "--batch_size=4"]
    assert "has no folder train" in programs.main("transfer", "--output=run", *options).error
    done = programs.main("transfer", "--output=run", "--data.root=photos", *options)
    assert done.code == 0, done.err
    assert json.loads((programs.folder / "run" / "results.json").read_text())["dataset"] == "pairs"


def test_balance_rule(programs):
    (programs.folder / "square.py").write_text(example("square.py"))
    done = programs.main("transfer", "--output=run", "--plugin=square.py", "--balance.name=square",
                         "--balance.scale=2", "--epochs=1")
    assert done.code == 0, done.err
