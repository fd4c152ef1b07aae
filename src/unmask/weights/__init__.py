"""Trained weights, and how they are stored: safetensors in half precision, read as float32."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

__all__ = ["load_weights", "save_weights"]


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of ``model``, floating-point ones in half precision, whole or not at all."""
    tensors = {
        name: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in model.state_dict().items()
    }
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(tensors))
    part.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Read weights into ``model``; floating-point tensors become float32.

    Raises ValueError where the file is missing, damaged or not of this architecture.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}: train them with `unmask train {path.stem}`, then name their folder")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): fetch or train it again") from error
    floats = {name: (t.to(torch.float32) if t.is_floating_point() else t) for name, t in tensors.items()}
    try:
        model.load_state_dict(floats)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} holds weights of another model: {first}") from error
