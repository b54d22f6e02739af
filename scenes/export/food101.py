"""The layout of Food-101."""

from __future__ import annotations

import json

from scenes.export._classified import ClassifiedLayout
from scenes.export.base import LAYOUTS, View
from scenes.scene import Scene


@LAYOUTS.register("food101")
class Food101Layout(ClassifiedLayout):
    """``images/CLASS/NUMBER.jpg`` and lists without extensions, of lines and as JSON."""

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{self.class_of(view)}/{1000 * (1 + self.splits.index(split)) + number}"
        self.keep(split, name, view)
        self.jpeg(f"images/{name}.jpg", view["image"])

    def finish(self) -> None:
        self.text("meta/classes.txt", list(self.classes))
        for split, rows in self.rows.items():
            names = sorted(name for name, _ in rows)
            self.text(f"meta/{split}.txt", names)
            by_class = {kind: [name for name in names if name.startswith(f"{kind}/")] for kind in sorted(self.classes)}
            self.text(f"meta/{split}.json", [json.dumps(by_class)])
