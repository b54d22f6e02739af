"""How many auxiliary classes each class of the primary task is divided into: ψ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import UserError, closest
from transfer.data.base import Label


def subclass_counts(given: int | Sequence[int] | str, primary: str, labels: Mapping[str, Label]) -> list[int]:
    """ψ, a count for each class of the primary task (Liu 2018, section 3.2.1).

    Args:
        given: the same number for all classes; a number for each; or the name of a finer task of the data set, whose
            classes are counted (the pairs of levels of the source's experiments).
        primary: name of the primary task.
        labels: of the data set.

    Raises:
        UserError: the counts do not fit the classes, or are of no hierarchy.
    """
    classes = labels[primary].classes
    if isinstance(given, str):
        counts = _of_finer_task(given, primary, labels)
    elif isinstance(given, int):
        counts = [given] * len(classes)
    else:
        counts = list(given)
    if len(counts) != len(classes):
        raise UserError(f"schedule.subclasses has {len(counts)} numbers, and task '{primary}' has {len(classes)} "
                        "classes: give one for each, or one number for all")
    if any(isinstance(count, bool) or count < 1 for count in counts):
        raise UserError(f"schedule.subclasses is {given}: every class of task '{primary}' needs 1 or more")
    if sum(counts) == len(counts):
        raise UserError("schedule.subclasses is 1 for every class, which leaves nothing to generate: give 2 or more")
    return counts


def _of_finer_task(finer: str, primary: str, labels: Mapping[str, Label]) -> list[int]:
    if finer not in labels:
        raise UserError(f"schedule.subclasses names task '{finer}'{closest(finer, labels)}, and the data set has "
                        f"{', '.join(labels)}")
    if primary not in labels[finer].parents:
        known = ", ".join(f"{name} ({', '.join(label.parents)})" for name, label in labels.items() if label.parents)
        raise UserError(f"schedule.subclasses names task '{finer}', and the data set does not say to which class of "
                        f"'{primary}' its classes belong (tasks with parents: {known or 'none'}): give numbers")
    parents = labels[finer].parents[primary]
    counts = [parents.count(index) for index in range(len(labels[primary].classes))]
    if 0 in counts:
        raise UserError(f"schedule.subclasses names task '{finer}', which has no class below "
                        f"'{labels[primary].classes[counts.index(0)]}' of '{primary}': give numbers")
    return counts
