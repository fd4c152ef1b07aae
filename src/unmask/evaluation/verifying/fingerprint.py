"""What a run rests on that is no part of its folder: the model's weights and code, and the images."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unmask.data import Dataset
from unmask.evaluation.models.sources.registry import source_of
from unmask.state.digests import digest_of

__all__ = ["changed", "fingerprint"]


def fingerprint(name: str, model: nn.Module, data: Dataset, n: int) -> dict[str, Any]:
    """Digests of the weights, of the file that ``name`` names (None for none), and of the first ``n`` images.

    Two models of one fingerprint may still differ: in code that their file imports, in what they keep outside of
    parameters and buffers, and in the libraries that they run on, which run.json names.

    >>> from unmask.data import load
    >>> digits = load("digits", "test", n=2)
    >>> one, two = (fingerprint("some", nn.Linear(2, 2), digits, 2) for _ in range(2))
    >>> changed(one, two)
    "the model's weights"
    """
    images = digest_of({"images": data.images[:n], "labels": data.labels[:n]})
    return {"weights": digest_of(model.state_dict()), "code": _code(name), "images": images, "data": data.name, "n": n}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two fingerprints, in words; empty for nothing."""
    words = {"weights": "the model's weights", "code": "the model's code", "images": "the images"}
    return " and ".join(word for name, word in words.items() if before.get(name) != now.get(name))


def _code(name: str) -> str | None:
    named = source_of(name)
    kind, _, factory = name.rpartition(":")
    if named is not None:
        path: Path | None = Path(named[1]) if named[0].suffix else None
    elif kind in ("", "case") or not factory:
        return None
    elif kind.endswith(".py"):
        path = Path(kind)
    else:
        spec = importlib.util.find_spec(kind)
        path = Path(spec.origin) if spec and spec.origin else None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path and path.is_file() else None
