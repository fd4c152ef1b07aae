"""Trained weights, and how they are stored: safetensors in half precision, read as float32."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["load_weights", "origin", "save_weights", "shipped"]


def shipped(name: str) -> Path:
    """Where the weights of that name lie in the package, if they come with it."""
    return Path(str(files("unmask") / "weights")) / f"{name}.safetensors"


def save_weights(model: nn.Module, path: Path, without: str = "") -> None:
    """Write the parameters and buffers of ``model``, floating-point ones in half precision, whole or not at all.

    Those of the part ``without``, a name as in ``model.named_children()``, are left out.
    """
    tensors = {
        name: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in _own(model, without).items()
    }
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(tensors))
    part.replace(path)


def load_weights(model: nn.Module, path: Path, without: str = "") -> None:
    """Read weights into ``model``; floating-point tensors become float32. The part ``without`` keeps its own.

    Raises UnmaskError where the file is missing, damaged or not of this architecture.
    """
    if not path.is_file():
        raise UnmaskError(
            f"no weights at {path}", f"train them with `unmask train {path.stem}`, then name their folder"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    floats = {name: (t.to(torch.float32) if t.is_floating_point() else t) for name, t in tensors.items()}
    kept = model.state_dict().keys() - _own(model, without).keys()
    try:
        model.load_state_dict(floats | {name: model.state_dict()[name] for name in kept})
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise UnmaskError(f"{path} holds weights of another model: {first}") from error


def origin(path: Path) -> str:
    """What the file says of where its weights come from: its metadata's ``source``, on one line; empty for nothing.

    Raises UnmaskError where there is no readable file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return " ".join((file.metadata() or {}).get("source", "").split())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnmaskError:
    return UnmaskError(f"{path} is not a readable safetensors file ({error})", "fetch or train it again")


def _own(model: nn.Module, without: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    return {name: t for name, t in state.items() if not (without and name.startswith(f"{without}."))}
