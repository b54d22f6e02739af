"""A pinhole camera that can be moved, zoomed and mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion; its principal point is the image centre.

    ``dataclasses.replace(camera, focal=1.5 * camera.focal)`` gives the same scene at 1.5 times the
    focal length, ``flip=True`` its mirror image.

    Args:
        position: x, y, z in the room, metres; z is up.
        yaw: heading, radians; 0 looks along +y, positive turns left (towards -x).
        pitch: radians, positive looks up.
        roll: radians, positive turns the camera clockwise.
        focal: focal length divided by the image's width (so independent of resolution).
        flip: mirror the image left to right.
    """

    position: tuple[float, float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    focal: float = 0.8
    flip: bool = False

    @property
    def axes(self) -> np.ndarray:
        """Float64 [3, 3]: rows right, up and back (towards the viewer), in room coordinates."""
        sin_yaw, cos_yaw = math.sin(self.yaw), math.cos(self.yaw)
        sin_pitch, cos_pitch = math.sin(self.pitch), math.cos(self.pitch)
        right = np.array([cos_yaw, sin_yaw, 0.0])
        forward = np.array([-sin_yaw * cos_pitch, cos_yaw * cos_pitch, sin_pitch])
        up = np.cross(right, forward)
        sin_roll, cos_roll = math.sin(self.roll), math.cos(self.roll)
        right, up = cos_roll * right - sin_roll * up, sin_roll * right + cos_roll * up
        return np.stack([-right if self.flip else right, up, -forward])

    def screen(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Where pixel centres lie on the plane one metre ahead.

        Returns:
            Float32 x [width] growing rightwards and y [height] growing upwards, metres.
        """
        scale = 1.0 / (self.focal * width)
        x = (np.arange(width) + 0.5 - width / 2) * scale
        y = (height / 2 - np.arange(height) - 0.5) * scale
        return x.astype(np.float32), y.astype(np.float32)

    def project(self, points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Project room points.

        Args:
            points: [N, 3] metres.
            height, width: image size in pixels.

        Returns:
            Float64 pixel coordinates [N, 2] (x, y; the first pixel's centre is (0.5, 0.5)) and
            depths along the camera axis [N], metres. Coordinates mean nothing where depth <= 0.
        """
        local = (np.asarray(points, np.float64) - np.array(self.position)) @ self.axes.T
        depth = -local[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        scale = self.focal * width
        x = width / 2 + scale * local[:, 0] / safe
        y = height / 2 - scale * local[:, 1] / safe
        return np.stack([x, y], axis=1), depth
