"""What a pretraining run leaves: results, backbone, figures, report."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import yaml
from torch import Tensor

from harness.config import as_dict
from harness.report import Curves, Section, pyplot, save_figure, write_report
from harness.run import Run, read_metrics
from harness.world import versions
from pretrain.checkpoints import save_backbone
from pretrain.engine import Pretraining
from pretrain.views import Views, collate

_PANELS = {
    "loss": ("loss", "instance_loss", "neighbor_loss"),
    "contrastive accuracy (%)": ("top1", "top5"),
    "embedding spread (1 = uniform)": ("embedding_std",),
    "effective rank of the features": ("feature_rank",),
    "neighbours from the same": ("neighbors_same_image", "neighbors_same_class"),
    "kNN accuracy on scenes (%)": ("knn_accuracy",),
    "learning rate": ("lr",),
    "queue age (batches)": ("queue_age",),
}


def warn_of_queue(pretraining: Pretraining) -> None:
    """Say it when the queue is as long as the data set or longer."""
    size, images = pretraining.config.queue.size, len(pretraining.source)
    if size >= images:
        pretraining.world.print(
            f"note: the queue holds {size} keys and there are {images} images, so every image is among its own "
            f"negatives; set --queue.size to at most {max(1, images // 2)}"
        )


def write_outcome(pretraining: Pretraining, run: Run) -> None:
    """Backbone, figures and report, and last of all ``results.json``, which means done."""
    config = pretraining.config
    backbone = run.folder / "checkpoints" / "backbone.safetensors"
    save_backbone(
        backbone, pretraining.moco.query.backbone, config.model.backbone, **pretraining.pretrained_cfg,
        options=config.model.backbone_options,
        metadata={"method": "moco", "epochs": config.epochs, "images": len(pretraining.source),
                  "source": pretraining.source.fingerprint()},
    )
    lines = read_metrics(run.folder)
    last: dict[str, Any] = {}
    for line in lines:
        last.update({key: value for key, value in line.items() if not isinstance(value, dict)})
    seconds = pretraining.seconds
    images = pretraining.batches.images_before(pretraining.step)
    results = {
        "name": run.folder.name, "kind": "pretrain", "data": config.data.name, "images": len(pretraining.source),
        "backbone": config.model.backbone, "epochs": config.epochs, "seed": config.seed,
        "metrics": {key: value for key, value in last.items() if key not in ("step", "epoch", "lr")},
        "unreadable": pretraining.unreadable, "remarks": pretraining.source.remarks(),
        "checkpoint": str(backbone), "train_seconds": seconds,
        "images_per_second": images / seconds if seconds else None, "threads": torch.get_num_threads(),
        "processes": pretraining.world.num_processes, "versions": versions(),
    }
    write_pretrain_report(pretraining, run, results)
    run.finish(results)
    print(f"pretrained {config.model.backbone} on {results['images']} images, {config.epochs} epochs, in "
          f"{seconds:.0f} s ({results['images_per_second'] or 0:.0f} images/s)\nbackbone: {backbone}\n"
          f"report:   {run.folder / 'report.html'}")


def write_pretrain_report(pretraining: Pretraining, run: Run, results: dict[str, Any]) -> None:
    """Figures and ``report.html``."""
    lines = read_metrics(run.folder)
    panels = {}
    for title, keys in _PANELS.items():
        for key in keys:
            points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
            if points:
                panels.setdefault(title, {})[key] = tuple(zip(*points, strict=True))
    curves = Curves(panels).draw(run.figures / "curves.png")
    views = draw_views(pretraining, run.figures / "views.png")
    figures = [(views, "Views of six images as the encoders see them: positive, key, then the local crops")]
    if pretraining.moco.queues.backbone is not None:
        figures.append((draw_neighbors(pretraining, run.figures / "neighbors.png"),
                        "Key views (left) and the images of their nearest neighbours in the backbone queue"))
    health = {**results["metrics"]}
    sections = [
        Section("Result", header=("quantity", "value"), rows=[
            ("images", results["images"]), ("epochs", results["epochs"]),
            ("training time", f"{results['train_seconds']:.0f} s"),
            ("images per second", f"{results['images_per_second'] or 0:.1f}"),
            ("unreadable images", len(results["unreadable"])), ("backbone", results["checkpoint"])]),
        Section("Health at the end", header=("quantity", "value"),
                rows=[(key, f"{value:.4g}") for key, value in health.items() if isinstance(value, float)]),
        Section("Curves", figures=[(curves, "Every logged step")]),
        Section("Views and neighbours", figures=figures),
        Section("Configuration", code=yaml.safe_dump(as_dict(pretraining.config), sort_keys=False)),
    ]
    if results["unreadable"]:
        sections.insert(2, Section("Unreadable images", header=("image", "reason"),
                                   rows=list(results["unreadable"].items())[:100]))
    write_report(run.folder / "report.html", f"Pretraining {run.folder.name}", sections,
                 f"{results['backbone']} on {results['data']}")


def draw_views(pretraining: Pretraining, path: Any, images: int = 6) -> Any:
    """A row of augmented views for each of the first images."""
    batch = _first_views(pretraining, images)
    augment, device = pretraining.augmentation, pretraining.world.device
    generator = torch.Generator().manual_seed(0)
    shared, local = batch["global"].to(device), batch["local"].to(device)
    positive = augment(shared[:, 0], generator=generator)
    key = augment(shared[:, 1], key=True, generator=generator)
    small = augment(local.flatten(0, 1), generator=generator).unflatten(0, local.shape[:2]) if local.shape[1] else []
    rows = [[positive[i], key[i], *(small[i] if len(small) else [])] for i in range(len(positive))]
    titles = ["positive", "key", *(f"local {i + 1}" for i in range(local.shape[1]))]
    return _grid([[_rgb(view, augment) for view in row] for row in rows], titles, path)


def draw_neighbors(pretraining: Pretraining, path: Any, images: int = 6, k: int = 6) -> Any:
    """Images whose keys in the queue are nearest to the key views of the first images."""
    moco, source = pretraining.moco, pretraining.source
    batch = _first_views(pretraining, images)
    keys = pretraining.augmentation(batch["global"][:, 1].to(pretraining.world.device), key=True,
                                    generator=torch.Generator().manual_seed(0))
    training = moco.key.training
    moco.key.eval()
    _, features = moco.key([keys[:, None]])
    moco.key.train(training)
    nearest = (features[:, 0] @ moco.queues.backbone.float().T).topk(min(k, moco.queues.size)).indices
    found = moco.queues.index[nearest].cpu()
    rows = [[batch["global"][i, 1].permute(1, 2, 0).numpy(), *(_thumbnail(source, int(j)) for j in found[i])]
            for i in range(len(found))]
    return _grid(rows, ["key", *(f"neighbour {j + 1}" for j in range(found.shape[1]))], path)


def _first_views(pretraining: Pretraining, images: int) -> dict[str, Any]:
    views = Views(pretraining.source, pretraining.crops, pretraining.config.seed)
    return collate([views[0, number] for number in range(min(images, len(views)))])


def _thumbnail(source: Any, number: int) -> Any:
    import numpy as np
    from PIL import Image

    if number < 0:
        return np.full((64, 64, 3), 255, np.uint8)
    image = source.open(number)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.asarray(image.resize((96, 96)))


def _rgb(view: Tensor, augmentation: Any) -> Any:
    image = (view * augmentation.std + augmentation.mean).clamp(0, 1)
    return image.permute(1, 2, 0).cpu().numpy()


def _grid(rows: list[list[Any]], titles: list[str], path: Any) -> Any:
    plt = pyplot()
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(1.5 * len(titles), 1.5 * len(rows)), squeeze=False)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes[row][column].imshow(image)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.tight_layout(pad=0.3)
    return save_figure(figure, path)
