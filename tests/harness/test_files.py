from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading

import pytest

from harness.errors import UserError
from harness.files import file_digests, folder_atomically, locked, remove_leftovers, write_atomically, write_text


def test_writes_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first ä")
    assert path.read_text(encoding="utf-8") == "first ä"

    def fail(file):
        file.write(b"half of the sec")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text(encoding="utf-8") == "first ä" and os.listdir(path.parent) == ["file.txt"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o640


def test_system_errors_become_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "file" / "below", "x")
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'file' / 'below'}: ")
    assert "\n" not in str(caught.value) and "start the same command again" in str(caught.value)


def test_leftovers_of_a_kill_are_removed(tmp_path):
    for name in (".last.pt.abc.tmp", "last.pt", ".lock", "mine.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, tmp_path / "absent")
    assert sorted(os.listdir(tmp_path)) == [".lock", "last.pt", "mine.tmp"]


HOLD = """
import sys, time
from harness.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_and_is_freed_by_death(tmp_path):
    path = tmp_path / "deep" / "lock"
    with locked(path):
        pass
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="busy, come back"), locked(path, wait=False, held="busy, come back"):
            pass
        entered = threading.Event()

        def wait():
            with locked(path):
                entered.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.2)
        holder.kill()
        assert entered.wait(20)
        waiting.join()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "made" / "here"
    with pytest.raises(KeyError), folder_atomically(target) as folder:
        (folder / "part").touch()
        raise KeyError
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    with folder_atomically(target) as folder:
        (folder / "whole").touch()
    assert [path.name for path in target.iterdir()] == ["whole"] and len(list(target.parent.iterdir())) == 1


def test_digests_of_one_reading(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    found = file_digests(tmp_path / "file", ["sha256", "md5"])
    assert found == {kind: hashlib.new(kind, content).hexdigest() for kind in ("sha256", "md5")}
