"""Imports point one way only, and nothing shadows the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "harness": set(),
    "scenes": {"harness"},
    "mtl_heads": {"harness"},
    "pretrain": {"harness", "scenes"},
    "transfer": {"harness", "scenes", "mtl_heads", "pretrain"},
    "slurm": {"harness", "scenes", "mtl_heads", "pretrain", "transfer"},
}
OF_PRETRAIN = {"pretrain", "pretrain.checkpoints"}
"""What ``transfer`` may use of ``pretrain``: the loading of checkpoints."""


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names.add(node.module)
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        for name in imported(path):
            other = name.split(".")[0]
            assert other == room or other not in MAY_IMPORT or other in MAY_IMPORT[room], f"{path} imports {name}"
            if room == "transfer" and other == "pretrain":
                assert name in OF_PRETRAIN, f"{path} imports {name}"
            if room == "mtl_heads" and other == "harness":
                assert name in ("harness.registry", "harness.errors"), f"{path} imports {name}"
            assert other not in ("tests", "benchmarks"), f"{path} imports {name}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_module_is_named_like_one_of_the_standard_library(room):
    """``python pretrain/main.py`` puts the folder first on the path: ``queue.py`` in it would win."""
    for path in (ROOT / room).rglob("*.py"):
        assert path.stem not in sys.stdlib_module_names, path


@pytest.mark.parametrize("room", ["pretrain", "transfer"])
def test_the_mains_take_their_own_folder_off_the_path(room):
    code = (f"import runpy, sys; sys.path.insert(0, {str(ROOT / room)!r}); "
            f"runpy.run_path({str(ROOT / room / 'main.py')!r}, run_name='imported'); "
            f"assert {str(ROOT / room)!r} not in sys.path and sys.path[0] == {str(ROOT)!r}, sys.path; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / room)


def test_names_and_configuration_need_no_torch():
    code = ("import sys, harness, harness.registry, harness.errors, harness.files, harness.config, harness.seeding, "
            "harness.program; import mtl_heads.registry, transfer.strategies, pretrain, transfer, scenes; "
            "assert 'torch' not in sys.modules, 'torch was imported'")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
