"""Labels of a video's first frame carried through the video by the similarity of features."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError
from harness.files import write_atomically
from harness.images import UnreadableImage
from harness.progress import progress
from pretrain.checkpoints import CheckpointError
from pretrain.evaluation.base import PROTOCOLS, Finding, Protocol
from pretrain.evaluation.features import Features, middle
from pretrain.evaluation.labelled import Labelled, Video
from pretrain.evaluation.propagation import Propagation
from pretrain.evaluation.region_and_boundary import boundary_accuracy, region_similarity
from pretrain.evaluation.spread import spread
from pretrain.evaluation.video_pictures import Strip, draw_course, draw_strips, overlay, write_animation, write_mask

_STRIDE = 8
_LATER = 4
_MASKS, _ANIMATIONS, _DONE = "masks", "animations", "done"


@dataclass
class _Measured:
    """What came of a video: J and F of each object in each measured frame, ``[objects, frames]`` from 0 to 1."""

    name: str
    region: np.ndarray
    boundary: np.ndarray
    strip: Strip

    def __post_init__(self) -> None:
        self.strip.score = self.score * 100

    @property
    def score(self) -> float:
        return float((self.region.mean() + self.boundary.mean()) / 2)

    def write(self, path: Path) -> None:
        """Keep it, so that a measurement that is stopped goes on with the next video."""
        content = {"region": self.region, "boundary": self.boundary, "panels": np.stack(self.strip.panels),
                   "titles": np.array(self.strip.titles)}
        write_atomically(path, lambda file: np.savez(file, **content))

    @classmethod
    def read(cls, path: Path, name: str) -> _Measured | None:
        """What was kept; None: nothing that can be read."""
        try:
            with np.load(path, allow_pickle=False) as content:
                region, bounds, panels, titles = (content[key] for key in ("region", "boundary", "panels", "titles"))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return cls(name, region, bounds, Strip(name, 0.0, list(panels), titles.tolist()))


@PROTOCOLS.register("video_propagation")
class VideoPropagation(Protocol):
    """Propagation of the first frame's objects through a video, on DAVIS 2017 (Jabri et al., 2020).

    Features of one stage, at stride 8 by dilation where the network can, of length 1 at each place. A place takes the
    labels of the most similar places within a radius in the last frames and the first; its labels, soft as they are,
    are passed on. Labels are brought to the size of the annotation (bilinear), and the largest is the object.

    J is the intersection over union of an object, F the accuracy of its boundary within 0.8 % of the diagonal
    (Perazzi et al., 2016). As in the official evaluation of DAVIS 2017 neither the first frame nor the last one is
    measured, J and F are averaged over the frames of each object and then over the objects of all videos; recall is
    the share of frames above one half.

    Args:
        top: how many of the most similar places count.
        context: how many of the last frames they are searched in, beside the first.
        radius: how far from a place they may be, in places.
        temperature: of the softmax over their cosines.
        first_anywhere: the radius does not hold in the first frame, as in the program of Jabri et al.
        layer: the stage: its place counted from the end (-2 is the third of a ResNet's four), or its module's name.
        size: side that a frame's shorter side is brought to for the network; none leaves frames as they are, which is
            480 for DAVIS at 480p.
        save_masks: write the predicted masks as DAVIS takes results, for its official evaluation.
        animate: write a moving picture (GIF) of each video.
        panels: videos in the picture of the report.
    """

    needs = "video"
    columns: Mapping[str, str] = {"j_and_f": "J&F [%]", "j_mean": "J [%]", "f_mean": "F [%]"}

    def __init__(self, top: int = 10, context: int = 20, radius: int = 12, temperature: float = 0.05,
                 first_anywhere: bool = False, layer: str = "-2", size: int | None = None,
                 save_masks: bool = False, animate: bool = False, panels: int = 8) -> None:
        for name, value, least in (("top", top, 1), ("context", context, 0), ("radius", radius, 0), ("size", size, 16),
                                   ("panels", panels, 1)):
            if value is not None and value < least:
                raise UserError(f"video_propagation.{name} is {value}: set it to {least} or more")
        if not temperature > 0:
            raise UserError(f"video_propagation.temperature is {temperature}: set it above 0")
        self.options = {"top": top, "context": context, "radius": radius, "temperature": temperature,
                        "first_anywhere": first_anywhere}
        self.layer, self.size = layer, size
        self.save_masks, self.animate, self.panels = save_masks, animate, panels

    def measure(self, features: Features | None, data: Labelled | None, folder: Path, seed: int) -> Finding:
        if not (folder / _DONE).exists():
            for name in (_MASKS, _ANIMATIONS):
                shutil.rmtree(folder / name, ignore_errors=True)
        videos = data.videos()
        if not videos:
            raise UserError("there are no videos to measure: ask for one or more")
        for video in videos:
            _require_annotations(video)
        encoder = _Encoder(features, self.layer, self.size)
        about = encoder.describe(videos[0])
        measured = []
        with progress(sum(map(len, videos)), unit="frame", description=f"videos, {features.subject.label}",
                      leave=False, delay=1) as bar:
            for video in videos:
                path = folder / _DONE / f"{video.name}.npz"
                known = _Measured.read(path, video.name)
                if known is None:
                    known = self._follow(video, encoder, folder, bar.update)
                    known.write(path)
                else:
                    bar.update(len(video))
                measured.append(known)
        finding = self._report(measured, about, folder)
        shutil.rmtree(folder / _DONE)
        return finding

    def _follow(self, video: Video, encoder: _Encoder, folder: Path, advance: Callable[[], object]) -> _Measured:
        """Propagate through a video and measure it."""
        first = video.objects(0)
        numbers = np.unique(first[first > 0])
        regions, boundaries, shown = [], [], []
        picked = spread(len(video), _LATER + 1)
        strip = Strip(video.name, 0.0)
        for number, (frame, predicted) in enumerate(self._predict(video, first, numbers, encoder)):
            truth = first if number == 0 else video.objects(number)
            if truth is not None and 0 < number < len(video) - 1:
                pairs = [(predicted == one, truth == one) for one in numbers]
                regions.append([region_similarity(*pair) for pair in pairs])
                boundaries.append([boundary_accuracy(*pair) for pair in pairs])
            if number in picked:
                strip.panels.append(overlay(frame, predicted, truth if number else None))
                strip.titles.append("" if number == 0 else f"frame {number + 1} of {len(video)}")
            if self.save_masks:
                write_mask(folder / _MASKS / video.name / f"{video.frame_name(number)}.png", predicted)
            if self.animate:
                shown.append(overlay(frame, predicted, truth if number else None))
            advance()
        if shown:
            write_animation(shown, folder / _ANIMATIONS / f"{video.name}.gif")
        return _Measured(video.name, np.array(regions).T, np.array(boundaries).T, strip)

    def _predict(self, video: Video, first: np.ndarray, numbers: np.ndarray,
                 encoder: _Encoder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each frame uint8 ``[H, W, 3]`` with its objects uint8 ``[H, W]``; the first with those it is given."""
        known = np.concatenate([[0], numbers]).astype(np.uint8)
        propagation = None
        for number in range(len(video)):
            frame = _frame(video, number)
            if frame.shape[:2] != first.shape:
                size = " × ".join(map(str, frame.shape[:2]))
                raise UserError(f"video {video.name}: its frame {number + 1} has {size} pixels and the annotation of "
                                f"the first frame {' × '.join(map(str, first.shape))}: all must have one size")
            maps = encoder(frame, video.name)
            if propagation is None:
                masks = torch.from_numpy((first == known[:, None, None]).astype(np.float32)).to(maps.device)
                labels = F.adaptive_avg_pool2d(masks, maps.shape[1:])
                propagation = Propagation(maps, labels, **self.options)
                yield frame, first
                continue
            labels = F.interpolate(propagation.step(maps)[None], first.shape, mode="bilinear")[0]
            yield frame, known[labels.argmax(0).cpu().numpy()]

    def _report(self, measured: list[_Measured], about: list[str], folder: Path) -> Finding:
        # objects of all videos, each by its mean over frames
        region, bounds = (np.concatenate([getattr(video, name).mean(1) for video in measured])
                          for name in ("region", "boundary"))
        recalls = [np.concatenate([(getattr(video, name) > 0.5).mean(1) for video in measured])
                   for name in ("region", "boundary")]
        metrics = {"j_mean": region.mean() * 100, "j_recall": recalls[0].mean() * 100, "f_mean": bounds.mean() * 100,
                   "f_recall": recalls[1].mean() * 100}
        metrics = {"j_and_f": (metrics["j_mean"] + metrics["f_mean"]) / 2, **metrics}
        ranked = sorted(measured, key=lambda video: -video.score)
        chosen = [ranked[place] for place in spread(len(ranked), self.panels)]
        caption = ("Left: the first frame with the objects that are given. Then what became of them, painted; their "
                   "true outlines are white.")
        if len(measured) > 1:
            caption += " From the video that went best to the one that went worst."
        figures = [(draw_strips([video.strip for video in chosen], folder / "videos.png"), caption),
                   (draw_course([video.region for video in measured], [video.boundary for video in measured],
                                folder / "course.png"),
                    "How the masks fit as the videos go on, averaged over all objects.")]
        files = []
        if self.save_masks:
            files.append((folder / _MASKS, "predicted masks as DAVIS takes results, one folder for each video"))
        if self.animate:
            files.append((folder / _ANIMATIONS, "moving pictures of the predicted masks, true outlines in white"))
        rows = []
        for video in measured:
            objects = (video.region + video.boundary).mean(1) / 2
            shown = (video.score, video.region.mean(), video.boundary.mean(), objects.min())
            rows.append((video.name, len(objects), video.region.shape[1], *(f"{value * 100:.1f}" for value in shown)))
        header = ("video", "objects", "measured frames", "J&F [%]", "J [%]", "F [%]", "worst object, J&F [%]")
        remarks = [*about, f"{sum(len(video.region) for video in measured)} objects in {len(measured)} "
                   "videos; averages are over objects. First and last frames are not measured, as DAVIS does."]
        return Finding({name: float(value) for name, value in metrics.items()}, figures, files, remarks,
                       {"videos": (header, rows)})


class _Encoder:
    """Features of frames, ``[C, h, w]``, from a network whose stages have stride 8 if it can be had.

    Args:
        features: of the backbone.
        layer: which stage.
        size: of a frame's shorter side.

    Raises:
        UserError: the network has no such stage.
    """

    def __init__(self, features: Features, layer: str, size: int | None) -> None:
        self.features, self.size = features, size
        try:
            self.model = features.subject.build(output_stride=_STRIDE).to(features.device)
        except CheckpointError:  # it cannot be dilated
            self.model = features.model
        self.place = features.place(self.model, layer)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray, video: str) -> Tensor:
        pixels = self.features.normalise(np.array([middle(frame, self.size, None)]))
        precision = getattr(torch, self.features.config.precision)
        with torch.autocast(pixels.device.type, dtype=precision, enabled=precision != torch.float32):
            maps = self.features.maps(self.model, pixels, self.place)[0]
        if not bool(maps.isfinite().all()):
            raise UserError(f"{self.features.subject.label}: its features of video {video} are not finite: the weights "
                            "are damaged, or --features.precision has too small a range for them (try float32)")
        return maps

    def describe(self, video: Video) -> list[str]:
        """What a reader of the numbers should know of the features, seen on a video's first frame."""
        frame = _frame(video, 0)
        height, width = middle(frame, self.size, None).shape[:2]
        channels, rows, columns = self(frame, video.name).shape
        found = [f"Features are those of {self.features.stages(self.model)[self.place]}: {channels} channels at {rows} "
                 f"× {columns} places of frames of {height} × {width} pixels."]
        stride = round(width / columns)
        if stride > _STRIDE:
            found.append(f"They cannot be had at stride {_STRIDE}: places are {stride} pixels apart, so that outlines "
                         "are coarser and the radius reaches farther. Compare with care.")
        return found


def _require_annotations(video: Video) -> None:
    """Refuse what cannot be measured, before anything is computed.

    Raises:
        UserError: a video is too short, shows no object at first, or has no annotation to measure by.
    """
    if len(video) < 3:
        raise UserError(f"video {video.name} has {len(video)} frames, of which the first and the last are not "
                        "measured: it needs 3 or more")
    if not video.objects(0).any():
        raise UserError(f"video {video.name}: its first frame shows no object, so that there is nothing to propagate: "
                        "take it off the list")
    if all(video.objects(number) is None for number in range(1, len(video) - 1)):
        raise UserError(f"video {video.name}: none of its frames between the first and the last is annotated, so that "
                        "nothing can be measured: choose a split whose annotations are public, as val is")


def _frame(video: Video, number: int) -> np.ndarray:
    try:
        return video.frame(number)
    except UnreadableImage as error:
        raise UserError(error.told) from error
