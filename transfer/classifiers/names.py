"""Names of the classes of a pretrained classifier."""

from __future__ import annotations

from harness.errors import UserError
from transfer.classifiers.base import Classes
from transfer.classifiers.tables import read_lines


def source_names(path: str | None, count: int) -> tuple[list[str], list[str]]:
    """Names of the source classes, and their WordNet ids; empty where unknown.

    Args:
        path: of a file with a name in each line.
        count: of classes.

    Raises:
        UserError: the file has another number of names.
    """
    if path is not None:
        names = [line.strip() for _, line in read_lines(path, "classifier.source_names")]
        if len(names) != count:
            raise UserError(f"classifier.source_names: {path} has {len(names)} names, and the classifier has {count} "
                            "classes: give one name in each line, in the order of its outputs")
        return names, []
    if count != 1000:
        return [], []
    from timm.data import ImageNetInfo

    known = ImageNetInfo()
    return list(known.label_descriptions()), list(known.label_names())


def require_names(classes: Classes, similarity: str) -> None:
    """Refuse source classes without names.

    Raises:
        UserError: they have none.
    """
    if not classes.source_names:
        raise UserError(f"classifier.name is '{similarity}', which goes by names, and those of the source classes are "
                        "not known: give --classifier.source_names FILE, with a name in each line")
