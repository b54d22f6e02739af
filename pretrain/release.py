"""A pretrained backbone, ready to be given away: weights, model card and recipe in a folder of their own.

    python -m pretrain.release RUN TARGET
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from harness.errors import UserError, closest
from harness.files import file_digests, folder_atomically, write_text
from harness.program import run_program
from pretrain.checkpoints import RUNS, load_backbone, save_backbone
from pretrain.model_card import model_card, recipe_yaml
from pretrain.sources import SOURCES

WEIGHTS = "backbone.safetensors"
_IN_RUN = Path("checkpoints") / WEIGHTS
_NOT_RECIPE = ("name", "output", "resume", "plugin", "workers", "prefetch", "loop", "max_unreadable")
"""Fields of a configuration that say where and how a run runs, not what it computes."""


def release(run: str | Path, target: str | Path) -> Path:
    """Write a release: ``backbone.safetensors``, ``README.md`` (the model card) and ``recipe.yaml``.

    The folder appears whole or not at all, and the same run gives the same bytes. No path of the machine it was
    trained on is in it.

    Args:
        run: folder of a finished pretraining run, or its name in ``outputs``.
        target: folder to make; it must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        UserError: no such run, not finished, or the folder cannot be written.
    """
    folder, target = _find(run), Path(target).expanduser()
    if target.suffix == ".safetensors":
        raise UserError(f"{target} is a file's name: name a folder (for a file alone, use python -m "
                        "pretrain.checkpoints export)")
    if target.is_file() or target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target} is there already: choose another folder, or remove it")
    results, config = _results(folder), _config(folder)
    with folder_atomically(target) as temporary:
        facts = release_facts(folder, results, config)
        _write_weights(folder, temporary / WEIGHTS, facts)
        facts["sha256"] = file_digests(temporary / WEIGHTS, ["sha256"])["sha256"]
        write_text(temporary / "recipe.yaml", recipe_yaml(_recipe(config)))
        write_text(temporary / "README.md", model_card(facts))
    return target


def release_facts(folder: Path, results: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card and the weights' metadata say.

    Args:
        folder: of the run.
        results: its ``results.json``.
        config: its ``config.yaml``.
    """
    written = _metadata(folder / _IN_RUN)
    source = str(written.get("source", "unknown"))
    neighbors = config.get("neighbors") or {}
    return {
        "name": folder.resolve().name, "data": results.get("data", "unknown"), "images": results.get("images"),
        "source": source, "manifest": _manifest(config.get("data") or {}, source), "epochs": results.get("epochs"),
        "batch_size": config.get("batch_size"), "seed": results.get("seed"),
        "neighbors": bool(neighbors.get("k") and neighbors.get("weight")), "metrics": results.get("metrics") or {},
        "train_seconds": results.get("train_seconds") or 0.0, "processes": results.get("processes", 1),
        "plugins": [Path(plugin).name for plugin in config.get("plugin") or []],
        "versions": results.get("versions") or {},
    }


def _write_weights(folder: Path, path: Path, facts: dict[str, Any]) -> None:
    """Write the run's backbone, and note in the facts what it is."""
    model = load_backbone(folder / _IN_RUN)
    convention = model.pretrained_cfg
    facts.update(
        architecture=convention["architecture"], options=dict(convention["options"]), width=model.num_features,
        parameters=sum(value.numel() for value in model.parameters()),
        **{key: tuple(convention[key]) for key in ("mean", "std", "input_size")})
    kept = ("name", "data", "images", "source", "manifest", "epochs", "batch_size", "seed", "metrics", "versions")
    save_backbone(path, model, facts["architecture"], facts["mean"], facts["std"], facts["input_size"],
                  {"method": "moco", **{key: facts[key] for key in kept}}, facts["options"])


def _find(run: str | Path) -> Path:
    path = Path(run).expanduser()
    for folder in (path, RUNS / path):
        if (folder / "config.yaml").is_file():
            return folder
    if path.exists() or (RUNS / path).exists():
        raise UserError(f"{run} is no folder of a run (it has no config.yaml): give the folder of a pretraining run")
    runs = [entry.name for entry in RUNS.iterdir()] if RUNS.is_dir() else []
    raise UserError(f"there is no run {run}{closest(str(run), runs)}: give the folder of a pretraining run, or its "
                    f"name in {RUNS}/")


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"the run {folder} is not finished (it has no results.json): let the same command go on first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or run again") from error
    if not isinstance(results, dict) or results.get("kind") != "pretrain":
        raise UserError(f"{folder} is not a pretraining run: only those have a backbone to release")
    if not (folder / _IN_RUN).is_file():
        raise UserError(f"{folder / _IN_RUN} is missing: restore it, or run again")
    return results


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged or not a configuration of ours: restore it, or run again")
    return config


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in config.items() if key not in _NOT_RECIPE}
    return {**recipe, "data": _without_paths(recipe.get("data") or {})}


def _without_paths(value: Any) -> Any:
    """The same with every absolute path cut to its last part, and a bare root left out."""
    if isinstance(value, Mapping):
        return {key: _without_paths(entry) for key, entry in value.items() if key != "root"}
    if isinstance(value, list | tuple):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str) and ("/" in value or value.startswith("~")):
        return Path(value).name
    return value


def _manifest(data: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """Name, hash and origin of the list that the run read, if it still is what it was."""
    if data.get("name") != "list" or not data.get("manifest"):
        return None
    path = Path(data["manifest"]).expanduser()
    options = {key: value for key, value in data.items() if key in ("manifest", "root")}
    try:
        if SOURCES.get("list")(**options).fingerprint() != source:
            return None
        sha256 = file_digests(path, ["sha256"])["sha256"]
    except (UserError, OSError):
        return None  # moved or gone since; the fingerprint still tells which images they were
    made: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if facts["sha256"] == sha256:
            made = {"kind": facts["kind"], "classes": facts["classes"], **facts["options"]}
    return {"name": path.name, "sha256": sha256, "made": made}


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("metadata", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}: restore it, or run again") from error


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.release", description=__doc__.split("\n")[0])
    parser.add_argument("run", metavar="RUN", help="folder of a finished pretraining run, or its name in outputs/")
    parser.add_argument("target", metavar="TARGET", help="folder to make: weights, model card (README.md), recipe")
    options = parser.parse_args()
    target = release(options.run, options.target)
    print(f"released {options.run}: {', '.join(str(target / name) for name in (WEIGHTS, 'README.md', 'recipe.yaml'))}")
    return 0


if __name__ == "__main__":
    run_program(main)
