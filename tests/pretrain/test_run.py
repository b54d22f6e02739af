"""The pretraining program from its command line to what it leaves."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch
import yaml

from harness.run import read_metrics


def test_what_a_run_leaves(programs):
    done = programs.main("pretrain", "--name=first", "--loop.log_steps=2", "--probe={every: 1, images: 16, k: 3}")
    assert done.code == 0, done.err
    folder = programs.folder / "outputs" / "first"
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "metrics.jsonl", "results.json", "checkpoints", "report.html", "figures"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.pt", "backbone.safetensors"}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"] == {"name": "scenes", "count": 64, "size": 48, "root": None} and config["neighbors"]["k"] == 3
    lines = read_metrics(folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    assert set(steps[0]) == {
        "step", "epoch", "loss", "instance_loss", "neighbor_loss", "top1", "top5", "embedding_std", "feature_rank",
        "neighbors_same_image", "neighbors_same_class", "queue_age", "queue_filled", "lr", "time"}
    for line in steps:
        assert line["loss"] == pytest.approx(line["instance_loss"] + 0.4 * line["neighbor_loss"], rel=1e-5)
    probes = [line for line in lines if "knn_accuracy" in line]
    assert [(line["step"], line["epoch"]) for line in probes] == [(4, 0), (8, 1)]
    assert all(0 <= line["knn_accuracy"] <= 100 for line in probes)
    results = json.loads((folder / "results.json").read_text())
    assert results["kind"] == "pretrain" and results["images"] == 64 and results["unreadable"] == {}
    assert results["train_seconds"] > 0 and results["images_per_second"] > 0 and results["threads"] == 1
    page = (folder / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"(src|href)=\"(?!data:)|https?://", page)

    again = programs.main("pretrain", "--name=first", "--loop.log_steps=2", "--probe={every: 1, images: 16, k: 3}")
    assert again.code == 0 and again.out.strip().endswith(
        "outputs/first is finished; its report is outputs/first/report.html")

    from pretrain import inspect_checkpoint, load_backbone
    from transfer.demo import newest_pretraining

    model = load_backbone("first")
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["query"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[f"backbone.{key}"])
    info = inspect_checkpoint(folder)
    assert info.architecture == "resnet18" and not info.missing and not info.unexpected
    same = SimpleNamespace(**config["model"])
    assert newest_pretraining(programs.folder / "outputs", same).name == "first"


def test_a_new_run_goes_on_from_a_checkpoint_with_another_recipe(programs):
    """What an error of a diverged run tells the user to do."""
    assert programs.main("pretrain", "--output=first", "--optimizer.name=sgd", "--loop.log_steps=3").code == 0
    lines = read_metrics(programs.folder / "first")
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert all("neighbors_same_image" in line and "neighbors_same_class" in line for line in lines), "the last one too"
    path = programs.folder / "first" / "checkpoints" / "last.pt"
    done = programs.main("pretrain", f"--resume={path}", "--name=second", "--epochs=3", "--optimizer.name=sgd",
                         "--optimizer.lr=0.01", "--optimizer.weight_decay=0.5", "--optimizer.momentum=0.8")
    assert done.code == 0 and "continues" in done.out and "at step 8" in done.out, done.err
    folder = programs.folder / "outputs" / "second"
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [9, 10, 11, 12]
    assert lines[0]["lr"] == pytest.approx(0.01 * 0.25)  # the cosine after two of three epochs
    first, second = (torch.load(file, weights_only=True) for file in (path, folder / "checkpoints" / "last.pt"))
    group = second["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], group["momentum"]) == (0.5, 0.8) and second["step"] == 12
    assert first["optimizer"]["param_groups"][0]["momentum"] == 0.9


def test_ingredients_are_switches(programs):
    """Every ingredient off: plain MoCo."""
    done = programs.main("pretrain", "--output=run", "--epochs=1", "--crops.local_crops=0", "--neighbors.k=0",
                         "--augmentation.name=standard", "--crops.min_overlap=null", "--model.batch_norm_splits=2",
                         "--queue.precision=float16")
    assert done.code == 0, done.err
    lines = read_metrics(programs.folder / "run")
    assert all(line["neighbor_loss"] == 0 and line["loss"] == line["instance_loss"] for line in lines)


def test_workers_prefetching_and_logging_do_not_change_results(programs, same_runs):
    from pretrain.checkpoints import content_digest

    for name, options in (("a", ["--workers=0"]), ("b", ["--workers=2", "--prefetch=1", "--loop.save_steps=3"])):
        assert programs.main("pretrain", f"--output={name}", *options).code == 0
    same_runs(programs.folder / "a", programs.folder / "b")
    assert content_digest(programs.folder / "a") == content_digest(programs.folder / "b"), "the same bytes"


def test_accumulation_sees_the_whole_batch(programs):
    """Parts of a batch have the queue of the whole: with a group-norm network the weights are the same."""
    norm = ["--model.backbone=resnet18", "--model.backbone_options={channels: [8, 8, 16, 16], norm_layer: groupnorm1}"]
    for name, parts in (("whole", 1), ("parts", 3)):
        done = programs.main("pretrain", f"--output={name}", "--epochs=1", f"--accumulation={parts}", *norm,
                             "--augmentation.name=none", "--optimizer.name=sgd", "--optimizer.lr=0.03")
        assert done.code == 0, done.err
    states = [torch.load(programs.folder / name / "checkpoints" / "last.pt", weights_only=True)
              for name in ("whole", "parts")]
    for group in ("query", "key", "queues"):
        for key, value in states[0][group].items():
            if isinstance(value, torch.Tensor):
                assert torch.allclose(value.double(), states[1][group][key].double(), atol=2e-5), (group, key)


def test_neighbours_are_mined_before_enqueueing_and_keys_stay_aligned(programs):
    """What a step writes is what its loss did not see, head and backbone features in the same slots."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    import pretrain.engine as engine
    from harness.config import load
    from pretrain.config import PretrainConfig
    from pretrain.views import Views, collate

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    run = engine.Pretraining(load(PretrainConfig, programs.options("pretrain")), Accelerator(cpu=True))
    seen = []
    terms = engine.contrastive_terms

    def spy(query, keys, queue, query_backbone, queue_backbone, **options):
        seen.append((keys.clone(), queue.clone(), queue_backbone.clone()))
        return terms(query, keys, queue, query_backbone, queue_backbone, **options)

    engine.contrastive_terms = spy
    try:
        views = Views(run.source, run.crops, 0)
        run.moco.train()
        for start in (0, 16, 32):
            run.train_step(collate([views[0, i] for i in range(start, start + 16)]))
    finally:
        engine.contrastive_terms = terms
    queues = run.moco.queues
    before, after = seen[2][1], queues.head
    changed = (before != after).any(1)
    assert changed.sum() == 16, "40 slots, the third batch wraps around"
    assert sorted(queues.index[changed].tolist()) == list(range(32, 48))
    for number, key in zip(range(32, 48), seen[2][0], strict=True):
        slot = (queues.index == number).nonzero().item()
        assert torch.equal(queues.head[slot], key) and changed[slot]
    assert ((seen[2][2] != queues.backbone).any(1) == changed).all()
    assert (seen[2][1] @ seen[2][0].T).max() < 0.9999, "no key of this batch is among its negatives"
