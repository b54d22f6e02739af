"""A view of a scene, with its labels."""

from __future__ import annotations

import numpy as np

from harness.errors import UserError
from scenes.camera import Camera
from scenes.classes import SCENE_TYPES
from scenes.labels import labels as read_labels
from scenes.raycast import cast
from scenes.scene import Scene
from scenes.shading import gather_surfaces, shade


def render(scene: Scene, height: int = 128, width: int = 128, labels: bool = True,
           camera: Camera | None = None) -> dict[str, np.ndarray]:
    """Draw a scene.

    Args:
        scene: from :func:`scenes.generate`.
        height, width: pixels.
        labels: also make the labels (``scene`` is there in any case).
        camera: another view than ``scene.camera``: moved, with ``focal`` times s, or with ``flip``
            (``dataclasses.replace(scene.camera, flip=True)``).

    Returns:
        ``image`` uint8 [H, W, 3]; ``scene`` int64 scalar; and with labels, each exact at the pixels'
        centres:

        - ``semseg`` uint8 [H, W], index into ``SEMSEG_CLASSES``
        - ``depth`` float32 [H, W], metres along the camera axis
        - ``normals`` float32 [H, W, 3], unit; camera frame: x right, y up, z towards the viewer
        - ``edge`` uint8 [H, W], 1 on outlines of objects and of walls, floor and ceiling
        - ``saliency`` uint8 [H, W], 1 on the most salient object(s)
        - ``parts`` uint8 [H, W], index into ``PART_CLASSES``
        - ``instance`` int32 [H, W], number of the object, 0 on walls, floor and ceiling
        - ``instance_center`` float32 [H, W, 2], offset (x, y) in pixels to the projected centre of
          the object's bounding box; (0, 0) means unlabelled, as on walls
        - ``keypoints`` float32 [H, W], heat map of the visible corners of furniture
        - ``attributes`` uint8 [A], multi-hot over ``ATTRIBUTES``

    Raises:
        UserError: a size below one pixel, or a camera outside the room.
    """
    if height < 1 or width < 1:
        raise UserError(f"cannot render a scene at {height} x {width} pixels: both must be at least 1")
    camera = camera or scene.camera
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        hits = cast(scene, camera, height, width)
        surfaces = gather_surfaces(scene, camera, hits)
        view = {"image": shade(scene, camera, hits, surfaces)}
        if labels:
            view.update(read_labels(scene, camera, hits, surfaces))
    view.setdefault("scene", np.int64(SCENE_TYPES.index(scene.kind)))
    return view
