from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from harness.checkpoint import CheckpointStore, load_file, save_file
from harness.errors import UserError


def state(step, size=4):
    return {"step": step, "weight": torch.full((size,), float(step)), "names": ["a", None], "nested": {"x": 1.5}}


def names(folder):
    return sorted(name for name in os.listdir(folder) if name != ".previous.pt")


def test_last_and_best_hold_what_was_saved(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(state(1))
    assert names(store.folder) == ["last.pt"]
    store.save(state(2), best=True)
    store.save(state(3))
    assert names(store.folder) == ["best.pt", "last.pt"]
    assert load_file(store.last)["step"] == 3 and load_file(store.best)["step"] == 2
    loaded = load_file(store.last)
    assert torch.equal(loaded["weight"], state(3)["weight"]) and loaded["nested"] == {"x": 1.5}


@pytest.mark.parametrize("links", [True, False])
def test_a_checkpoint_on_trial(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("not here")))
    store = CheckpointStore(tmp_path)
    store.go_back()  # nothing is there
    store.save(state(1))
    store.go_back()
    assert os.listdir(tmp_path) == [], "the first one has no predecessor"
    for step in (1, 2):
        store.save(state(step))
        store.settle()
    store.go_back()
    assert load_file(store.last)["step"] == 2, "it has been settled"
    store.save(state(3))
    CheckpointStore(tmp_path).go_back()  # also by another process
    assert load_file(store.last)["step"] == 2 and os.listdir(tmp_path) == ["last.pt"]
    store.save(state(3))
    store.save(state(4))  # the proved one is 2 still
    store.go_back()
    assert load_file(store.last)["step"] == 2 and os.listdir(tmp_path) == ["last.pt"]


def test_a_failed_save_tells_nothing_of_what_is_there(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(state(1))
    store.settle()
    for on_trial in (False, True):
        if on_trial:
            store.save(state(2))
        with monkeypatch.context() as patch:
            patch.setattr("harness.checkpoint.save_file", lambda *_: (_ for _ in ()).throw(UserError("full")))
            with pytest.raises(UserError, match="full"):
                store.save(state(3))
        assert store.previous.exists() is on_trial and load_file(store.last)["step"] == 1 + on_trial


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    store = CheckpointStore(tmp_path)
    store.save(state(1), best=True)
    assert names(tmp_path) == ["best.pt", "last.pt"] and load_file(store.last)["step"] == 1


def test_a_kill_between_best_and_last_loses_no_best(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(state(1), best=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(state(2), best=True)
    assert load_file(store.best)["step"] == 2 and load_file(store.last)["step"] == 1, "goes on from 1, comes to 2 again"


@pytest.mark.parametrize("keep, kept", [(1, []), (2, [4]), (3, [3, 4])])
def test_keeps_the_newest(tmp_path, keep, kept):
    store = CheckpointStore(tmp_path, keep)
    for step in range(1, 6):
        store.save(state(step), best=step == 2)
    assert names(tmp_path) == ["best.pt", "last.pt", *(f"step_{step:09d}.pt" for step in kept)]
    assert load_file(store.last)["step"] == 5 and load_file(store.best)["step"] == 2
    for step in kept:
        assert load_file(tmp_path / f"step_{step:09d}.pt")["step"] == step


@contextmanager
def file_size_limit(count):
    """Writing beyond ``count`` bytes into any file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_failed_save(store, big, reason):
    with pytest.raises(UserError) as caught:
        store.save(big)
    message = str(caught.value)
    assert message == (f"cannot write {store.last}: {reason}; the file that was there before is unchanged. Free some "
                       "space or choose another --output, then start the same command again")
    assert names(store.folder) == ["last.pt"] and load_file(store.last)["step"] == 1


def test_a_file_size_limit(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(state(1))
    with file_size_limit(100_000):
        check_failed_save(store, state(2, 10**6), "the file-size limit is reached")
    store.save(state(2, 10**6))
    assert load_file(store.last)["step"] == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; skipped where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
                                      capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk):
    store = CheckpointStore(small_disk)
    store.save(state(1))
    check_failed_save(store, state(2, 10**6), "the disk is full")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_refused_by_name_and_never_run(tmp_path, writer):
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"
    content = {"step": 1, "model": Malicious(witness)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError) as caught:
        load_file(path)
    message = str(caught.value)
    assert not witness.exists() and message.startswith(f"checkpoint {path} is refused: ") and "\n" not in message
    assert "open" in message and "no code from a file is ever run" in message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half of one"])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^checkpoint {path} is (damaged|refused)") as caught:
        load_file(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_file(path, state(1, 10**5))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load_file(path)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint .*last.pt does not exist"):
        load_file(tmp_path / "last.pt")


WRITER = """
import sys, torch
from harness.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1])
step = 0
while True:
    step += 1
    store.save({"step": step, "weight": torch.full((400_000,), float(step))})
    print(step, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    """Whenever it is killed, ``last.pt`` is one of the states that were saved."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(5):
            process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    loaded = load_file(tmp_path / "last.pt")
    assert loaded["step"] >= 5 and (loaded["weight"] == loaded["step"]).all()
