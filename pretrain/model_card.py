"""The page that comes with a released backbone: what it is, what it was trained on, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

LICENCE = "*To be named by whoever publishes these weights; the images' own licence may bind them too.*"
_HEALTH = {
    "feature_rank": "effective rank of the backbone's features in a batch (1: collapsed; at most their width)",
    "embedding_std": "spread of the embeddings: standard deviation × √C (0: collapsed; 1: uniform on the sphere)",
    "loss": "loss", "instance_loss": "loss of the image's own views", "neighbor_loss": "loss of the neighbours",
    "top1": "contrastive accuracy, first (%)", "top5": "contrastive accuracy, first five (%)",
    "neighbors_same_image": "neighbours that show the same image (share)",
    "neighbors_same_class": "neighbours of the same class (share)", "knn_accuracy": "kNN accuracy on scenes (%)",
}


def health_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the figures that tell whether the features are sound, in the order of the card.

    Args:
        metrics: the last ones of a run.
    """
    return [(text, f"{metrics[key]:.4g}") for key, text in _HEALTH.items()
            if isinstance(metrics.get(key), int | float)]


def model_card(facts: Mapping[str, Any]) -> str:
    """Markdown of the page.

    Args:
        facts: what :func:`pretrain.release.release_facts` finds.
    """
    size, mean, std = (", ".join(map(str, facts[key])) for key in ("input_size", "mean", "std"))
    options = ", ".join(f"{key}={value!r}" for key, value in facts["options"].items())
    timm_arguments = f'"{facts["architecture"]}", num_classes=0' + (f", {options}" if options else "")
    images = [("images", facts["images"]), ("source", f"`{facts['data']}`"), ("fingerprint", f"`{facts['source']}`")]
    manifest = facts["manifest"]
    if manifest:
        images.append(("list", f"`{manifest['name']}`, sha256 `{manifest['sha256']}`"))
        images += [(key.replace("_", " "), value) for key, value in manifest["made"].items()]
    training = [("method", "MoCo with multi-crop" + (" and nearest neighbours" if facts["neighbors"] else "")),
                ("epochs", facts["epochs"]), ("batch size", facts["batch_size"]), ("seed", facts["seed"]),
                ("time", f"{_duration(facts['train_seconds'])}, {facts['processes']} process(es)")]
    files = [("architecture", f"timm `{facts['architecture']}`" + (f" with {options}" if options else "")),
             ("parameters", f"{facts['parameters'] / 1e6:.2f} million"), ("features", facts["width"]),
             ("input", f"RGB in 0 to 1, minus {mean}, divided by {std}; trained at {size}"),
             ("sha256", f"`{facts['sha256']}`")]
    parts = [
        "---\nlibrary_name: timm\npipeline_tag: image-feature-extraction\ntags: [self-supervised, contrastive]\n---",
        f"# {facts['name']}",
        f"A {facts['architecture']} backbone, no classifier, pretrained on {facts['images']} images without labels.",
        "## Use",
        "```python\nfrom pretrain import load_backbone\n\n"
        'model = load_backbone("backbone.safetensors", features_only=True).eval()  # or this folder\n'
        "features = model(images)  # images: [B, 3, H, W]; a list of maps, fine to coarse\n```",
        "Without this project, timm reads it:",
        "```python\nimport timm\nfrom safetensors.torch import load_file\n\n"
        f"model = timm.create_model({timm_arguments})\n"
        'model.load_state_dict(load_file("backbone.safetensors"))\n```',
        "## Weights", _table(files),
        "## Images", _table(images),
        "## Training", _table(training),
        "The whole recipe is `recipe.yaml`: `accelerate launch pretrain/main.py --config recipe.yaml`"
        + ("." if facts["data"] == "scenes" else ", with where the images are (`--data.root` and the like).")
        + (f" It needs the plugins {', '.join(facts['plugins'])} (`--plugin`)." if facts["plugins"] else ""),
        "## Health", "Of the last logged step.", _table(health_rows(facts["metrics"])),
        "## Versions", _table(facts["versions"].items()),
        "## Licence", LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def recipe_yaml(recipe: Mapping[str, Any]) -> str:
    """The configuration as it is released."""
    return "# What this backbone was trained with; where the images lie is left out.\n" + yaml.safe_dump(
        dict(recipe), sort_keys=False)


def _duration(seconds: float) -> str:
    units = ((3600, "hours"), (60, "minutes"))
    return next((f"{seconds / unit:.1f} {name}" for unit, name in units if seconds >= unit), f"{seconds:.0f} seconds")


def _table(rows: Any) -> str:
    def cell(value: Any) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    lines = [f"| {cell(key)} | {cell(value)} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else "Nothing was recorded."
