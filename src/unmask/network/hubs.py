"""Hosts of models and data: one that cannot be reached is said within seconds, where libraries wait for minutes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from ssl import SSLCertVerificationError
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from unmask.errors import UnmaskError, first_line

__all__ = ["HUGGING_FACE", "offline_unless_reached", "online"]

HUGGING_FACE = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
"""Address of the Hugging Face hub."""

_VARIABLE = "HF_HUB_OFFLINE"
"""Of the environment, and of the modules below once they are imported: whether downloads are off."""

_MODULES = ("huggingface_hub.constants", "datasets.config")

_SECONDS = 3.0
"""How long a host may take to answer."""


def online(address: str, name: str) -> None:
    """Raise UnmaskError, within five seconds, unless the host of ``address`` answers, whatever it says."""
    failure = _failure(address)
    if failure is not None:
        raise _unreachable(address, name, failure)


@contextlib.contextmanager
def offline_unless_reached(name: str, *, local: bool) -> Iterator[None]:
    """Within the block Hugging Face's libraries use what is on this machine alone if the hub cannot be reached.

    Args:
        name: of the model or the data, for the message.
        local: whether it is on this machine anyway.

    Raises UnmaskError with one line if the hub cannot be reached and the block then fails.
    """
    failure = None if local else f"{_VARIABLE} is set" if _is_set() else _failure(HUGGING_FACE)
    if failure is None:
        yield
        return
    try:
        with _offline():
            yield
    except UnmaskError:
        raise
    except Exception as error:  # whatever a library raises for what it does not find
        raise _unreachable(HUGGING_FACE, name, failure) from error


def _unreachable(address: str, name: str, failure: str) -> UnmaskError:
    return UnmaskError(
        f"{urlsplit(address).netloc} cannot be reached ({failure}), and {name} was not downloaded before",
        "connect, or give a folder or file of this machine",
    )


def _failure(address: str) -> str | None:
    """Why a host does not answer; None if it does. In a thread, since looking up a name has no time limit."""
    found: list[str | None] = [f"no answer within {_SECONDS:g} s"]

    def attempt() -> None:
        parts = urlsplit(address)
        try:
            urlopen(Request(f"{parts.scheme}://{parts.netloc}", method="HEAD"), timeout=_SECONDS).close()
        except HTTPError as error:
            error.close()
        except Exception as error:  # the network, the address and what answers each fail in their own way
            reason = getattr(error, "reason", None) or error
            if not isinstance(reason, SSLCertVerificationError):  # the libraries may trust other certificates
                found[0] = first_line(reason, type(error).__name__)
                return
        found[0] = None

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found[0]


def _is_set() -> bool:
    """As the libraries read the variable."""
    return os.environ.get(_VARIABLE, "").upper() in {"1", "ON", "YES", "TRUE"}


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The libraries read the variable once, when they are imported; if they are, their own settings are set."""
    variable, otherwise = os.environ.get(_VARIABLE), _is_set()
    before = {name: settings.get(_VARIABLE, False) for name, settings in _imported()}
    os.environ[_VARIABLE] = "1"
    for _, settings in _imported():
        settings[_VARIABLE] = True
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if variable is not None:
            os.environ[_VARIABLE] = variable
        for name, settings in _imported():
            settings[_VARIABLE] = before.get(name, otherwise)


def _imported() -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, vars(sys.modules[name])) for name in _MODULES if name in sys.modules)
