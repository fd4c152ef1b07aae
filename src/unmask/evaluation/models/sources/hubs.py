"""Hosts of pretrained weights: one that cannot be reached is said within seconds, where libraries wait for minutes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

from unmask.errors import UnmaskError, first_line

__all__ = ["HUGGING_FACE", "cached_by_torch", "offline_unless_reached", "online"]

HUGGING_FACE = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
"""Address of the Hugging Face hub."""

_VARIABLE = "HF_HUB_OFFLINE"
"""Of the environment, and of ``huggingface_hub.constants``: whether downloads are off."""

_SECONDS = 3.0
"""How long a host may take to answer."""


def online(address: str, name: str) -> None:
    """Raise UnmaskError, within five seconds, unless the host of ``address`` answers, whatever it says."""
    failure = _failure(address)
    if failure is not None:
        raise _unreachable(address, name, failure)


@contextlib.contextmanager
def offline_unless_reached(address: str, name: str, *, local: bool) -> Iterator[None]:
    """Within the block Hugging Face's libraries use what is on this machine alone if the hub cannot be reached.

    Args:
        address: of the hub.
        name: of the model, for the message.
        local: whether it is on this machine anyway.

    Raises UnmaskError with one line if the hub cannot be reached and the block then fails.
    """
    failure = None if local else f"{_VARIABLE} is set" if os.environ.get(_VARIABLE) else _failure(address)
    if failure is None:
        yield
        return
    try:
        with _offline():
            yield
    except Exception as error:  # whatever a library raises for what it does not find
        raise _unreachable(address, name, failure) from error


def cached_by_torch(address: str) -> bool:
    """Whether ``torch.hub`` has downloaded a file before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name).is_file()


def _unreachable(address: str, name: str, failure: str) -> UnmaskError:
    host = urlsplit(address).netloc
    return UnmaskError(
        f"{host} cannot be reached ({failure}), and {name} is not among the models downloaded before: connect, or give "
        "a folder or file of this machine"
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
        except (OSError, ValueError) as error:
            found[0] = first_line(getattr(error, "reason", None) or error, type(error).__name__)
            return
        found[0] = None

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found[0]


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The libraries read the variable once, when they are imported; if they are, the constant is set."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    _set_constant(True)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before
        _set_constant(bool(before))


def _set_constant(value: bool) -> None:
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        vars(constants)[_VARIABLE] = value
