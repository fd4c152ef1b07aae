"""Factories of users: functions without arguments, in a file or a package, that return a model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from unmask.errors import UnmaskError

__all__ = ["find_factory"]


def find_factory(source: str, name: str) -> Callable[[], Any]:
    """The function ``name`` of ``path/to/file.py`` or of ``package.module``.

    Raises UnmaskError for a source that is not there or fails, and for a name that it does not have; the message then
    lists those that it has.
    """
    module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    factory = getattr(module, name, None)
    if not callable(factory):
        has = ", ".join(_callables(module)) or "none"
        wrong = f"{source} has no function {name!r} that builds a model" if name else f"{source} names no function"
        raise UnmaskError(f"{wrong}: give {source}:FUNCTION, one of those it has: {has}")

    def made() -> Any:
        with _run_alone(Path(source)):
            return factory()

    return made


def _callables(module: ModuleType) -> list[str]:
    """The functions that a module defines, then its classes."""
    own = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    }
    return sorted(own, key=lambda name: isinstance(own[name], type))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnmaskError(f"no file {path}: a target is named path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(f"unmask_target_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    _search_also(path.parent)
    try:
        with _run_alone(path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UnmaskError(f"{path} fails when it is loaded: {type(error).__name__}: {error}") from error
    return module


def _from_package(name: str) -> ModuleType:
    _search_also(Path())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UnmaskError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error


@contextmanager
def _run_alone(path: Path) -> Iterator[None]:
    """With the arguments of a script that is run by itself: it may parse them when it is loaded."""
    before, sys.argv = sys.argv, [str(path)]
    try:
        yield
    finally:
        sys.argv = before


def _search_also(folder: Path) -> None:
    """Let a target import its neighbours, as a script may."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.append(place)
