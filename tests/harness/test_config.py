from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from harness.config import Selection, as_dict, differences, digest, identity, load, selection, selections, volatile
from harness.errors import UserError
from harness.registry import Registry

BALANCES: Registry = Registry("balance")


@BALANCES.register("equal")
def equal(tasks: list):
    """All the same."""
    return "equal", tasks


@BALANCES.register("cagrad")
class CAGrad:
    """Conflict-averse.

    Args:
        tasks: names.
        c: radius of the search.
        rescale: whether the length is kept.
        weights: by task.
    """

    def __init__(self, tasks: list, c: float = 0.5, rescale: bool = True,
                 weights: dict[str, float] | None = None) -> None:
        self.tasks, self.c, self.rescale, self.weights = tasks, c, rescale, weights


@dataclass
class Common:
    """Of all balances.

    Args:
        share: of the step.
        verbose: talk.
    """

    share: float = 1.0
    verbose: bool = volatile(False)


@dataclass
class Optimizer:
    """The optimiser.

    Args:
        lr: learning rate.
        options: more of it.
    """

    lr: float = 0.1
    options: dict[str, float] = field(default_factory=dict)


@dataclass
class Config:
    """A program of tests.

    Args:
        epochs: passes over the data.
        precision: of numbers.
        tasks: to learn.
        name: of the run.
        plugin: files.
        optimizer: how steps are taken.
    """

    epochs: int = 3
    precision: Literal["no", "bf16"] = "no"
    tasks: list[str] = field(default_factory=lambda: ["semseg"])
    name: str | None = volatile(None)
    plugin: list[str] = volatile(default_factory=list)
    balance: Selection = selection(BALANCES, "equal", common=Common, help="how losses are combined")
    optimizer: Optimizer = field(default_factory=Optimizer)


def read(*argv, **options):
    return load(Config, list(argv), prog="program", **options)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults_and_overrides(file):
    assert as_dict(read()) == as_dict(Config())
    path = file("epochs: 5\noptimizer: {lr: 1e-3, options: {beta: 0.9}}\nbalance: {name: cagrad, c: 0.4, share: 0.5}\n")
    config = read("--config", path, "--epochs", "7", "--balance.rescale=false", "--tasks", "[a, b]")
    assert (config.epochs, config.tasks, config.optimizer) == (7, ["a", "b"], Optimizer(0.001, {"beta": 0.9}))
    assert config.balance.options == {"c": 0.4, "rescale": False, "weights": None}
    assert config.balance.common == Common(share=0.5)
    built = config.balance.build(["t"], weights={"t": 2.0})
    assert isinstance(built, CAGrad) and (built.c, built.tasks, built.weights) == (0.4, ["t"], {"t": 2.0})


def test_complete_configuration_reads_back(file):
    config = read("--balance.name=cagrad", "--balance.weights={a: 2}", "--name=x")
    again = read("--config", file(yaml.safe_dump(as_dict(config))))
    assert as_dict(again) == as_dict(config) and again == config


def test_a_selection_may_be_just_a_name_and_a_base_stands_in_for_the_file(file):
    path = file("balance: cagrad\n")
    assert read(base=path).balance.options["c"] == 0.5
    assert read("--balance.name", "equal", base=path).balance.options == {}


def test_overriding_a_name_drops_the_former_ones_options_and_says_so(file, capsys):
    path = file("balance: {name: cagrad, c: 0.4, rescale: false, share: 0.5}\n")
    config = read("--config", path, "--balance.name", "equal")
    assert config.balance == Selection("equal", {}, Common(share=0.5))
    assert capsys.readouterr().err == ("program: balance.name cagrad -> equal: dropped its options balance.c, "
                                       "balance.rescale\n")
    assert read("--config", path, "--balance.name=cagrad").balance.options["c"] == 0.4
    assert capsys.readouterr().err == ""


@dataclass
class Several:
    """A program that does several things.

    Args:
        things: what is done.
        epochs: passes over the data.
    """

    things: dict[str, Selection] = selections(BALANCES, ["equal"])
    epochs: int = 3


def test_several_things_each_with_options_of_their_own(file, capsys):
    def several(*argv):
        return load(Several, list(argv), prog="program")

    assert as_dict(several()) == as_dict(Several()) == {"things": ["equal"], "equal": {}, "epochs": 3}
    path = file("things: [cagrad, equal]\ncagrad: {c: 0.4}\nepochs: 5\n")
    config = several("--config", path, "--cagrad.rescale", "false")
    assert list(config.things) == ["cagrad", "equal"] and config.epochs == 5
    assert config.things["cagrad"].options == {"c": 0.4, "rescale": False, "weights": None}
    built = config.things["cagrad"].build(["t"])
    assert isinstance(built, CAGrad) and built.c == 0.4
    assert differences(identity(config), identity(several("--config", path))) == ["cagrad.rescale: False -> True"]
    again = several("--config", file(yaml.safe_dump(as_dict(config))))
    assert again == config and as_dict(again) == as_dict(config)
    assert capsys.readouterr().err == ""
    assert list(several("--config", path, "--things=equal").things) == ["equal"]
    assert capsys.readouterr().err == "program: things are equal: dropped the options of cagrad\n"


@pytest.mark.parametrize(("argv", "message"), [
    (["--things", "[equal, nothing]"], "unknown balance 'nothing'"),
    (["--things", "[]"], r"things is \[\]: give a list of names"),
    (["--things", "[equal, equal]"], "named twice"),
    (["--things", "3"], "give a list of names"),
    (["--things", "[equal"], "option --things"),
    (["--things", "equal", "--cagrad.c", "1"], "unknown option --cagrad.c"),
    (["--things", "cagrad", "--cagrad.c", "much"], "option --cagrad.c"),
])
def test_mistakes_in_a_list_of_things(argv, message):
    with pytest.raises(UserError, match=message) as error:
        load(Several, argv, prog="program")
    assert "\n" not in str(error.value)


def test_plugins_add_names(tmp_path):
    plugin = tmp_path / "more_balances.py"
    plugin.write_text("def mine(tasks: list, sharpness: int = 3):\n    return sharpness\n"
                      "from harness import registry\nregistry.of_tests.register('mine')(mine)\n")
    from harness import registry

    registry.of_tests = BALANCES
    try:
        config = read("--plugin", str(plugin), "--balance.name=mine", "--balance.sharpness=5")
        assert config.balance.build([]) == 5 and config.plugin == [str(plugin)]
    finally:
        del registry.of_tests
        BALANCES._things.pop("mine", None)


@pytest.mark.parametrize("argv, message", [
    (["--epoch", "3"], "unknown option --epoch (did you mean '--epochs'?): --help lists all"),
    (["--optimizer.lrr=1"], "unknown option --optimizer.lrr (did you mean '--optimizer.lr'?): --help lists all"),
    (["--balance.c", "1"], "unknown option --balance.c"),
    (["stray"], "unknown option stray: --help lists all; write a list in brackets and quotes, as '[a, b]'"),
    (["--epochs", "many"], "option --epochs: expected int, got many"),
    (["--epochs", "2.5"], "option --epochs: expected int, got 2.5"),
    (["--optimizer.lr", "fast"], "option --optimizer.lr: expected float, got fast"),
    (["--balance.share", "x"], "option --balance.share: expected float, got x"),
    (["--balance.name=cagrad", "--balance.c=x"], "option --balance.c: expected float, got x"),
    (["--balance.name=cagrad", "--balance.weights=3"],
     "option --balance.weights: expected dict[str, float] or null, got 3"),
    (["--precision", "fp8"], "option --precision: expected Literal['no', 'bf16'], got fp8"),
    (["--balance.name", "cagra"], "unknown balance 'cagra' (did you mean 'cagrad'?): choose one of cagrad, equal, "
                                  "or add yours with --plugin FILE.py"),
    (["--optimizer", "3"], "option --optimizer is a group: set its fields one by one, as --optimizer.FIELD (--help "
                           "lists all)"),
    (["--config"], "--config: expected one argument"),
    (["--config", "absent.yaml"], "cannot read --config absent.yaml: No such file or directory"),
    (["--plugin", "/absent.py"], "plugin /absent.py is not a file: give --plugin the path of a Python file"),
])
def test_mistakes_on_the_command_line(argv, message):
    with pytest.raises(UserError) as caught:
        read(*argv)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == message or message.endswith("balance.c") and str(caught.value).startswith(message)


@pytest.mark.parametrize("text, message", [
    ("epoch: 3", "unknown field epoch in FILE (did you mean 'epochs'?): --help lists all"),
    ("optimiser: {lr: 1}", "unknown field optimiser.lr in FILE (did you mean 'optimizer.lr'?): --help lists all"),
    ("optimizer: {lrr: 1}", "unknown field optimizer.lrr in FILE (did you mean 'optimizer.lr'?): --help lists all"),
    ("balance: {name: cagrad, cc: 1}", "unknown field balance.cc in FILE (did you mean 'balance.c'?): --help lists "
                                       "all"),
    ("epochs: many", "field epochs in FILE: expected int, got many"),
    ("balance: {name: cagrad, c: x}", "field balance.c in FILE: expected float, got x"),
    ("optimizer: 3", "field optimizer in FILE must hold fields (name: value), not 3"),
    ("balance: 3", "field balance must hold fields (name: …), not 3"),
    ("balance: {name: [cagrad]}", "field balance.name must be a name, not ['cagrad']"),
    ("- epochs", "--config FILE must hold fields (name: value), not a list"),
    ("1: 2", "--config FILE: 1 is not the name of a field: --help lists all"),
])
def test_mistakes_in_a_file(file, text, message):
    path = file(text)
    with pytest.raises(UserError) as caught:
        read("--config", path)
    assert str(caught.value) == message.replace("FILE", path)


def test_files_that_are_no_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: [1")
    with pytest.raises(UserError, match="is not valid YAML: .*line 1"):
        read("--config", str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a text file"):
        read("--config", str(path))


def test_help_documents_every_field_and_the_options_of_what_is_chosen(capsys):
    with pytest.raises(SystemExit) as end:
        read("--balance.name=cagrad", "--help")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option, words in {"--epochs": "passes over the data", "--optimizer.lr": "learning rate",
                          "--optimizer.options": "more of it", "--balance.name": "one of: cagrad, equal",
                          "--balance.c": "radius of the search", "--balance.rescale": "whether the length is kept",
                          "--balance.share": "of the step", "--name": "of the run", "--config": "YAML file",
                          "--precision": "of numbers", "--plugin": "files", "--tasks": "to learn"}.items():
        assert option in text and words in text, option


def test_print_config_prints_everything_and_reads_back(capsys, file):
    with pytest.raises(SystemExit) as end:
        read("--balance.name=cagrad", "--balance.c=0.3", "--print_config")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert as_dict(read("--config", file(text))) == as_dict(read("--balance.name=cagrad", "--balance.c=0.3"))


def test_identity_leaves_out_what_does_not_change_results():
    plain, talking = read(), read("--name=x", "--balance.verbose=true", "--plugin=" + __file__)
    assert as_dict(plain) != as_dict(talking) and identity(plain) == identity(talking)
    assert "name" not in identity(plain) and "verbose" not in identity(plain)["balance"]
    assert digest(identity(plain)) == digest(identity(talking)) != digest(identity(read("--epochs=4")))


def test_differences_are_named():
    old, new = identity(read("--optimizer.options={a: 1}")), identity(read("--epochs=4"))
    assert differences(old, new) == ["epochs: 3 -> 4", "optimizer.options.a: 1.0 -> None"]


@pytest.mark.parametrize("room, name", [("pretrain", "PretrainConfig"), ("transfer", "TransferConfig")])
def test_every_field_of_the_programs_is_documented(room, name, capsys):
    """``--help`` of both mains has a sentence for every option."""
    import importlib
    import re

    config_class = getattr(importlib.import_module(f"{room}.config"), name)
    with pytest.raises(SystemExit):
        load(config_class, ["--help"], prog=room)
    text = capsys.readouterr().out
    entries = re.findall(r"^  (--[\w.]+)[^\n]*?(?: {2,}|\n {6,})(\S[^\n]*(?:\n {6,}[^\n]+)*)", text, re.MULTILINE)
    documented = dict(entries)
    for option in re.findall(r"^  (--[\w.]+)", text, re.MULTILINE):
        about = documented.get(option, "")
        assert re.sub(r"\((type|default|required)[^)]*\)?", "", about).strip(), f"{option} has no help"


@pytest.mark.parametrize("room", ["pretrain", "transfer"])
def test_configurations_of_the_project_are_valid(room):
    from pathlib import Path

    from pretrain.config import PretrainConfig
    from transfer.branching.config import BranchConfig
    from transfer.config import TransferConfig

    files = sorted((Path(__file__).parents[2] / "configs" / room).rglob("*.yaml"))
    assert files
    for path in files:
        config_class = {"pretrain": PretrainConfig, "transfer": TransferConfig}[room]
        load(BranchConfig if path.name == "branch.yaml" else config_class, ["--config", str(path)], prog=room)
