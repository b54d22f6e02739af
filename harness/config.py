"""Typed configuration: dataclasses, one YAML file, dotted overrides, in two passes.

A program states its configuration as a dataclass. A field made with :func:`selection` is a choice
from a registry: the first pass reads plugins and the chosen names, the second adds the typed
options of what was chosen, which are the parameters with a default of the class or function itself.
So ``--balance.name cagrad --balance.c 0.4`` needs no list of options anywhere.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from harness.errors import UserError, closest
from harness.registry import Registry, load_plugin

C = TypeVar("C")


@dataclasses.dataclass
class Selection:
    """One thing chosen from a registry, with its options.

    Attributes:
        name: the registered name.
        options: the value of every option of the thing, without those of ``common``.
        common: options that belong to every thing of the kind (a dataclass), or None.
    """

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    common: Any = None
    registry: Registry | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.common is not None:  # they are said once, or the one would hide the other
            shared = {field.name for field in dataclasses.fields(self.common)}
            self.options = {name: value for name, value in self.options.items() if name not in shared}

    def build(self, *args: Any, **extra: Any) -> Any:
        """Call the chosen class or function with ``args``, the options and ``extra``."""
        return self.registry.get(self.name)(*args, **{**self.options, **extra})


def selection(registry: Registry, default: str, *, common: type | None = None, help: str = "") -> Any:
    """A dataclass field whose value is a :class:`Selection` from ``registry``."""
    return dataclasses.field(
        default_factory=lambda: Selection(default, option_defaults(registry.get(default)),
                                          common() if common else None, registry),
        metadata={"registry": registry, "default": default, "common": common, "help": help},
    )


def selections(registry: Registry, default: Sequence[str]) -> Any:
    """A dataclass field that chooses several things from ``registry``: ``{name: Selection}`` in the order given.

    On the command line it is a list of names, and each chosen thing's options are under its own name, beside the
    configuration's other fields: ``--tasks '[knn, linear]' --knn.k '[20]'``.
    """
    return dataclasses.field(
        default_factory=lambda: {name: Selection(name, option_defaults(registry.get(name)), None, registry)
                                 for name in default},
        metadata={"registry": registry, "default": list(default), "several": True},
    )


def volatile(default: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """A field that does not change results: two runs that differ in it are the same run."""
    if default is not dataclasses.MISSING:
        kwargs["default"] = default
    return dataclasses.field(metadata={"volatile": True}, **kwargs)


def option_defaults(thing: Any) -> dict[str, Any]:
    """Names and defaults of the options of a registered class or function."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: parameter.default for name, parameter in inspect.signature(thing).parameters.items()
            if parameter.kind in kinds and parameter.default is not inspect.Parameter.empty}


def load(config_class: type[C], argv: Sequence[str] | None = None, prog: str = "",
         base: Path | None = None) -> C:
    """Read ``--config``, ``--plugin`` and overrides into a ``config_class``.

    Args:
        config_class: the dataclass.
        argv: the command line; that of the process by default.
        prog: name of the program, for messages.
        base: the YAML file that stands in when there is no ``--config``.

    Raises:
        UserError: unknown or ill-typed field, missing or malformed file, unknown name.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen_from = {field.name: field for field in dataclasses.fields(config_class) if "registry" in field.metadata}
    slots = {name: field for name, field in chosen_from.items() if "several" not in field.metadata}
    lists = {name: field for name, field in chosen_from.items() if "several" in field.metadata}
    first, rest = _first_pass(slots, lists, argv)
    values = _read_yaml(first.config or base)
    _check_groups(config_class, values, first.config or base)
    plugins = first.plugin or values.get("plugin") or []
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        load_plugin(plugin)
    chosen = _choose(slots, first, values, prog, quiet=first.config is None)
    several = {name: _choose_several(field, getattr(first, name), values, prog, quiet=first.config is None)
               for name, field in lists.items()}
    parser = _parser(config_class, slots, chosen, lists, several, prog)
    if base is not None:
        parser.description += (f" Without --config every field starts from {os.path.relpath(base)}; the defaults below "
                               "are those of a field that a --config leaves out.")
    if values:
        rest = ["--config", yaml.safe_dump(values, sort_keys=False), *rest]
    namespace = _parse(parser, rest, first.config, argv)
    return _instantiate(config_class, namespace)


def as_dict(config: Any) -> dict[str, Any]:
    """The whole configuration as plain data, as it stands in ``config.yaml``."""

    def plain(value: Any) -> Any:
        if isinstance(value, Selection):
            common = plain(value.common) if value.common is not None else {}
            return {"name": value.name, **common, **plain(value.options)}
        if dataclasses.is_dataclass(value):
            fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            for field in dataclasses.fields(value):
                if "several" in field.metadata:  # as it is read: the names, and beside them their options
                    things = fields[field.name]
                    fields[field.name] = list(things)
                    fields |= {name: {key: given for key, given in thing.items() if key != "name"}
                               for name, thing in things.items()}
            return fields
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(config)


def identity(config: Any) -> dict[str, Any]:
    """:func:`as_dict` without the fields that do not change results."""
    return without_volatile(config, as_dict(config))


def without_volatile(config: Any, data: dict[str, Any]) -> dict[str, Any]:
    """``data``, a configuration like ``config`` as plain data, without the fields that do not change results."""
    data = copy.deepcopy(data)

    def strip(value: Any, into: Any) -> None:
        if not isinstance(into, dict):  # written by hand, or by another version
            return
        for field in dataclasses.fields(value):
            child = getattr(value, field.name)
            child = child.common if isinstance(child, Selection) else child
            if field.metadata.get("volatile"):
                into.pop(field.name, None)
            elif dataclasses.is_dataclass(child):
                strip(child, into.get(field.name))

    strip(config, data)
    return data


def digest(data: Any) -> str:
    """Ten hexadecimal digits that stand for plain data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """``["optimizer.lr: 0.1 -> 0.2", …]`` for every field in which two configurations differ."""
    found = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _first_pass(slots: dict[str, Any], lists: dict[str, Any],
                argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Names, plugins and the YAML file; what remains for the second pass."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--plugin", action="append")
    for slot in slots:
        parser.add_argument(f"--{slot}.name", dest=slot)
    for name in lists:
        parser.add_argument(f"--{name}")
    try:
        first, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from error
    rest, skip = [], False
    taken = ["--config", "--plugin", *(f"--{name}" for name in lists)]  # the second pass has them already
    for word in argv:
        if skip:
            skip = False
        elif word in taken:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in taken)):
            rest.append(word)
    if first.plugin:
        rest += ["--plugin", json.dumps([str(Path(path).expanduser().resolve()) for path in first.plugin])]
    return first, rest


def _read_yaml(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path} is not a text file: give a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"--config {path} must hold fields (name: value), not a {type(values).__name__}")
    return values


def _check_groups(config_class: type, values: dict[str, Any], path: str | Path | None) -> None:
    """Refuse a value where a group of fields belongs."""
    for name in values:
        if not isinstance(name, str):
            raise UserError(f"--config {path}: {name!r} is not the name of a field: --help lists all")
    for field in dataclasses.fields(config_class):
        default = field.default_factory
        nested = default is not dataclasses.MISSING and dataclasses.is_dataclass(default())
        if nested and "registry" not in field.metadata and not isinstance(values.get(field.name) or {}, dict):
            raise UserError(f"field {field.name} in {path} must hold fields (name: value), not "
                            f"{values[field.name]!r}")


def _choose(slots: dict[str, Any], first: argparse.Namespace, values: dict[str, Any], prog: str,
            quiet: bool) -> dict[str, str]:
    """The name for each slot; drops from ``values`` the options of a name that is overridden."""
    chosen = {}
    for slot, field in slots.items():
        given = values.get(slot) or {}
        if isinstance(given, str):
            given = values[slot] = {"name": given}
        if not isinstance(given, dict):
            raise UserError(f"field {slot} must hold fields (name: …), not {given!r}")
        from_file = given.get("name", field.metadata["default"])
        if not isinstance(from_file, str):
            raise UserError(f"field {slot}.name must be a name, not {from_file!r}")
        name = getattr(first, slot) or from_file
        field.metadata["registry"].get(name)  # refuse an unknown name before anything else
        if name != from_file:
            common = field.metadata["common"]
            keep = {f.name for f in dataclasses.fields(common)} if common else set()
            dropped = sorted(set(given) - keep - {"name"})
            if dropped and not quiet:
                print(f"{prog or 'config'}: {slot}.name {from_file} -> {name}: dropped its options "
                      f"{', '.join(f'{slot}.{option}' for option in dropped)}", file=sys.stderr)
            values[slot] = {key: value for key, value in given.items() if key in keep}
        chosen[slot] = name
        if slot in values:
            values[slot] = {**values[slot], "name": name}
    return chosen


def _choose_several(field: dataclasses.Field, given: str | None, values: dict[str, Any], prog: str,
                    quiet: bool) -> list[str]:
    """The names in a list of things; drops from ``values`` the options of things that are not among them."""
    registry, slot = field.metadata["registry"], field.name
    from_file = values.get(slot, field.metadata["default"])
    try:
        names = from_file if given is None else yaml.safe_load(given)
    except yaml.YAMLError as error:
        raise UserError(f"option --{slot}: {' '.join(str(error).split())}") from error
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{slot} is {names!r}: give a list of names, as '[{', '.join(registry.names()[:2])}]'")
    if len(set(names)) < len(names):
        raise UserError(f"{slot}: one of {', '.join(names)} is named twice")
    for name in names:
        registry.get(name)  # refuse an unknown name before anything else
    dropped = [name for name in registry.names() if name in values and name not in names]
    if dropped and not quiet:
        print(f"{prog or 'config'}: {slot} are {', '.join(names)}: dropped the options of {', '.join(dropped)}",
              file=sys.stderr)
    for name in dropped:
        del values[name]
    values.pop(slot, None)
    return names


def _parser(config_class: type, slots: dict[str, Any], chosen: dict[str, str], lists: dict[str, Any],
            several: dict[str, list[str]], prog: str) -> ArgumentParser:
    description = (inspect.getdoc(config_class) or "").split("\n\n")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = ArgumentParser(prog=prog or None, description=description, exit_on_error=False,
                                default_env=False, allow_abbrev=False)
        parser.add_argument("--config", action="config", help="YAML file with any of the fields below")
        parser.add_class_arguments(config_class, skip={*slots, *lists})
        for slot, field in slots.items():
            registry, common = field.metadata["registry"], field.metadata["common"]
            thing = registry.get(chosen[slot])
            group = f"{slot}.name"
            about = field.metadata["help"] or f"{registry.kind} to use"
            names = ", ".join(registry.choices())
            parser.add_argument(f"--{group}", type=str, default=chosen[slot], help=f"{about}; one of: {names}")
            shared = {f.name for f in dataclasses.fields(common)} if common else set()
            if common:
                for member in dataclasses.fields(common):
                    _add_member(parser, slot, common, member)
            _add_options(parser, slot, thing, shared)
        for slot, field in lists.items():
            registry = field.metadata["registry"]
            about = _argument_help(config_class).get(slot, "")
            parser.add_argument(f"--{slot}", type=list[str], default=several[slot],
                                help=f"{about} Any of: {', '.join(registry.choices())}")
            for name in several[slot]:
                _add_options(parser, name, registry.get(name), set())
    return parser


def _add_options(parser: ArgumentParser, group: str, thing: Any, shared: set[str]) -> None:
    """The parameters with a default of a class or function, but for those that its whole kind has."""
    required = {name for name, parameter in inspect.signature(thing).parameters.items()
                if parameter.default is inspect.Parameter.empty}
    if set(option_defaults(thing)) - shared:
        add = parser.add_class_arguments if inspect.isclass(thing) else parser.add_function_arguments
        add(thing, group, skip=(required | shared), fail_untyped=False)


def _add_member(parser: ArgumentParser, slot: str, common: type, member: dataclasses.Field) -> None:
    import typing

    default = member.default if member.default is not dataclasses.MISSING else member.default_factory()
    parser.add_argument(f"--{slot}.{member.name}", type=typing.get_type_hints(common)[member.name],
                        default=default, help=_argument_help(common).get(member.name, ""))


def _argument_help(thing: Any) -> dict[str, str]:
    from docstring_parser import parse

    return {param.arg_name: " ".join((param.description or "").split())
            for param in parse(inspect.getdoc(thing) or "").params}


def _parse(parser: ArgumentParser, argv: list[str], path: str | None, given: Sequence[str]) -> Namespace:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parser.parse_args(argv)
    except ArgumentError as error:
        raise UserError(_explain(parser, str(error), path, given)) from error


def _explain(parser: ArgumentParser, message: str, path: str | None, given: Sequence[str]) -> str:
    """jsonargparse's message as one line that names the option."""
    options = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
    text = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", text):
        option = match[1].split("=")[0]
        hint = "" if option.startswith("-") else "; write a list in brackets and quotes, as '[a, b]'"
        return f"unknown option {option}{closest(option, options)}: --help lists all{hint}"
    if match := (re.search(r"(?:Group '([\w.]+)' )?does not accept option '([\w.]+)'", text)
                 or re.search(r"Option '(?:([\w.]+)\.)?([\w.]+)' is not accepted", text)):
        name = f"{match[1]}.{match[2]}" if match[1] else match[2]
        where = f" in {path}" if path else ""
        names = [option.removeprefix("--") for option in options]
        return f"unknown field {name}{where}{closest(name, names)}: --help lists all"
    if match := re.search(r'Parser key "([\w.]+)": Unable to load config', text):
        return f"option --{match[1]} is a group: set its fields one by one, as --{match[1]}.FIELD (--help lists all)"
    if match := re.search(r'Parser key "([\w.]+)":? (.*)', text):
        reason = re.sub(r"<class '([\w.]+)'>", r"\1", match[2]).replace("typing.", "")
        if union := re.search(r"Union subtypes Subtypes: \[(.*)\] Errors: .* Given value: (.*)", reason):
            kinds = re.split(r", (?![^\[]*\])", union[1].replace("NoneType", "null"))
            reason = f"expected {', '.join(kinds[:-1])} or {kinds[-1]}, got {union[2]}"
        reason = reason.replace("Expected a ", "expected ").replace(". Got value:", ", got")
        if wrong := re.fullmatch(r"expected list, got ([^\[\]{}]*)", reason):
            items = ", ".join(item.strip() for item in wrong[1].split(","))
            reason += f": write a list in brackets and quotes, as '[{items}]'"
        if path and not any(word.split("=")[0] == f"--{match[1]}" for word in given):
            return f"field {match[1]} in {path}: {reason}"
        return f"option --{match[1]}: {reason}"
    return text


def _instantiate(config_class: type[C], namespace: Any) -> C:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        value = namespace[field.name] if field.name in namespace else None
        if "several" in field.metadata:
            registry = field.metadata["registry"]
            values[field.name] = {name: Selection(name, dict(namespace[name].as_dict()) if name in namespace else {},
                                                  None, registry) for name in value}
        elif "registry" in field.metadata:
            given = dict(value.as_dict() if hasattr(value, "as_dict") else value)
            name = given.pop("name")
            common = field.metadata["common"]
            shared = None
            if common:
                shared = common(**{f.name: given.pop(f.name) for f in dataclasses.fields(common)})
            values[field.name] = Selection(name, given, shared, field.metadata["registry"])
        elif isinstance(value, Namespace):
            default = field.default_factory if field.default_factory is not dataclasses.MISSING else None
            nested = type(default()) if default else None
            values[field.name] = _instantiate(nested, value) if dataclasses.is_dataclass(nested) else value.as_dict()
        else:
            values[field.name] = value
    return config_class(**values)
