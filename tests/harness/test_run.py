from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from harness.checkpoint import save_file
from harness.config import volatile
from harness.errors import UserError
from harness.run import Run, default_folder, read_metrics


@dataclass
class Config:
    lr: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)
    name: str | None = volatile(None)


def test_what_a_run_writes(tmp_path):
    folder = tmp_path / "outputs" / "run"
    with Run(folder, Config(options={"sizes": (1, 2)})) as run:
        assert not run.finished and run.checkpoint_to_resume("auto") is None
        run.begin(0)
        run.log({"step": 1, "loss": 0.5})
        run.finish({"metrics": {"x": 1}})
        assert run.finished and run.results() == {"metrics": {"x": 1}}
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"lr": 0.1, "options": {"sizes": [1, 2]},
                                                                    "name": None}
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_steps_done_again_are_not_logged_twice(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.begin(0)
        for step in range(1, 6):
            run.log({"step": step, "first": True})
        run._metrics.write('{"step": 6, "fir')  # a crash in the middle of a line
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    with Run(tmp_path, Config()) as run:
        run.begin(3)
        run.log({"step": 4, "first": False})
    assert [(line["step"], line["first"]) for line in read_metrics(tmp_path)] == [(1, True), (2, True), (3, True),
                                                                                  (4, False)]


def test_another_configuration_is_refused(tmp_path):
    with Run(tmp_path, Config(options={"channels": 8})) as run:
        run.begin(0)
    for other, change in ((Config(lr=0.2, options={"channels": 8}), "lr: 0.1 -> 0.2"),
                          (Config(options={"channels": 9}), "options.channels: 8 -> 9"),
                          (Config(), "options.channels: 8 -> None"),
                          (Config(options={"channels": 8, "k": 1}), "options.k: None -> 1")):
        with pytest.raises(UserError) as caught:
            Run(tmp_path, other)
        assert str(caught.value) == (f"run folder {tmp_path} belongs to another configuration ({change}): choose "
                                     "another --name or --output")
    Run(tmp_path, Config(options={"channels": 8}, name="another name is the same run")).close()


def test_other_content_behind_the_same_configuration_is_refused(tmp_path):
    extra = {"weights": "abc", "data": "scenes-1", "shape": (1, 2)}
    with Run(tmp_path, Config(), extra=extra) as run:
        run.begin(0)
    assert json.loads((tmp_path / "identity.json").read_text()) == {**extra, "shape": [1, 2]}
    Run(tmp_path, Config(), extra=dict(extra)).close()
    Run(tmp_path, Config()).close()  # not asked
    with pytest.raises(UserError) as caught:
        Run(tmp_path, Config(), extra={**extra, "weights": "xyz"})
    assert str(caught.value) == (
        f"run folder {tmp_path} was begun with other content behind the same configuration (weights: abc -> xyz): "
        "put that back, or choose another --name or --output")
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(UserError, match="identity.json is damaged: choose another"):
        Run(tmp_path, Config(), extra=extra)


def test_when_to_log_is_no_part_of_what_a_run_is():
    from harness.config import identity
    from harness.loop import LoopConfig

    assert identity(LoopConfig()) == {}


def test_never_refuses_a_used_folder(tmp_path):
    with Run(tmp_path, Config(), resume="never") as run:
        run.begin(0)
        run.finish({})
    with pytest.raises(UserError, match=f"run folder {tmp_path} already holds a run and --resume is never: choose"):
        Run(tmp_path, Config(), resume="never")


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"run folder {tmp_path} holds 'thesis.tex' and is not a run of ours: choose"):
        Run(tmp_path, Config())
    (tmp_path / "config.yaml").write_text("- of something else\n")
    with pytest.raises(UserError, match="config.yaml is damaged or not a configuration of ours: choose another"):
        Run(tmp_path, Config())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the run folder .*file"):
        Run(tmp_path / "file", Config())


def test_leftovers_of_a_kill_do_not_matter(tmp_path):
    """Killed while it wrote its first file, or a checkpoint."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.yaml.x1.tmp").touch()
    (tmp_path / "checkpoints" / ".last.pt.x2.tmp").touch()
    (tmp_path / "checkpoints").rmdir() if not os.listdir(tmp_path / "checkpoints") else None
    with pytest.raises(UserError, match="holds 'checkpoints'"):
        Run(tmp_path, Config())
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoints"] and not os.listdir(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    Run(tmp_path, Config()).close()


def test_where_a_run_starts(tmp_path):
    save_file(tmp_path / "other" / "checkpoints" / "last.pt", {"step": 1})
    with Run(tmp_path / "run", Config()) as run:
        assert run.checkpoint_to_resume("auto") is None is run.checkpoint_to_resume("never")
        other = tmp_path / "other" / "checkpoints" / "last.pt"
        assert run.checkpoint_to_resume(str(tmp_path / "other")) == other == run.checkpoint_to_resume(str(other))
        with pytest.raises(UserError, match="--resume nowhere: no checkpoint there"):
            run.checkpoint_to_resume("nowhere")
        run.checkpoints.save({"step": 2})
        assert run.checkpoint_to_resume(str(other)) == run.checkpoints.last, "its own comes first"


def test_names_of_folders(tmp_path):
    assert default_folder("pretrain", "scenes", Config(), None, "x/y").as_posix() == "x/y"
    assert default_folder("pretrain", "scenes", Config(), "n", None).as_posix() == "outputs/n"
    automatic = default_folder("pretrain", "scenes", Config(), None, None)
    assert automatic == default_folder("pretrain", "scenes", Config(name="x"), None, None)
    assert automatic != default_folder("pretrain", "scenes", Config(lr=1), None, None)
    assert automatic == default_folder("pretrain", "scenes", Config(), None, None, extra={})
    others = {default_folder("pretrain", "scenes", Config(), None, None, extra={"weights": w}) for w in ("a", "b")}
    assert len({automatic, *others}) == 3
    assert default_folder("pretrain", "scenes", Config(), "n", None, {"weights": "a"}).as_posix() == "outputs/n"


HOLDER = """
import os, sys, time
from torch.utils.data import DataLoader
from harness.run import Run
from test_run_config import Config

class Slow:
    def __len__(self): return 4
    def __getitem__(self, i):
        if i == 3: time.sleep(30)
        return os.getpid()

run = Run(sys.argv[1], Config())
loader = iter(DataLoader(Slow(), batch_size=1, num_workers=1))
print(int(next(loader)), flush=True)
time.sleep(60)
"""


def test_the_lock_is_held_and_freed_by_death_even_while_workers_live(tmp_path):
    (tmp_path / "test_run_config.py").write_text("from dataclasses import dataclass\n@dataclass\nclass Config:\n"
                                                 "    lr: float = 0.1\n")
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"})
    worker = None
    try:
        worker = int(holder.stdout.readline())
        started = time.monotonic()
        with pytest.raises(UserError) as caught:
            Run(folder, Config())
        assert time.monotonic() - started < 5, "it does not wait"
        assert str(caught.value).startswith(f"run folder {folder} is in use by process {holder.pid} on ")
        assert str(caught.value).endswith(": wait for it, or choose another --name or --output")
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # still there
        Run(folder, Config()).close()
        os.kill(worker, 0)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        if worker:
            try:
                os.kill(worker, signal.SIGKILL)
            except ProcessLookupError:
                pass


def test_other_processes_of_a_run_write_nothing(tmp_path):
    with Run(tmp_path / "run", Config(), main=False) as run:
        run.begin(0)
        run.log({"step": 1})
        run.finish({})
    assert not (tmp_path / "run").exists()


def test_results_are_plain_json(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.finish({"a": [1, None, 0.1]})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": [1, None, 0.1]}


def test_numbers_that_are_not_finite_become_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    with Run(tmp_path, Config()) as run:
        run.begin(0)
        run.log({"step": 1, "loss": nan, "val": {"x": [inf, -inf, 2.5]}})
        run.finish({"metrics": {"x": (nan, 1)}})

    def refuse(word):
        raise AssertionError(word)

    for text in ((tmp_path / "metrics.jsonl").read_text(), (tmp_path / "results.json").read_text()):
        json.loads(text, parse_constant=refuse)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": None, "val": {"x": [None, None, 2.5]}}]
    assert json.loads((tmp_path / "results.json").read_text()) == {"metrics": {"x": [None, 1]}}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')  # of an earlier version
    assert read_metrics(tmp_path) == [{"step": 1, "loss": None}]


def test_a_full_disk_while_logging(tmp_path):
    """``/dev/full`` stands for the log: one line, also when the folder is released afterwards."""
    with pytest.raises(UserError, match="cannot write .*metrics.jsonl: No space left on device. Free some space"):
        with Run(tmp_path, Config()) as run:
            run.begin(0)
            run._metrics.close()
            run._metrics = open("/dev/full", "w")  # noqa: SIM115
            run.log({"step": 1})


def test_a_refused_run_leaves_nothing(tmp_path):
    folder = tmp_path / "outputs" / "refused"
    with pytest.raises(UserError, match="no"), Run(folder, Config()):
        raise UserError("no")
    assert not folder.exists() and folder.parent.exists()
    with pytest.raises(UserError, match="no"), Run(folder, Config()) as run:
        run.begin(0)
        raise UserError("no")
    assert (folder / "config.yaml").exists()  # it had begun
