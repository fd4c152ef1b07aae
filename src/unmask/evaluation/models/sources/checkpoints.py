"""Weights in a file of the user, for an architecture of a library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask.errors import UnmaskError, first_line
from unmask.evaluation.models.sources.loading import adapted, existing_file
from unmask.records import Finding

__all__ = ["load_checkpoint"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep weights among other things; the first that there is counts."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers (DataParallel, torch.compile, Lightning) put before every name."""


def load_checkpoint(net: nn.Module, path: str, name: str) -> list[Finding]:
    """Load all weights of ``net`` from a file, strictly; what was unwrapped.

    Args:
        net: the architecture; it is changed.
        path: of safetensors, or of ``torch.save`` with weights alone: no code of it is run.
        name: of the architecture, for messages.

    Raises UnmaskError with one line for a file that holds no weights, or weights of another architecture.
    """
    held, notes = _unwrapped(_read(existing_file(path)), path)
    weights, prefix = _without_prefix(held, net.state_dict())
    if prefix:
        notes.append(adapted(f"{Path(path).name}: names of weights are taken without {prefix!r}", "save it without"))
    own = net.state_dict()
    other = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if other:
        shapes = (f"{tuple(some[other[0]].shape)}" for some in (weights, own))
        raise UnmaskError(
            "{} does not fit {}: {} is {} in the file and {} in the model{}: give the right architecture, and "
            "--num-classes".format(path, name, other[0], *shapes, _more(other))
        )
    missing, unexpected = net.load_state_dict(weights, strict=False)
    if missing or unexpected:
        lacks = [f"{what} {keys[0]}{_more(keys)}" for what, keys in (("no", missing), ("also", unexpected)) if keys]
        raise UnmaskError(f"{path} does not fit {name}: it has {', and '.join(lacks)}: give the right architecture")
    return notes


def _read(path: str) -> Any:
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise UnmaskError(f"{path} holds no weights ({first_line(error)})") from error
    except Exception as error:  # pickle's, of whatever the file names
        raise UnmaskError(
            f"{path} holds more than weights, which would run code of the file: save model.state_dict()"
        ) from error


def _unwrapped(held: Any, path: str) -> tuple[Mapping[str, Tensor], list[Finding]]:
    """The weights of a file, and where they lay in it."""
    if not isinstance(held, Mapping):
        raise UnmaskError(f"{path} holds a {type(held).__name__}: save model.state_dict()")
    if held and all(isinstance(value, Tensor) for value in held.values()):
        return held, []
    for key in _WRAPPERS:
        if isinstance(held.get(key), Mapping):
            inner, notes = _unwrapped(held[key], path)
            others = ", ".join(f"{other!r}" for other in held if other != key)
            note = f"{Path(path).name}: the weights are those of {key!r}; it also has {others or 'nothing'}"
            return inner, [adapted(note, "save the weights alone"), *notes]
    keys = ", ".join(f"{key!r}" for key in [*held][:5]) or "nothing"
    raise UnmaskError(f"{path} holds {keys}, and no weights under {', '.join(_WRAPPERS)}: save model.state_dict()")


def _without_prefix(held: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The weights without what is before all their names and not before those of the model; and what it was."""
    taken = ""
    while not own.keys() & held.keys():
        prefix = next((one for one in _PREFIXES if all(key.startswith(one) for key in held)), None)
        if prefix is None:
            break
        taken += prefix
        held = {key.removeprefix(prefix): value for key, value in held.items()}
    return held, taken


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""
