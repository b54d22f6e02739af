"""Names for things that come one to a file: architectures, tasks, data sets, strategies, ...

A thing registers itself where it is defined; the registry finds the file by importing the modules
of its package the first time anybody asks. Nothing is listed anywhere else, so adding a method is
adding a file. This module imports neither torch nor anything else that is slow.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from harness.errors import UserError, closest

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: what the things are called in messages, for example ``"architecture"``.
        package: dotted name of the package whose modules register them; imported when first needed.
        besides: modules of it that register nothing, and take long to import.
    """

    def __init__(self, kind: str, package: str | None = None, besides: Sequence[str] = ()) -> None:
        self.kind = kind
        self.package = package
        self._besides = ("main", *besides)
        self._things: dict[str, T] = {}
        self._resolvers: dict[str, tuple[Callable[[str], T], str]] = {}
        self._resolved: dict[str, T] = {}
        self._discovered = package is None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a class or function under ``name``.

        Raises:
            UserError: another thing already has that name.
        """

        def file(thing: T) -> T:
            known = self._things.get(name)
            if known is not None and _origin(known) != _origin(thing):
                raise UserError(
                    f"{self.kind} '{name}' is defined twice, in {_origin(known)} and in "
                    f"{_origin(thing)}: rename one"
                )
            self._things[name] = thing
            return thing

        return file

    def resolver(self, prefix: str, rest: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
        """Decorator for a function that makes the things whose names begin with ``prefix``.

        It is called with what follows the prefix, once for each name, and raises :class:`UserError` for a
        name that stands for nothing. So things of another library need no list here.

        Args:
            prefix: for example ``"library:"``.
            rest: what follows it, in the words of messages and help: ``"<ClassName>"``.
        """

        def keep(make: Callable[[str], T]) -> Callable[[str], T]:
            self._resolvers[prefix] = (make, rest)
            return make

        return keep

    def get(self, name: str) -> T:
        """The thing called ``name``.

        Raises:
            UserError: there is none; the message names the closest one and all the others.
        """
        self._discover()
        if name in self._things:
            return self._things[name]
        if name not in self._resolved:
            self._resolved[name] = self._resolve(name)
        return self._resolved[name]

    def _resolve(self, name: str) -> T:
        for prefix, (make, _) in self._resolvers.items():
            if name.startswith(prefix):
                return make(name.removeprefix(prefix))
        raise UserError(
            f"unknown {self.kind} '{name}'{closest(name, self._things)}: "
            f"choose one of {', '.join(self.choices())}, or add yours with --plugin FILE.py"
        )

    def name_of(self, thing: object) -> str:
        """What a thing is called here; its own ``__name__`` when it is not registered."""
        found = (name for name, known in {**self._things, **self._resolved}.items() if known is thing)
        return next(found, getattr(thing, "__name__", repr(thing)))

    def names(self) -> list[str]:
        """The names of all that is registered, sorted; not those that a resolver knows."""
        self._discover()
        return sorted(self._things)

    def choices(self) -> list[str]:
        """What to choose from, for messages and help: the names, and the forms of those of resolvers."""
        return [*self.names(), *(f"{prefix}{rest}" for prefix, (_, rest) in sorted(self._resolvers.items()))]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self.get(name)
        except UserError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # before the imports: a module may ask while it is being imported
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_") and module.name not in self._besides:
                importlib.import_module(f"{self.package}.{module.name}")


def load_plugin(path: str | Path) -> None:
    """Run a user's file so that what it defines registers itself.

    Raises:
        UserError: the file is missing or fails while it is imported.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"plugin {path} is not a file: give --plugin the path of a Python file")
    name = f"tasklift_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that DataLoader workers can unpickle what it defines
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugin {path} fails on import: {type(error).__name__}: {error}") from error


def _origin(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', '?')}"
