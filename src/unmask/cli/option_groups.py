"""Options that several commands share, as one parameter of each command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

__all__ = ["grouped"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of those of its parameters that are dataclasses.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     width: int = 1
    ...     height: int = 2
    >>> @grouped
    ... def show(name: str, size: Size) -> None:
    ...     print(name, size)
    >>> [*inspect.signature(show).parameters]
    ['name', 'width', 'height']
    >>> show("a", height=3)
    a Size(width=1, height=3)
    """
    hints, groups, parameters = (
        get_type_hints(command, include_extras=True),
        dict[str, Any](),
        list[inspect.Parameter](),
    )
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind))
            continue
        groups[parameter.name] = kind
        types = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=types[one.name]
            )
            for one in fields(kind)
        ]
    parameters.sort(key=lambda one: one.kind)

    @functools.wraps(command)
    def flat(*args: Any, **options: Any) -> None:
        made = {
            name: kind(**{one.name: options.pop(one.name) for one in fields(kind) if one.name in options})
            for name, kind in groups.items()
        }
        command(*args, **options, **made)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
