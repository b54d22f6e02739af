"""Subsets: the laws of their counts, what is taken, the files, and messages."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from pretrain.manifests import (
    longtail_subset,
    pareto_counts,
    pareto_law,
    random_subset,
    read_classes,
    uniform_counts,
    uniform_subset,
)
from pretrain.manifests.files import write_subset
from pretrain.sources import SOURCES


def make(**sizes):
    return {name: [f"{name}/{number:04d}.jpg" for number in range(size)] for name, size in sizes.items()}


TEN = make(**{f"c{number}": 60 + number for number in range(10)})


@pytest.mark.parametrize("size, classes, alpha, minimum, maximum", [
    (115_846, 1000, 6.0, 5, 1280), (118_000, 1000, 6.0, 5, None), (1000, 37, 1.0, 0, None), (500, 100, 0.5, 1, 60),
    (77, 7, 20.0, 5, 30), (50, 10, 6.0, 5, None), (100, 10, 6.0, 5, 10), (3, 10, 2.0, 0, None), (9, 1, 6.0, 5, None)])
def test_longtail_counts_are_the_law_rounded(size, classes, alpha, minimum, maximum):
    law = pareto_law(size, classes, alpha, minimum, maximum)
    counts = pareto_counts(size, classes, alpha, minimum, maximum)
    assert sum(counts) == size and len(counts) == classes and sorted(counts, reverse=True) == counts
    assert law.sum() == pytest.approx(size) and np.abs(law - counts).max() < 1
    assert min(counts) >= minimum and max(counts) <= (maximum or size)
    free = law < (maximum or size) - 1e-6
    rank = np.arange(1, classes + 1)
    shape = ((rank - 0.5) / classes) ** (-1 / alpha) - 1
    if free.sum() > 1 and law[free].max() > minimum:  # one scale fits all that are not cut at the maximum
        scale = (law[free] - minimum) / shape[free]
        assert scale == pytest.approx(scale[0], rel=1e-6)
        # and that is the Pareto distribution: the share of classes with more than x images, at the law's own x
        above = (1 + (law[free] - minimum) / scale[0]) ** -alpha
        assert above == pytest.approx(((rank - 0.5) / classes)[free])


def test_the_published_long_tailed_imagenet():
    """Liu et al. (2019): 115.8 thousand images, 1280 to 5 in a class."""
    counts = pareto_counts(115_846, 1000, maximum=1280)
    assert (counts[0], counts[-1]) == (1280, 5) and 1000 < counts[1] < 1280
    assert pareto_counts(115_846, 1000)[0] == 1420


def test_uniform_counts():
    assert uniform_counts(118_287, 1000) == [119] * 287 + [118] * 713
    assert uniform_counts(3, 5) == [1, 1, 1, 0, 0]


def test_uniform_subset():
    subset = uniform_subset(TEN, 255, seed=3)
    assert sorted(subset.counts.values()) == [25] * 5 + [26] * 5
    taken = Counter(image.split("/")[0] for image in subset.images)
    assert taken == subset.counts and len(set(subset.images)) == 255 and subset.images == sorted(subset.images)
    assert {name for name, count in uniform_subset(TEN, 255, seed=4).counts.items() if count == 26} != {
        name for name, count in subset.counts.items() if count == 26}
    # the classes that are one short of the others give no more than they have
    assert uniform_subset(make(a=3, b=2, c=3), 8).counts == {"a": 3, "b": 2, "c": 3}


def test_a_larger_subset_contains_the_smaller_one():
    for take in (uniform_subset, random_subset):
        assert set(take(TEN, 100, seed=1).images) < set(take(TEN, 200, seed=1).images)
        assert take(TEN, 100, seed=1).images == take(dict(reversed(TEN.items())), 100, seed=1).images
        assert take(TEN, 100, seed=1).images != take(TEN, 100, seed=2).images


def test_longtail_subset_gives_large_ranks_to_classes_that_have_them():
    classes = make(**{f"c{number:02d}": 12 + 10 * (number % 7) for number in range(35)})
    counts = pareto_counts(420, 35, 3.0, 2)
    assert counts[:3] == [68, 41, 32]  # the first rank is only for the five classes of 72
    heads = set()
    for seed in range(12):
        subset = longtail_subset(classes, 420, alpha=3.0, minimum=2, seed=seed)
        assert sorted(subset.counts.values(), reverse=True) == counts
        assert Counter(image.split("/")[0] for image in subset.images) == subset.counts
        assert all(abs(subset.law[name] - count) < 1 for name, count in subset.counts.items())
        heads.add(max(subset.counts, key=subset.counts.get))
    assert len(heads) > 2 and {len(classes[name]) for name in heads} == {72}


def test_random_subset_is_uniform_over_images():
    classes = make(few=30, many=270)
    shares = [random_subset(classes, 60, seed).counts["few"] for seed in range(80)]
    assert np.mean(shares) == pytest.approx(6, abs=1.0)
    assert random_subset(classes, 300).counts == {"few": 30, "many": 270}


@pytest.mark.parametrize("take, message", [
    (lambda: uniform_subset(make(a=50, b=3, c=50), 30), "class b: it has 3.* needs 10: set --size to at most 11"),
    (lambda: longtail_subset(make(a=50, b=40, c=9), 80, 2.0, 1), "class a: it has 50.* of rank 1 of 3 needs 58"),
    (lambda: longtail_subset(TEN, 20), "10 classes of 5 to 20 images have 50 to 200, not 20"),
    (lambda: longtail_subset(TEN, 200, maximum=10), "have 50 to 100, not 200"),
    (lambda: longtail_subset(TEN, 200, alpha=0.0), "--alpha is 0.0"),
    (lambda: longtail_subset(TEN, 200, minimum=9, maximum=3), "--minimum is 9 and --maximum 3"),
    (lambda: random_subset(TEN, 1000), "--size is 1000, and there are 645"),
    (lambda: uniform_subset(TEN, 0), "--size is 0"),
    (lambda: uniform_subset({".": ["a.jpg"]}, 1), "no class folders"),
    (lambda: uniform_subset({**TEN, ".": ["a.jpg"]}, 10), "1 images lie in no class folder, the first being a.jpg"),
])
def test_errors_say_what_and_which(take, message):
    with pytest.raises(UserError, match=message) as error:
        take()
    assert "\n" not in str(error.value)


def test_classes_of_folders_and_lists(tmp_path):
    for name in ("b/1.jpg", "a/deep/2.jpg", "a/1.png", "loose.jpg", "a/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path) if path.suffix != ".txt" else path.write_text("x")
    expected = {".": ["loose.jpg"], "a": ["a/1.png", "a/deep/2.jpg"], "b": ["b/1.jpg"]}
    assert read_classes(tmp_path / "images") == expected
    listed = tmp_path / "list.txt"
    listed.write_text("b/1.jpg\n\n./loose.jpg\r\na/deep/2.jpg\na/1.png\n")
    assert read_classes(listed) == {**expected, ".": ["./loose.jpg"]}
    listed.write_text("x/1.jpg\tcat\nx/2.jpg\tdog\nx/3.jpg\n")
    assert read_classes(listed) == {"cat": ["x/1.jpg"], "dog": ["x/2.jpg"], "x": ["x/3.jpg"]}
    listed.write_text("a/1.jpg\na/2.jpg\na/1.jpg\n")
    with pytest.raises(UserError, match="names a/1.jpg more than once"):
        read_classes(listed)
    listed.write_text("\n")
    with pytest.raises(UserError, match="names no images"):
        read_classes(listed)
    with pytest.raises(UserError, match="there is no .*nowhere"):
        read_classes(tmp_path / "nowhere")


def test_the_files(tmp_path):
    subset = longtail_subset(TEN, 200, alpha=3.0, minimum=4, seed=7)
    paths = write_subset(subset, tmp_path / "lt.txt", "images-1")
    assert [path.name for path in paths] == ["lt.txt", "lt.counts.csv", "lt.json", "lt.png"]
    assert paths[0].read_text() == "".join(f"{image}\n" for image in subset.images)
    rows = list(csv.DictReader(paths[1].open()))
    assert {row["class"]: int(row["images"]) for row in rows} == subset.counts
    assert [int(row["images"]) for row in rows] == pareto_counts(200, 10, 3.0, 4)
    assert all(abs(float(row["law"]) - int(row["images"])) < 1 for row in rows)
    facts = json.loads(paths[2].read_text())
    assert facts["options"] == {"alpha": 3.0, "minimum": 4, "maximum": None, "seed": 7} and facts["images"] == 200
    assert facts["sha256"] == hashlib.sha256(paths[0].read_bytes()).hexdigest() and facts["source"] == "images-1"
    with Image.open(paths[3]) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200

    before = [path.read_bytes() for path in paths]
    write_subset(longtail_subset(TEN, 200, alpha=3.0, minimum=4, seed=7), tmp_path / "lt.txt", "images-1")
    assert [path.read_bytes() for path in paths] == before
    with pytest.raises(UserError, match="already holds another list"):
        write_subset(random_subset(TEN, 20), tmp_path / "lt.txt", "images-1")
    assert [path.read_bytes() for path in paths] == before
    with pytest.raises(UserError, match="name a list with a suffix of its own, lt.txt"):
        write_subset(subset, tmp_path / "lt.json", "images-1")


def test_known_bytes():
    """What a seed gives must never change: others have published results on it."""
    subset = longtail_subset(TEN, 200, alpha=3.0, minimum=4, seed=7)
    assert list(subset.counts.values()) == [36, 9, 25, 19, 6, 8, 12, 65, 15, 5]
    assert hashlib.sha256("\n".join(subset.images).encode()).hexdigest()[:16] == "9212046caea6f0ad"


def test_the_command_and_the_source_that_reads_its_list(tmp_path):
    for label, size in {"ant": 6, "bee": 9, "fly": 12}.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(size):
            Image.new("RGB", (5, 4), (number, 0, 0)).save(tmp_path / "images" / label / f"{number}.jpg")

    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "pretrain.manifests", *arguments], capture_output=True, text=True)

    images, output = str(tmp_path / "images"), str(tmp_path / "even.txt")
    done = command("uniform", images, "--size", "13", "--output", output, "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert "13 of 27 images, 3 classes of 5 to 4 images" in done.stdout
    source = SOURCES.get("list")(manifest=output, root=images)
    assert len(source) == 13 and source.open(0).size == (5, 4)
    refused = command("longtail", images, "--size", "25", "--output", output, "--minimum", "1")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: not enough images in class fly: it has 12")
