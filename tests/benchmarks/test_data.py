"""The benchmark of data reading: its pictures, its turns and its table."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from benchmarks.data import PEER, measure, readers, table, write_pictures


def test_pictures_are_like_photographs_and_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, 2, 640, 480)
    first, second = sorted((tmp_path / "a").iterdir())
    assert first.read_bytes() == (tmp_path / "b" / first.name).read_bytes() != second.read_bytes()
    assert 120e3 < first.stat().st_size < 200e3  # those of COCO have 160 kB
    with Image.open(first) as image:
        assert image.size == (640, 480) and image.mode == "RGB"


def test_every_reader_reads_in_every_round(tmp_path):
    write_pictures(tmp_path, 3, 64, 48)
    threads = torch.get_num_threads()
    seconds = measure(readers(tmp_path), sorted(tmp_path.iterdir()), rounds=2)
    assert torch.get_num_threads() == threads and len(seconds) >= 7
    assert all(len(values) == 2 and min(values) > 0 for values in seconds.values())
    lines = table({**seconds, PEER: [1.0, 2.0]})
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == len({*seconds, PEER}) + 2
    assert not any("lightly" in line for line in table({"ours": [0.5, 0.25]}))


def test_ratios_are_taken_within_a_round():
    line = table({"ours": [1.0, 4.0, 1.0], PEER: [3.0, 8.0, 2.0]})[2]
    assert line == "| ours | 1000.00 | 1 | 2.00 | 2.00–3.00 |"


@pytest.mark.parametrize("option", ["--count", "--rounds"])
def test_options_are_checked(option, monkeypatch):
    from benchmarks import data
    from harness.errors import UserError

    monkeypatch.setattr("sys.argv", ["data", option, "0"])
    with pytest.raises(UserError, match=f"{option} is 0"):
        data.main()
