"""Similarities of classes, and combinations of rows, against slow loops."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import nn

from harness.errors import UserError
from transfer.classifiers.base import SIMILARITIES, Classes
from transfer.classifiers.combination import combine, nearest
from transfer.classifiers.inference import f_scores
from transfer.classifiers.names import source_names
from transfer.classifiers.taxonomy import Taxonomy

SOURCE = ["cat, felis", "Golden_retriever", "oak", "sports car"]
TARGET = ["dog", "Felis", "truck", "cloud"]
TREE = """# animals and more
cat\tmammal
dog\tmammal
golden retriever\tdog
mammal\tanimal
animal\tthing
oak\tplant
plant\tthing
car\tvehicle
truck\tvehicle
vehicle\tthing
"""


class Argmax(nn.Module):
    """Takes the images for their logits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def get_classifier(self):
        return self.fc

    def forward(self, images):
        return images


def classes(batches=(), target=TARGET, source=SOURCE, ids=()):
    return Classes(Argmax(), source, ids, target, lambda: iter(batches), lambda value: value)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


# -- combination ----------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbors", [1, 2, 3, 9])
def test_rows_are_weighted_means(neighbors):
    """Equation of section A.3.2 in loops, with ties, few similar classes, none, and negative similarities."""
    similarities = torch.tensor([[0.2, 0.5, 0.5, 0.1], [0.0, 0.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0],
                                 [-0.9, 0.4, -0.1, 0.2], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    chosen = nearest(similarities, neighbors)
    rows, offsets = combine(weight, chosen), combine(bias, chosen)
    for i, row in enumerate(similarities.tolist()):
        order = sorted(range(4), key=lambda j: (-max(row[j], 0), j))[:neighbors]  # the first of equals
        total = sum(max(row[j], 0) for j in order)
        expected, offset = [0.0] * 3, 0.0
        for j in order:
            share = max(row[j], 0) / total if total else 0.0
            expected = [a + share * b for a, b in zip(expected, weight[j].tolist(), strict=True)]
            offset += share * bias[j].item()
        assert rows[i].tolist() == pytest.approx(expected) and offsets[i].item() == pytest.approx(offset)
    assert chosen.coefficients[2].tolist() == [0.0] * min(neighbors, 4)


def test_one_neighbour_is_a_copy_and_ties_go_to_the_first():
    weight = torch.randn(3, 5)
    chosen = nearest(torch.tensor([[0.1, 0.7, 0.7], [0.0, 0.0, 1e-9]]), 1)
    assert chosen.indices.tolist() == [[1], [2]] and chosen.coefficients.tolist() == [[1.0], [1.0]]
    assert torch.equal(combine(weight, chosen), weight[[1, 2]])


# -- inference ------------------------------------------------------------------------------------


def test_inference_is_the_f_score_of_every_pair():
    torch.manual_seed(1)
    logits, labels = torch.randn(60, 4), torch.randint(-1, 3, (60,))  # class 3 has no image
    batches = list(zip(logits.split(7), labels.split(7), strict=True))
    found = SIMILARITIES.get("inference")().similarities(classes(batches))
    taken = logits.argmax(1)
    for i in range(4):
        for j in range(4):
            pairs = [(int(y) == i, int(p) == j) for y, p in zip(labels, taken, strict=True) if y >= 0]
            hits = sum(a and b for a, b in pairs)
            said, there = sum(b for _, b in pairs), sum(a for a, _ in pairs)
            precision, recall = hits / said if said else 0, hits / there if there else 0
            expected = 2 * precision * recall / (precision + recall) if hits else 0.0
            assert found[i, j].item() == pytest.approx(expected)


def test_inference_by_the_second_library():
    from torchmetrics.functional.classification import binary_f1_score

    labels, taken = torch.randint(0, 3, (50,)), torch.randint(0, 4, (50,))
    counts = torch.zeros(3, 4, dtype=torch.float64)
    for i, j in zip(labels.tolist(), taken.tolist(), strict=True):
        counts[i, j] += 1
    expected = [[binary_f1_score(taken == j, labels == i) for j in range(4)] for i in range(3)]
    torch.testing.assert_close(f_scores(counts), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_inference_without_images():
    assert SIMILARITIES.get("inference")().similarities(classes()).tolist() == [[0.0] * 4] * 4


# -- wordnet --------------------------------------------------------------------------------------


def test_wu_palmer_in_a_tree(tmp_path):
    """Depths by hand: thing 1, animal 2, mammal 3, dog and cat 4, golden retriever 5."""
    similarity = SIMILARITIES.get("wordnet")(taxonomy=write(tmp_path / "is_a.tsv", TREE),
                                             terms=write(tmp_path / "terms.tsv", "sports  car\tCar\nFelis\tcat\n"))
    assert [str(path)[-8:] for path in similarity.files] == ["is_a.tsv", "erms.tsv"]
    found = similarity.similarities(classes())
    expected = [[2 * 3 / (4 + 4), 2 * 4 / (4 + 5), 2 * 1 / (4 + 3), 2 * 1 / (4 + 3)],
                [1.0, 2 * 3 / (4 + 5), 2 / 7, 2 / 7],
                [2 / 7, 2 / 8, 2 / 6, 2 * 2 / 6],
                [0.0] * 4]  # cloud is not in it
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_wu_palmer_with_several_parents():
    """The deepest common ancestor counts, whose depth is that of its longest way up, and the shortest steps to it."""
    graph = Taxonomy([("b", "a"), ("c", "b"), ("c", "a"), ("d", "c"), ("e", "c"), ("e", "x"), ("x", "c"), ("y", "z")])
    assert graph.wu_palmer("d", "e") == 2 * 3 / (1 + 1 + 6)
    assert graph.wu_palmer("d", "d") == 1.0 and graph.wu_palmer("d", "y") == 0.0
    assert graph.wu_palmer("d", "e") == graph.wu_palmer("e", "d")


def test_a_loop_is_refused():
    with pytest.raises(UserError, match="'[abc]' is a kind of itself"):
        Taxonomy([("a", "b"), ("b", "c"), ("c", "a")])
    deep = Taxonomy([(str(n), str(n + 1)) for n in range(5000)])  # no recursion
    assert deep.wu_palmer("0", "1") == pytest.approx(2 * 5000 / (1 + 2 * 5000))


class Synset:
    """What nltk has."""

    def __init__(self, name, *above):
        self._name, self._above = name, above

    def name(self):
        return self._name

    def hypernyms(self):
        return list(self._above)

    def instance_hypernyms(self):
        return []


def test_wordnet_of_nltk(monkeypatch):
    entity = Synset("entity.n.01")
    animal = Synset("animal.n.01", entity)
    dog, cat = Synset("dog.n.01", animal), Synset("cat.n.01", animal)
    senses = {"dog": [dog, entity], "felis": [cat], "golden_retriever": [Synset("golden.n.01", dog)]}
    wordnet = types.SimpleNamespace(ensure_loaded=lambda: None, synsets=lambda name, pos: senses.get(name, []),
                                    synset_from_pos_and_offset=lambda pos, number: {123: cat}[number])
    monkeypatch.setitem(sys.modules, "nltk", types.ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", types.SimpleNamespace(wordnet=wordnet))
    found = SIMILARITIES.get("wordnet")().similarities(
        classes(target=["dog", "cloud"], source=["tom", "Golden_retriever"], ids=["n00000123", "x"]))
    expected = [[2 * 2 / 6, 2 * 3 / 7], [0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_without_nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(UserError, match="nltk is not installed: pip install nltk, or give --classifier.taxonomy FILE"):
        SIMILARITIES.get("wordnet")().similarities(classes())


# -- word vectors ---------------------------------------------------------------------------------


def test_word_vectors(tmp_path):
    """Cosines of means over words; a word without a vector is left out."""
    text = "6 2\ndog 1 0\ncat 0.8 0.6\nretriever 3 1\nSports 0 2\ncar 0 1\ntruck 0.1 1\nof x y\n"
    similarity = SIMILARITIES.get("word_vectors")(vectors=write(tmp_path / "v.txt", text))
    found = similarity.similarities(classes())
    vectors = {"dog": (1, 0), "cat": (0.8, 0.6), "retriever": (3, 1), "sports": (0, 2), "car": (0, 1),
               "truck": (0.1, 1)}

    def mean(*names):
        known = [vectors[name] for name in names if name in vectors]
        return [sum(vector[k] for vector in known) / len(known) if known else 0.0 for k in range(2)]

    source = [mean("cat", "felis"), mean("golden", "retriever"), mean("oak"), mean("sports", "car")]
    for row, one in zip(found.tolist(), [mean("dog"), mean("felis"), mean("truck"), mean("cloud")], strict=True):
        for value, other in zip(row, source, strict=True):
            length = math.hypot(*one) * math.hypot(*other)
            expected = sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0
            assert value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [("dog 1 0\ncat 1\n", "line 2 of .* has 1 numbers, and others have 2"),
     ("dog 1 zero\n", "line 1 of .* is not a word and numbers"), ("Hund 1 2\n", "none of the words")],
)
def test_impossible_vectors(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        SIMILARITIES.get("word_vectors")(vectors=write(tmp_path / "v.txt", text)).similarities(classes())
    with pytest.raises(UserError, match="classifier.vectors is empty"):
        SIMILARITIES.get("word_vectors")()


# -- tables and names -----------------------------------------------------------------------------


def test_table(tmp_path):
    text = "# mine\nDog\tgolden retriever\t0.9\ndog\tcat, felis\t.2\nsofa\toak\t1\n"
    found = SIMILARITIES.get("table")(file=write(tmp_path / "t.tsv", text)).similarities(classes())
    assert found[0].tolist() == [0.2, 0.9, 0.0, 0.0] and not found[1:].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [("dog\toak\n", "line 1 of .* has 2 columns: 3, separated by tabs"), ("dog\toat\t1\n", "did you mean 'oak'"),
     ("dog\toak\tnan\n", "has similarity 'nan'"), ("dog\toak\tmuch\n", "has similarity 'much'")],
)
def test_impossible_tables(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        SIMILARITIES.get("table")(file=write(tmp_path / "t.tsv", text)).similarities(classes())


def test_source_names(tmp_path):
    names, ids = source_names(None, 1000)
    assert names[0] == "tench, Tinca tinca" and ids[0] == "n01440764" and len(names) == len(ids) == 1000
    assert source_names(None, 7) == ([], [])
    path = write(tmp_path / "names.txt", "one\ntwo\n")
    assert source_names(path, 2) == (["one", "two"], [])
    with pytest.raises(UserError, match="has 2 names, and the classifier has 3 classes"):
        source_names(path, 3)
    with pytest.raises(UserError, match="goes by names.*--classifier.source_names FILE"):
        SIMILARITIES.get("wordnet")().similarities(classes(source=[]))
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        source_names(str(tmp_path / "no.txt"), 2)
