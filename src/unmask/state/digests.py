"""Digests of tensors of any layout and type."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["digest_of"]


def digest_of(tensors: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that identify names, types, shapes and values; what is no tensor is left out.

    >>> one, other = torch.eye(2), torch.eye(2).to_sparse()
    >>> digest_of({"a": one}) == digest_of({"a": one.clone(), "state": "kept"}) != digest_of({"b": other})
    True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    return plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
