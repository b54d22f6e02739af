from __future__ import annotations

import sys

import pytest

from harness.errors import UserError, closest
from harness.registry import Registry, load_plugin


def test_what_is_registered_is_found_by_name():
    animals = Registry("animal")

    @animals.register("cat")
    class Cat: ...

    animals.register("ant")(len)
    assert animals.get("cat") is Cat and animals.names() == ["ant", "cat"] == list(animals)
    assert "cat" in animals and "dog" not in animals


def test_unknown_names_get_the_closest_and_all():
    animals = Registry("animal")
    animals.register("elephant")(object)
    animals.register("ant")(len)
    with pytest.raises(UserError) as caught:
        animals.get("elefant")
    assert str(caught.value) == ("unknown animal 'elefant' (did you mean 'elephant'?): choose one of ant, elephant, "
                                 "or add yours with --plugin FILE.py")
    assert closest("xyz", ["elephant"]) == ""


def test_a_name_is_given_once():
    animals = Registry("animal")
    animals.register("cat")(len)
    animals.register("cat")(len)  # the same thing again, as when a module is reloaded
    with pytest.raises(UserError, match=r"animal 'cat' is defined twice, in builtins.len and in builtins.max: rename"):
        animals.register("cat")(max)


def test_modules_of_a_package_are_discovered_when_first_asked(tmp_path, monkeypatch):
    package = tmp_path / "zoo_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from harness.registry import Registry\nANIMALS = Registry('animal', 'zoo_of_tests')\n")
    for name in ("lion", "_hidden"):
        (package / f"{name}.py").write_text(
            f"from zoo_of_tests import ANIMALS\n@ANIMALS.register('{name}')\ndef make(legs: int = 4): return legs\n")
    (package / "main.py").write_text("raise SystemExit('a program, not a part')\n")
    monkeypatch.syspath_prepend(tmp_path)
    from zoo_of_tests import ANIMALS

    assert "zoo_of_tests.lion" not in sys.modules
    assert ANIMALS.names() == ["lion"]
    assert ANIMALS.get("lion")() == 4


def test_plugins(tmp_path):
    file = tmp_path / "my_plugin.py"
    file.write_text("count = globals().get('count', 0) + 1\n")
    load_plugin(file)
    module = sys.modules["tasklift_plugin_my_plugin"]
    load_plugin(str(file))
    assert sys.modules["tasklift_plugin_my_plugin"] is module and module.count == 1


@pytest.mark.parametrize("text, reason", [
    ("import not_a_module_at_all\n", "ModuleNotFoundError: No module named 'not_a_module_at_all'"),
    ("def broken(:\n", "SyntaxError"),
    ("1 / 0\n", "ZeroDivisionError: division by zero"),
])
def test_a_plugin_with_an_error(tmp_path, text, reason):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_plugin(file)
    assert str(caught.value).startswith(f"plugin {file} fails on import: {reason}")
    assert "tasklift_plugin_broken" not in sys.modules


def test_a_plugin_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"plugin .*absent.py is not a file: give --plugin the path of a Python file"):
        load_plugin(tmp_path / "absent.py")
