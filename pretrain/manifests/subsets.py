"""Which images of which classes make a subset: a function of the seed and the names alone.

Nothing is drawn from a generator whose stream a library may change. Images, and classes, are put in the order of a
hash of (seed, name) and the first ones are taken, so a larger subset of the same kind and seed contains, class by
class, the images of a smaller one.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from pretrain.manifests.classes import NO_CLASS
from pretrain.manifests.laws import pareto_counts, pareto_law, uniform_counts

Classes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Subset:
    """Some of the images.

    Attributes:
        kind: ``uniform``, ``longtail`` or ``random``.
        images: their paths, sorted.
        counts: images taken of each class; classes without any are there with 0.
        available: images that each class has.
        law: images of each class before rounding; empty where there is no law.
        options: what else it was made from.
    """

    kind: str
    images: list[str]
    counts: dict[str, int]
    available: dict[str, int]
    law: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def uniform_subset(classes: Classes, size: int, seed: int = 0) -> Subset:
    """As many images of every class; which classes have one more, where K does not divide N, is random.

    Args:
        classes: paths of the images of each class.
        size: N, images in all.
        seed: of what is taken.

    Raises:
        UserError: a class has too few images; the message says which.
    """
    _require(classes, size)
    counts = uniform_counts(size, len(classes))
    least = min(map(len, classes.values()))
    most = least * len(classes) + sum(len(names) > least for names in classes.values())
    given = _assign(classes, counts, seed, f"set --size to at most {most}, or leave the class out")
    return _take("uniform", classes, {name: counts[rank] for rank, name in enumerate(given)}, seed)


def longtail_subset(classes: Classes, size: int, alpha: float = 6.0, minimum: int = 5, maximum: int | None = None,
                    seed: int = 0) -> Subset:
    """Classes whose counts follow :func:`pretrain.manifests.laws.pareto_law`; which has which rank is random, among
    those that have enough images for it.

    Args:
        classes: paths of the images of each class.
        size: N, images in all.
        alpha: power of the law.
        minimum: images of the smallest class.
        maximum: images of the largest class; not limited when none.
        seed: of what is taken.

    Raises:
        UserError: no such law has N images, or a class has too few; the message says which.
    """
    _require(classes, size)
    law = pareto_law(size, len(classes), alpha, minimum, maximum)
    counts = pareto_counts(size, len(classes), alpha, minimum, maximum)
    given = _assign(classes, counts, seed, "set a smaller --maximum, --size or --minimum, or a larger --alpha")
    subset = _take("longtail", classes, {name: counts[rank] for rank, name in enumerate(given)}, seed,
                   alpha=alpha, minimum=minimum, maximum=maximum)
    subset.law.update({name: float(law[rank]) for rank, name in enumerate(given)})
    return subset


def random_subset(classes: Classes, size: int, seed: int = 0) -> Subset:
    """N of all the images, whatever their classes.

    Args:
        classes: paths of the images of each class.
        size: N, images in all.
        seed: of what is taken.

    Raises:
        UserError: there are fewer images.
    """
    total = sum(map(len, classes.values()))
    if not 0 < size <= total:
        raise UserError(f"--size is {size}, and there are {total} images: set it between 1 and {total}")
    taken = set(_in_random_order((name for names in classes.values() for name in names), seed, "image")[:size])
    counts = {label: sum(name in taken for name in names) for label, names in classes.items()}
    available = {label: len(names) for label, names in classes.items()}
    return Subset("random", sorted(taken, key=os.fsencode), counts, available, options={"seed": seed})


def _require(classes: Classes, size: int) -> None:
    if set(classes) == {NO_CLASS}:
        raise UserError("the images lie in no class folders: take a random subset, or give the folder that holds the "
                        "folders of the classes")
    if loose := classes.get(NO_CLASS):
        raise UserError(f"{len(loose)} images lie in no class folder, the first being {loose[0]}: move them into one")
    if size < 1:
        raise UserError(f"--size is {size}: set it to 1 or more")


def _assign(classes: Classes, counts: Sequence[int], seed: int, advice: str) -> list[str]:
    """Class of each rank, the largest first: at random among those with enough images that have none yet.

    Whoever has enough for one rank has enough for all later ones, so this fails only where every choice would.
    """
    place = {name: number for number, name in enumerate(_in_random_order(classes, seed, "class"))}
    waiting = sorted(classes, key=lambda name: (len(classes[name]), os.fsencode(name)))
    enough: list[tuple[int, str]] = []
    given: list[str] = []
    for rank, count in enumerate(counts):
        while waiting and len(classes[waiting[-1]]) >= count:
            name = waiting.pop()
            heapq.heappush(enough, (place[name], name))
        if not enough:
            short = waiting[-1]
            raise UserError(f"not enough images in class {short}: it has {len(classes[short])}, more than any other "
                            f"that is left, and the class of rank {rank + 1} of {len(counts)} needs {count}: {advice}")
        given.append(heapq.heappop(enough)[1])
    return given


def _take(kind: str, classes: Classes, counts: Mapping[str, int], seed: int, **options: Any) -> Subset:
    images = [image for label, names in classes.items()
              for image in _in_random_order(names, seed, "image")[: counts[label]]]
    return Subset(kind, sorted(images, key=os.fsencode), {label: counts[label] for label in classes},
                  {label: len(names) for label, names in classes.items()}, options={**options, "seed": seed})


def _in_random_order(names: Iterable[str], seed: int, what: str) -> list[str]:
    prefix = f"{seed}\x1f{what}\x1f".encode()

    def key(name: str) -> tuple[bytes, bytes]:
        encoded = os.fsencode(name)
        return hashlib.blake2b(prefix + encoded, digest_size=8).digest(), encoded

    return sorted(names, key=key)
