"""Similarity of classes by the words of their names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from harness.errors import UserError
from transfer.classifiers.base import SIMILARITIES, Classes, Similarity
from transfer.classifiers.names import require_names
from transfer.classifiers.tables import plain, read_lines, read_terms, words


@SIMILARITIES.register("word_vectors")
class WordVectors(Similarity):
    """Cosine of the mean vectors of the words that the names are made of (Pascal 2021, section A.4.3).

    Words that have no vector are left out; a class of which none has one has no similar class.

    Args:
        vectors: text file as word2vec and GloVe have it, ``word number number …``.
        terms: file with lines ``class name<TAB>words``, for classes that are better called otherwise.
    """

    def __init__(self, vectors: str = "", terms: str | None = None) -> None:
        if not vectors:
            raise UserError("classifier.vectors is empty: name a text file of word vectors (word2vec, GloVe)")
        self.vectors, self.terms = vectors, terms
        self.files = [path for path in (vectors, terms) if path]

    def similarities(self, classes: Classes) -> Tensor:
        require_names(classes, "word_vectors")
        terms = read_terms(self.terms)
        target, source = ([words(terms.get(plain(name), name)) for name in names]
                          for names in (classes.target_names, classes.source_names))
        vectors = read_vectors(self.vectors, {word for name in (*target, *source) for word in name})
        if not vectors:
            raise UserError(f"classifier.vectors: {self.vectors} has none of the words of the class names: give "
                            "vectors of their language, or --classifier.terms")
        return _directions(target, vectors) @ _directions(source, vectors).T


def _directions(names: Iterable[list[str]], vectors: dict[str, Tensor]) -> Tensor:
    """Mean vector of each name's words, of length one; zeros where there is none."""
    size = len(next(iter(vectors.values())))
    means = [torch.stack([vectors[word] for word in name if word in vectors]).mean(0)
             if any(word in vectors for word in name) else torch.zeros(size, dtype=torch.float64) for name in names]
    return torch.nn.functional.normalize(torch.stack(means), dim=1)


def read_vectors(path: str, wanted: set[str]) -> dict[str, Tensor]:
    """Vectors of some words; of several spellings of a word the first counts.

    Raises:
        UserError: the file cannot be read, or its lines are no vectors of one size.
    """
    found: dict[str, Tensor] = {}
    for number, line in read_lines(path, "classifier.vectors"):
        word, _, numbers = line.replace("\t", " ").partition(" ")
        word = word.lower()
        if word not in wanted or word in found:
            continue
        try:
            vector = torch.tensor([float(cell) for cell in numbers.split()], dtype=torch.float64)
        except ValueError as error:
            raise UserError(f"classifier.vectors: line {number} of {path} is not a word and numbers") from error
        size = len(next(iter(found.values()), vector))
        if len(vector) != size or not size:
            raise UserError(f"classifier.vectors: line {number} of {path} has {len(vector)} numbers, and others have "
                            f"{size or 'some'}")
        found[word] = vector
    return found
