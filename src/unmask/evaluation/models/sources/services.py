"""Services that answer scores over HTTP."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from unmask.errors import UnmaskError
from unmask.evaluation.models.sources.loading import Loaded, Request
from unmask.models.black_box_models import http_model

__all__ = ["load_service", "read_headers"]


def load_service(request: Request) -> Loaded:
    """A service at an address, queried as :func:`unmask.http_model` says."""
    form = request.form
    headers = dict(_parted(header) for header in form.headers)
    return Loaded(http_model(request.name, headers=headers, rate=form.rate_limit))


def read_headers(given: Iterable[str]) -> tuple[str, ...]:
    """Headers ``NAME: VALUE``, in which ``$VARIABLE`` stands for a variable of the environment.

    Raises UnmaskError for another form, and for a variable that is not set.

    >>> read_headers(["Accept:application/json"])
    ('Accept: application/json',)
    """
    return tuple(_header(text) for text in given)


def _parted(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise UnmaskError("--header takes NAME: VALUE, such as 'Authorization: Bearer $TOKEN'")
    return name, value.strip()


def _header(text: str) -> str:
    name, value = _parted(text)
    for variable in re.findall(r"\$\{?(\w+)", value):
        if variable not in os.environ:
            raise UnmaskError(f"--header {name}: the variable {variable} of the environment is not set")
    value = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: os.environ[found[1] or found[2]], value).strip()
    if not (value.isascii() and value.isprintable()):
        raise UnmaskError(f"--header {name}: its value holds a line break or another character that cannot be sent")
    return f"{name}: {value}"
