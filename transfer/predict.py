"""Predictions of a finished run: ``python -m transfer.predict --run RUN IMAGES|FOLDER|VIDEO``.

Writes each task's map as PNG and NPY at the image's own resolution, and a colour panel of each image; and with
``--export`` or ``--onnx`` a file of the network that other programs run. See docs/predict.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.program import run_program


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m transfer.predict",
                                      description="Predict images, folders of images and films with a finished run.")
    command.add_argument("inputs", nargs="*", metavar="IMAGE|FOLDER|VIDEO", help="what to predict")
    command.add_argument("--run", required=True, metavar="RUN", help="folder or name of a finished transfer run")
    command.add_argument("--output", metavar="DIR", help="folder for the files; by default RUN/predictions")
    command.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks to predict; all of the run by default")
    command.add_argument("--formats", nargs="+", choices=("png", "npy", "panel"), default=["png", "npy", "panel"],
                         help="what to write of each image")
    command.add_argument("--size", nargs="+", type=int, metavar="N",
                         help="side, or height and width, at which the network sees the images; by default the size "
                              "that the run was evaluated at, or else each image's own")
    command.add_argument("--flip", action="store_true", help="average over the mirrored image too")
    command.add_argument("--scales", nargs="+", type=float, default=[1.0], metavar="S",
                         help="average over enlargements of the image")
    command.add_argument("--every", type=int, default=1, metavar="N", help="each N-th frame of films only")
    command.add_argument("--batch_size", type=int, default=8, help="images of one size at once")
    command.add_argument("--device", help="cpu or cuda; by default a GPU where there is one")
    command.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it at torch's default")
    command.add_argument("--export", metavar="FILE.pt2", help="write the network as a torch.export archive")
    command.add_argument("--onnx", metavar="FILE.onnx", help="write the network as ONNX")
    return command


def main() -> int:
    """The command; 1 when something could not be read."""
    arguments = parser().parse_args()
    if not arguments.inputs and not arguments.export and not arguments.onnx:
        raise UserError("nothing to do: give images, a folder or a film, or --export or --onnx")
    if arguments.batch_size < 1 or arguments.every < 1:
        raise UserError("--batch_size and --every must be at least 1")
    if arguments.size is not None and len(arguments.size) > 2:
        raise UserError("--size takes one number, or two (height and width)")
    for path, suffix in ((arguments.export, ".pt2"), (arguments.onnx, ".onnx")):
        if path:
            _check_export(Path(path), suffix, arguments)
    from transfer.prediction.sources import Sources

    sources = Sources(arguments.inputs, arguments.every)  # a wrong path is told before torch is loaded

    import torch

    from transfer.prediction.predictor import Predictor
    from transfer.prediction.run import check_tasks, load_run
    from transfer.results import read_results, run_folder

    check_tasks(arguments.tasks or (), read_results(run_folder(arguments.run))["metrics"])
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {arguments.device}: {' '.join(str(error).split())[:120]}") from error
    run = load_run(arguments.run, device)
    size = arguments.size and (arguments.size[0] if len(arguments.size) == 1 else tuple(arguments.size))
    predictor = Predictor(run, arguments.flip, arguments.scales, size, arguments.tasks)
    code = predict(predictor, sources, arguments) if arguments.inputs else 0
    for path in (arguments.export, arguments.onnx):
        if path:
            _export(predictor, Path(path))
    return code


def predict(predictor: Any, sources: Any, arguments: argparse.Namespace) -> int:
    """Predict everything and write it; 1 when something was left out."""
    from harness.images import UnreadableImage
    from harness.progress import progress
    from transfer.prediction.writing import Writer

    folder = Path(arguments.output) if arguments.output else predictor.run.folder / "predictions"
    writer = Writer(folder, predictor.tasks, arguments.formats)
    failed: list[str] = []
    done = 0

    def readable() -> Iterator[tuple[Any, Any]]:
        for picture in sources:
            try:
                yield picture, picture.read()
            except UnreadableImage as error:
                failed.append(f"{error.source}: {error.reason}")
                bar.write(f"skipped {failed[-1]}", file=sys.stderr)
                bar.update()

    with progress(len(sources), description="predict") as bar:
        try:
            for pictures, images in _batches(readable(), arguments.batch_size):
                for picture, image, found in zip(pictures, images, predictor.found(images), strict=True):
                    writer.add(picture, image, found.arrays, found.scores)
                done += len(images)
                bar.update(len(images))
        finally:
            writer.close()
    for line in sources.failed:
        print(f"skipped {line}", file=sys.stderr)
    failed += sources.failed
    print(f"{done} image{'s' * (done != 1)} predicted: {', '.join(predictor.tasks)} in {folder}")
    if failed:
        print(f"{len(failed)} could not be read (named above)", file=sys.stderr)
    return 1 if failed else 0


def _batches(pairs: Iterator[tuple[Any, Any]], most: int) -> Iterator[tuple[list, list]]:
    """Consecutive images of one size, so many at most."""
    pictures: list = []
    images: list = []
    for picture, image in pairs:
        if images and (len(images) == most or images[0].shape != image.shape):
            yield pictures, images
            pictures, images = [], []
        pictures.append(picture)
        images.append(image)
    if images:
        yield pictures, images


def _check_export(path: Path, suffix: str, arguments: argparse.Namespace) -> None:
    """Refuse, before anything is predicted, what could not be written."""
    if path.suffix.lower() != suffix:
        raise UserError(f"{path}: the file's name must end in {suffix}")
    if arguments.flip or arguments.scales != [1.0]:
        raise UserError(f"{path}: a model file sees each image once: leave out --flip and --scales")


def _export(predictor: Any, path: Path) -> None:
    from transfer.prediction.export import export

    print(export(predictor.network, list(predictor.tasks), path, _example_size(predictor), predictor.channels))


def _example_size(predictor: Any) -> Sequence[int]:
    """Height and width to export with: those asked for, or else of training, or 256."""
    from transfer.transforms import as_size

    trained = predictor.run.config.augmentation.options.get("size")
    return predictor.size or as_size(trained if trained is None or isinstance(trained, int) else tuple(trained),
                                     "augmentation") or (256, 256)


if __name__ == "__main__":
    run_program(main)
