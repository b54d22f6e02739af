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


def test_names_with_a_prefix_are_made_when_asked_for():
    animals = Registry("animal")
    animals.register("ant")(len)
    made = []

    @animals.resolver("dinosaur:", "<Species>")
    def dinosaur(species):
        if species != "Rex":
            raise UserError(f"no dinosaur '{species}'")
        made.append(species)
        return type(species, (), {})

    rex = animals.get("dinosaur:Rex")
    assert rex.__name__ == "Rex" and animals.get("dinosaur:Rex") is rex and made == ["Rex"]
    assert animals.name_of(rex) == "dinosaur:Rex" and "dinosaur:Rex" in animals
    assert "dinosaur:Tex" not in animals and "Rex" not in animals and None not in animals
    assert animals.names() == ["ant"] and animals.choices() == ["ant", "dinosaur:<Species>"]
    with pytest.raises(UserError, match="no dinosaur 'Tex'"):
        animals.get("dinosaur:Tex")
    with pytest.raises(UserError, match="choose one of ant, dinosaur:<Species>, or add yours with --plugin"):
        animals.get("dinosaur")


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
