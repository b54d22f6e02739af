"""Similarity of classes by their place in WordNet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from harness.errors import UserError
from transfer.classifiers.base import SIMILARITIES, Classes, Similarity
from transfer.classifiers.names import require_names
from transfer.classifiers.tables import candidates, plain, read_columns, read_terms
from transfer.classifiers.taxonomy import Taxonomy


@SIMILARITIES.register("wordnet")
class WordNet(Similarity):
    """Wu–Palmer similarity of the class names in an "is-a" hierarchy (Pascal 2021, section A.3.1).

    A class is looked up by its name, then by each of the synonyms in it (tench, Tinca tinca), ImageNet's by their id
    (n01440764) before that. One that is not found has no similar class.

    Args:
        taxonomy: file with lines ``concept<TAB>what it is a kind of``; WordNet's nouns by nltk when none.
        terms: file with lines ``class name<TAB>concept``, for classes that have another name there.
    """

    def __init__(self, taxonomy: str | None = None, terms: str | None = None) -> None:
        self.taxonomy, self.terms = taxonomy, terms
        self.files = [path for path in (taxonomy, terms) if path]

    def similarities(self, classes: Classes) -> Tensor:
        require_names(classes, "wordnet")
        terms = read_terms(self.terms)
        ids = classes.source_ids or [None] * len(classes.source_names)
        source = [candidates(name, terms, [one] if one else []) for name, one in
                  zip(classes.source_names, ids, strict=True)]
        target = [candidates(name, terms) for name in classes.target_names]
        if self.taxonomy is None:
            known, concept_of = from_nltk([*source, *target])
        else:
            known = Taxonomy((plain(child), plain(parent)) for _, (child, parent) in
                             read_columns(self.taxonomy, "classifier.taxonomy", 2))
            concept_of = {name: name for names in (*source, *target) for name in names if name in known}
        rows, columns = ([next((concept_of[name] for name in names if name in concept_of), None) for names in side]
                         for side in (target, source))
        return torch.tensor([[0.0 if row is None or column is None else known.wu_palmer(row, column)
                              for column in columns] for row in rows], dtype=torch.float64)


def from_nltk(names: Iterable[Sequence[str]]) -> tuple[Taxonomy, dict[str, str]]:
    """The part of WordNet above some nouns, and the concept of each name: its most frequent sense.

    Raises:
        UserError: nltk or its corpus is not installed.
    """
    cure = "or give --classifier.taxonomy FILE, with lines of concept, tab, what it is a kind of"
    try:
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
    except ImportError as error:
        raise UserError(f"classifier.name is 'wordnet', and nltk is not installed: pip install nltk, {cure}") from error
    except LookupError as error:
        raise UserError("classifier.name is 'wordnet', and nltk has no WordNet: python -m nltk.downloader wordnet, "
                        f"{cure}") from error
    concept_of, edges, seen, waiting = {}, [], set(), []
    for name in {name for one in names for name in one}:
        if re.fullmatch(r"n\d{8}", name):
            found = [wordnet.synset_from_pos_and_offset("n", int(name[1:]))]
        else:
            found = wordnet.synsets(name.replace(" ", "_"), pos="n")[:1]
        for synset in found:
            concept_of[name] = synset.name()
            waiting.append(synset)
    while waiting:
        synset = waiting.pop()
        if synset.name() not in seen:
            seen.add(synset.name())
            above = [*synset.hypernyms(), *synset.instance_hypernyms()]
            edges += [(synset.name(), one.name()) for one in above]
            waiting += above
    known = Taxonomy(edges)
    return known, {name: concept for name, concept in concept_of.items() if concept in known}
