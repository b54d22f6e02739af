"""The heads of all tasks together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from harness.errors import UserError
from mtl_heads.blocks import PerTask, resize
from mtl_heads.encoder import Pyramid
from mtl_heads.heads.base import Head
from mtl_heads.registry import HEADS, check_options
from mtl_heads.tasks import Tasks


class TaskHeads(PerTask):
    """One head per task: the chosen one for dense tasks, ``linear`` for image tasks.

    Args:
        pyramid: shape of the features that the heads read.
        tasks: the tasks; auxiliary ones get a head like the dense ones.
        head: name of the dense tasks' head.
        head_options: its options.

    Raises:
        UserError: the head or an option is unknown, or does not fit the features.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        tasks: Tasks,
        head: str = "deeplab",
        head_options: Mapping[str, Any] | None = None,
    ) -> None:
        options = dict(head_options or {})
        dense, image = HEADS.get(head), HEADS.get("linear")
        check_options(f"head '{head}'", dense, options)
        heads: dict[str, Head] = {t: dense(pyramid, n, **options) for t, n in tasks.dense.items()}
        heads |= {t: image(pyramid, n, image=True) for t, n in tasks.image.items()}
        heads |= {t: dense(pyramid, n, **options) for t, n in tasks.auxiliary.items()}
        super().__init__(heads)

    def forward(
        self, features: list[Tensor], size: tuple[int, int], tasks: Iterable[str]
    ) -> dict[str, Tensor]:
        """Predictions of the given tasks; maps are resized to ``size``."""
        gathered: dict[bool, Tensor] = {}  # heads of one kind read the same, so it is made once
        predictions: dict[str, Tensor] = {}
        for task in tasks:
            head = self[task]
            if head.image not in gathered:
                gathered[head.image] = head.gather(features)
            prediction = head.predict(gathered[head.image])
            predictions[task] = prediction if head.image else resize(prediction, size)
        return predictions

    def vandenhende_prefix(self, task: str) -> str:
        """What stands before our names of a head's parameters, in place of what does in the original code base.

        Raises:
            UserError: the original code base has no such head.
        """
        head = self[task]
        if head.vandenhende_prefix is None:
            raise UserError(
                f"head '{HEADS.name_of(type(head))}' of task '{task}' is not in the original code base: use deeplab or "
                "hrnet"
            )
        return f"heads.{self.key(task)}.{head.vandenhende_prefix}"
