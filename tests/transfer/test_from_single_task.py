"""Cross-stitch and NDDR networks start from trained single-task networks."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from harness.checkpoint import load_file
from harness.config import load
from harness.errors import UserError
from transfer.config import TransferConfig

TASKS = ["--tasks=[depth, normals]", "--model.head=linear", "--epochs=1"]


def singles(programs):
    return sorted(path for path in (programs.folder / "outputs" / "single_task").iterdir() if path.is_dir())


def test_trained_on_the_spot(programs):
    """Once, as the baselines are; then named; and with α 1, β 0 the columns predict what those networks do."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    from transfer.engine import Transfer
    from transfer.single_task_start import load_single_tasks, single_task_checkpoints

    first = programs.main("transfer", "--name=first", "--model.name=nddr", *TASKS)
    assert first.code == 0, first.err
    depth, normals = singles(programs)
    assert f"starts from {depth.relative_to(programs.folder)}, {normals.relative_to(programs.folder)}" in first.out
    stamps = [(path / "results.json").stat().st_mtime_ns for path in (depth, normals)]

    again = programs.main("transfer", "--name=second", "--model.name=cross_stitch", "--baseline=auto", *TASKS)
    assert again.code == 0 and singles(programs) == [depth, normals]
    assert [(path / "results.json").stat().st_mtime_ns for path in (depth, normals)] == stamps
    results = json.loads((programs.folder / "outputs" / "second" / "results.json").read_text())
    assert results["single_task"] and isinstance(results["delta_mtl"], float)

    named = f"--model.from_single_task=[{normals}, {depth}]"
    options = ["--model.name=cross_stitch", "--model.alpha=1", "--model.beta=0", named, *TASKS]
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config, world = load(TransferConfig, programs.options("transfer", *options)), Accelerator(cpu=True)
    transfer = Transfer(config, world)
    load_single_tasks(transfer.model, single_task_checkpoints(config, world))
    metrics = transfer.evaluate("test")
    for folder, task in ((depth, "depth"), (normals, "normals")):
        single = json.loads((folder / "results.json").read_text())["metrics"][task]
        assert metrics[task] == pytest.approx(single, rel=1e-4)
        state = load_file(folder / "checkpoints" / "last.pt")["model"]
        assert torch.equal(transfer.model.encoders[task].backbone["conv1"].weight.cpu(),
                           state["encoder.backbone.conv1.weight"])

    # Named by a list or with commas; the content is what counts, not the path.
    moved = programs.folder / "moved"
    normals.rename(moved)
    by_list = programs.main("transfer", "--output=run", "--model.name=nddr",
                            f"--model.from_single_task=[{depth}, {moved}]", *TASKS)
    assert by_list.code == 0, by_list.err
    assert yaml.safe_load((programs.folder / "run" / "config.yaml").read_text())["model"]["from_single_task"] \
        == [str(depth), str(moved)]
    moved.rename(normals)
    finished = programs.main("transfer", "--output=run", "--model.name=nddr",
                             f"--model.from_single_task={depth},{normals}", *TASKS)
    assert finished.code == 0 and "run is finished" in finished.out
    refused = programs.main("transfer", "--output=run", "--model.name=nddr", "--model.from_single_task=none", *TASKS)
    assert refused.code == 2 and "from_single_task" in refused.err


def test_none_and_resumed(programs, monkeypatch):
    """Without them; and a run that goes on does not ask for them again."""
    import os
    import signal

    import transfer.single_task_start as start
    from transfer.engine import Transfer

    options = ["--output=run", "--model.name=nddr", "--model.from_single_task=none", *TASKS]
    step = Transfer.train_step

    def interrupted(self, batch):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "train_step", interrupted)
        stopped = programs.main("transfer", *options)
    assert stopped.code == 143 and "starts from" not in stopped.out
    assert not (programs.folder / "outputs").exists()
    monkeypatch.setattr(start, "single_task_checkpoints", lambda *_: pytest.fail("asked again"))
    rest = programs.main("transfer", *options)
    assert rest.code == 0 and "continues run/checkpoints/last.pt at step 2" in rest.out


def test_mistakes(programs):
    assert programs.main("transfer", "--output=depth", "--model.name=single_task", "--tasks=[depth]",
                         "--model.head=linear", "--epochs=1").code == 0
    other = programs.folder / "other"
    other.mkdir()
    results = json.loads((programs.folder / "depth" / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "architecture": "baseline"}))
    for options, message in [
        (["--model.name=baseline", "--model.from_single_task=depth"],
         "model.from_single_task: architecture 'baseline' does not start from single-task networks: leave it out"),
        (["--model.name=nddr", "--model.from_single_task=depth"],
         "model.from_single_task: no run of normals among depth: give one for each task, or auto"),
        (["--model.name=nddr", "--model.from_single_task=[depth, absent]"], "absent has no results.json: give the"),
        (["--model.name=nddr", "--model.from_single_task=other"],
         "model.from_single_task: other is a run of 'baseline': give single-task runs"),
        (["--model.name=nddr", "--model.from_single_task=depth", "--tasks=[depth]", "--model.head=fcn"],
         "depth/checkpoints/last.pt: "),
    ]:
        error = programs.main("transfer", "--output=run", *TASKS, *options).error
        assert error.startswith(message), error


def test_column_is_unchanged_unless_all_fits():
    from mtl_heads import build_model
    from transfer.single_task_start import load_single_task

    tiny = {"head": "linear", "backbone_options": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}}
    model = build_model("nddr", "resnet18", {"a": 2, "b": 3}, **tiny)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    single = build_model("single_task", "resnet18", {"b": 4}, **tiny)
    with pytest.raises(UserError, match=r"'heads.b.classifier.weight' has shape \(4, 16, 1, 1\), the column of"):
        load_single_task(model, "b", single.state_dict(), "there")
    single = build_model("single_task", "resnet18", {"b": 3}, **tiny)
    with pytest.raises(UserError, match="there: lacks 1 tensors .*encoders.b.backbone.conv1.weight"):
        state = single.state_dict()
        del state["encoder.backbone.conv1.weight"]
        load_single_task(model, "b", state, "there")
    with pytest.raises(UserError, match="'other' is not in the column of task 'b'"):
        load_single_task(model, "b", {**single.state_dict(), "other": torch.ones(1)}, "there")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    load_single_task(model, "b", single.state_dict(), "there")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith(("encoders.b.", "heads.b.")) for key in changed)
    plain = build_model("baseline", "resnet18", {"b": 3}, **tiny)
    with pytest.raises(UserError, match="Baseline cannot start from single-task networks"):
        load_single_task(plain, "b", single.state_dict(), "there")
