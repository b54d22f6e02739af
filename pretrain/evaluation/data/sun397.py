"""SUN397."""

from __future__ import annotations

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet
from pretrain.evaluation.labelled import LABELLED

_FOLDERS = ("Partitions/", "", "SUN397/", "SUN397/Partitions/")


@LABELLED.register("sun397")
class Sun397(FileSet):
    """SUN397 (Xiao et al., 2010): 397 kinds of scenes, 50 training and 50 test images of each in ten partitions.

    Reported as top-1 accuracy, of the first partition (Kornblith et al., 2019, table 1) or averaged over all ten.

    Args:
        root: the folder with ``SUN397`` and ``Partitions``.
        partition: 1 to 10.
    """

    holds = "class"
    about = About(
        "SUN397", "https://vision.princeton.edu/projects/2010/SUN/", "images are their owners'; for research", """\
ROOT/
  SUN397/a/abbey/sun_NAME.jpg                    also without the folder SUN397
  Partitions/ClassName.txt                       /a/abbey a line; also in SUN397
  Partitions/Training_01.txt, Testing_01.txt     /a/abbey/sun_NAME.jpg a line: 19850 each""",
        {"train": 19850, "test": 19850}, "images and partitions are two archives")

    def __init__(self, root: str | None = None, partition: int = 1) -> None:
        super().__init__(root)
        if not 1 <= partition <= 10:
            raise UserError(f"sun397: partition is {partition}: choose 1 to 10")
        self.partition = partition
        partitions = self.find(*(f"{folder}Training_{partition:02d}.txt" for folder in _FOLDERS)).parent
        source = self.find(*(f"{folder}ClassName.txt" for folder in _FOLDERS))
        folders = [name.strip("/") for name in self.read_names(source)]
        self.class_names = tuple(folder.partition("/")[2] for folder in folders)
        numbers = {folder: number for number, folder in enumerate(folders)}
        base = "SUN397" if (self.root / "SUN397").is_dir() else ""

        def convert(line: str) -> tuple[str, int]:
            path = line.lstrip("/")
            return f"{base}/{path}" if base else path, numbers[path.rpartition("/")[0]]

        for split, file in (("train", "Training"), ("test", "Testing")):
            self.put_list(split, partitions / f"{file}_{partition:02d}.txt", base, convert,
                          "/LETTER/CLASS/NAME.jpg with a class of ClassName.txt")
