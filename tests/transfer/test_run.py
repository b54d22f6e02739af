"""The transfer program from its command line to what it leaves."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from harness.checkpoint import load_file
from harness.run import read_metrics
from pretrain import load_backbone
from transfer.delta import delta_mtl

CONTRACT = {
    "name": str, "dataset": str, "architecture": str, "backbone": str, "weights": str | None, "strategy": dict,
    "seed": int, "metrics": dict, "primary": dict, "higher_is_better": dict, "single_task": dict | None,
    "delta_mtl": float | None, "parameters": int, "macs": int, "train_seconds": float, "step_seconds": float,
    "threads": int, "versions": dict,
}


def build(programs, *options):
    """A :class:`Transfer` with the tiny configuration."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.engine import Transfer

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Transfer(load(TransferConfig, programs.options("transfer", *options)), Accelerator(cpu=True))


def batch(transfer, indices, epoch=0):
    from transfer.data.loading import Augmented, collate

    data = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    return collate([data[epoch, i] for i in indices], transfer.tasks)


def check_results(results):
    for key, kind in CONTRACT.items():
        assert isinstance(results[key], kind), key
    assert set(results["strategy"]) == {"balance", "schedule", "partition"}
    tasks = set(results["metrics"])
    assert set(results["primary"]) == tasks == set(results["higher_is_better"])
    for task in tasks:
        assert results["primary"][task] in results["metrics"][task]
        assert all(isinstance(value, float) for value in results["metrics"][task].values())
        assert isinstance(results["higher_is_better"][task], bool)


def offline(page):
    sources = re.findall(r'src="([^"]{0,40})', page)
    return sources and all(source.startswith("data:image/png;base64,") for source in sources) \
        and not re.search(r"(src|href)=\"(?!data:)|https?://", page)


def test_baselines_results_and_comparison(programs):
    """``--baseline auto`` trains each single-task network once; a second run trains only itself."""
    options = ["--baseline=auto", "--tasks=[depth, normals]", "--balance.name=fixed", "--balance.weights={normals: 2}"]
    first = programs.main("transfer", "--name=first", *options)
    assert first.code == 0, first.err
    singles = sorted(path for path in (programs.folder / "outputs" / "single_task").iterdir() if path.is_dir())
    assert [path.name.split("-")[1] for path in singles] == ["depth", "normals"]
    folder = programs.folder / "outputs" / "first"
    results = json.loads((folder / "results.json").read_text())
    check_results(results)
    assert results["weights"] is None and results["backbone"] == "resnet18" and results["seed"] == 0
    assert results["strategy"] == {"balance": "fixed", "schedule": "shared", "partition": "full"}
    for path, task in zip(singles, ("depth", "normals"), strict=True):
        single = json.loads((path / "results.json").read_text())
        check_results(single)
        assert single["architecture"] == "single_task" and single["single_task"] is None is single["delta_mtl"]
        assert results["single_task"][task] == single["metrics"][task]
    chosen = [{task: source[task][results["primary"][task]] for task in ("depth", "normals")}
              for source in (results["metrics"], results["single_task"])]
    assert results["delta_mtl"] == pytest.approx(delta_mtl(*chosen, results["higher_is_better"]))
    assert f"{results['delta_mtl']:+.2f}"[:4] in first.out and "report: outputs/first/report.html" in first.out
    assert offline((folder / "report.html").read_text())
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.pt", "backbone.safetensors"}
    # as that of a pretraining run; at its output stride, layers of as many channels have one projection less
    backbone = load_backbone(folder, features_only=True, min_matched=0.9).state_dict()
    trained = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]
    of_last = {key.partition("backbone.")[2]: value for key, value in trained.items() if "backbone." in key}
    assert len(of_last) > 100 and all(torch.equal(backbone[key], value) for key, value in of_last.items())

    written = [(path / "results.json").stat().st_mtime_ns for path in singles]
    second = programs.main("transfer", "--name=second", *options, "--balance.weights={depth: 3}")
    assert second.code == 0 and "single-task network for" not in second.out
    assert written == [(path / "results.json").stat().st_mtime_ns for path in singles]
    assert len([path for path in singles[0].parent.iterdir() if path.is_dir()]) == 2
    again = programs.main("transfer", "--name=second", *options, "--balance.weights={depth: 3}")
    assert again.code == 0 and "outputs/second is finished; its report is" in again.out

    late = ["--name=late", "--balance.weights={depth: 4}"]  # without a baseline at first: only the comparison is added
    assert programs.main("transfer", *options, *late, "--baseline=none").code == 0
    path = programs.folder / "outputs" / "late" / "results.json"
    before = json.loads(path.read_text())
    assert before["delta_mtl"] is None and programs.main("transfer", *options, *late).code == 0
    after = json.loads(path.read_text())
    assert after["delta_mtl"] is not None and after["single_task"] == results["single_task"]
    assert {**after, "delta_mtl": None, "single_task": None} == before

    alone = ["--tasks=[depth]", "--balance.name=equal"]
    named = programs.main("transfer", "--name=third", *alone, f"--baseline={singles[0]}")
    assert named.code == 0
    third = json.loads((programs.folder / "outputs" / "third" / "results.json").read_text())
    assert third["single_task"] == {"depth": results["single_task"]["depth"]}
    wrong = programs.main("transfer", "--name=fourth", *alone, f"--baseline={singles[1]}").error
    assert wrong == f"--baseline: no run of depth among {singles[1]}: give one for each task"

    files = ["--markdown=t.md", "--latex=t.tex", "--report=t.html"]
    compared = programs.call("transfer.compare", "first", "outputs/second", *files)
    assert compared.code == 0 and "normals mean_angle" in compared.out, compared.err
    assert (programs.folder / "t.md").read_text().startswith("|")
    assert "\\toprule" in (programs.folder / "t.tex").read_text()
    assert offline((programs.folder / "t.html").read_text())
    assert programs.call("transfer.compare", "outputs/single_task").code == 0
    (programs.folder / "bare").mkdir()
    assert programs.call("transfer.compare", "bare").error.startswith("bare holds no finished transfer run: give")
    assert "absent has no results.json" in programs.call("transfer.compare", "absent").error


def test_mistakes_are_found_before_baselines_are_trained(programs):
    options = ["--output=run", "--baseline=auto", "--tasks=[depth]"]
    weights = ["--balance.name=fixed", "--balance.weights={normals: 2}"]
    assert "balance.weights has a weight for" in programs.main("transfer", *options, *weights).error
    assert "nothing is validated" in programs.main("transfer", *options, "--evaluation.select=best").error
    assert "evaluation.split" in programs.main(
        "transfer", *options, "--balance.name=equal", "--evaluation.split=tests").error
    (programs.folder / "run" / "config.yaml").write_text("epochs: 99\n")
    assert "belongs to another configuration" in programs.main("transfer", *options, "--balance.name=equal").error
    assert not (programs.folder / "outputs").exists()


def test_dense_and_image_tasks_together_and_the_best_epoch(programs):
    tasks = ["semseg", "edge", "saliency", "parts", "scene", "attributes"]
    done = programs.main("transfer", "--output=run", f"--tasks=[{', '.join(tasks)}]", "--balance.name=equal",
                         "--epochs=3", "--evaluation.every=1", "--evaluation.select=best", "--optimizer.lr=0.01",
                         "--evaluation.split=val")
    assert done.code == 0, done.err
    folder = programs.folder / "run"
    results = json.loads((folder / "results.json").read_text())
    check_results(results)
    assert list(results["metrics"]) == tasks and results["split"] == "val"
    validated = [line for line in read_metrics(folder) if "val" in line]
    assert [line["epoch"] for line in validated] == [0, 1, 2] and validated[0]["score"] == 0
    best = max(validated, key=lambda line: line["score"])
    assert load_file(folder / "checkpoints" / "best.pt")["step"] == best["step"]
    for task, metrics in best["val"].items():
        for name, value in metrics.items():
            assert results["metrics"][task][name] == value or math.isnan(value), (task, name)


def test_pretrained_weights_start_a_run(programs):
    assert programs.main("pretrain", "--name=source", "--epochs=1").code == 0
    done = programs.main("transfer", "--output=run", "--model.weights=source", "--tasks=[depth]",
                         "--balance.name=equal", "--epochs=1")
    assert done.code == 0, done.err
    results = json.loads((programs.folder / "run" / "results.json").read_text())
    assert results["weights"] == "source" and results["backbone"] == "resnet18"
    transfer = build(programs, "--model.weights=source", "--tasks=[depth]", "--balance.name=equal")
    source = load_file(programs.folder / "outputs" / "source" / "checkpoints" / "last.pt")["query"]
    started = transfer.model.state_dict()
    key = next(name for name in started if name.endswith("backbone.conv1.weight") or name.endswith("conv1.weight"))
    assert torch.equal(started[key], source["backbone.conv1.weight"])


@pytest.mark.parametrize("parts", [3, 4])
def test_accumulation_equals_the_whole_batch(programs, parts):
    """With batch norm's statistics fixed, the parts of a batch give the whole batch's step.

    Labels are unevenly spread over the parts, so losses that were averaged part by part would fail.
    """
    weights = {}
    for pieces in (1, parts):
        transfer = build(programs, f"--accumulation={pieces}", "--optimizer.name=sgd", "--optimizer.lr=0.05",
                         "--tasks=[semseg, depth, normals, edge, scene]")
        transfer.model.eval()
        data = batch(transfer, [0, 1, 2, 3])
        data["targets"]["semseg"][:2] = 255
        data["targets"]["depth"][3] = 0
        data["targets"]["scene"][1:] = -1
        transfer.train_step(data)
        weights[pieces] = [value.detach().clone() for value in transfer.model.parameters()], \
            {name: float(loss) for name, loss in transfer.losses.items()}
    assert weights[1][1] == pytest.approx(weights[parts][1], rel=1e-5)
    for whole, cut in zip(weights[1][0], weights[parts][0], strict=True):
        assert torch.allclose(whole, cut, atol=1e-6)


def test_missing_labels_leave_a_task_alone(programs):
    """A batch without any label of a task: its loss is 0, and its own parameters get no gradient."""
    transfer = build(programs, "--optimizer.name=sgd", "--optimizer.lr=0.05", "--optimizer.weight_decay=0",
                     "--optimizer.momentum=0", "--tasks=[semseg, depth]")
    transfer.model.train()
    data = batch(transfer, [0, 1, 2, 3])
    data["targets"]["depth"][:] = 0
    own = [value.detach().clone() for value in transfer.model.task_parameters("depth")]
    other = [value.detach().clone() for value in transfer.model.task_parameters("semseg")]
    transfer.train_step(data)
    assert float(transfer.losses["depth"]) == 0 and float(transfer.losses["semseg"]) > 0
    assert own and all(torch.equal(a, b) for a, b in zip(own, transfer.model.task_parameters("depth"), strict=True))
    assert any(not torch.equal(a, b)
               for a, b in zip(other, transfer.model.task_parameters("semseg"), strict=True))


def test_fixed_weights_scale_gradients(programs):
    gradients = {}
    for weight in (1.0, 0.25):
        transfer = build(programs, "--tasks=[depth]", "--balance.name=fixed", f"--balance.weights={{depth: {weight}}}",
                         "--optimizer.name=sgd", "--optimizer.lr=1", "--optimizer.weight_decay=0",
                         "--optimizer.momentum=0", "--lr_schedule.name=constant")
        transfer.model.eval()
        before = [value.detach().clone() for value in transfer.model.parameters()]
        transfer.train_step(batch(transfer, [0, 1]))
        gradients[weight] = [b - a.detach() for a, b in zip(transfer.model.parameters(), before, strict=True)]
    for full, quarter in zip(gradients[1.0], gradients[0.25], strict=True):
        assert torch.allclose(full * 0.25, quarter, atol=1e-6)


def test_workers_do_not_change_results(programs, same_runs):
    for name, options in (("a", ["--workers=0"]), ("b", ["--workers=2", "--loop.save_steps=1"])):
        assert programs.main("transfer", f"--output={name}", "--tasks=[depth, normals]", "--balance.name=equal",
                             *options).code == 0
    same_runs(programs.folder / "a", programs.folder / "b")
