"""The tensors that a run keeps of its examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unmask.errors import UnmaskError
from unmask.records import Record
from unmask.report.run_folder import ExampleRecord, RunFolder

__all__ = ["Array", "StoredTensors"]

Array = NDArray[Any]


class StoredTensors:
    """Reads each file of examples of a run once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._files: dict[str, dict[str, Array]] = {}

    def of(self, found: ExampleRecord, name: str) -> Array | None:
        """What was kept of one example under a name; None where its job kept less, or its file is gone.

        Raises UnmaskError where the file is broken.
        """
        tensors = self.all(found.record)
        if name not in tensors:
            return None
        places = np.flatnonzero(tensors["index"] == found.example.index)
        if not len(places) or places[0] >= len(tensors[name]):
            return None
        kept: Array = tensors[name][places[0]]
        return kept

    def all(self, record: Record) -> Mapping[str, Array]:
        """All that a job kept, by name; nothing where its file is gone. Raises UnmaskError where it is broken."""
        file = record.file
        if file is None or not (self._run.path / file).exists():
            return {}
        if file not in self._files:
            self._files[file] = self._load(self._run.path / file, {example.index for example in record.examples})
        return self._files[file]

    @staticmethod
    def _load(path: Path, examples: set[int]) -> dict[str, Array]:
        try:
            tensors = load_file(path)
        except (SafetensorError, TypeError, KeyError) as error:  # its reader raises these for types that numpy lacks
            raise UnmaskError(f"{path} is broken ({error})", "delete it to report without it") from error
        if missing := {"x_adv", "index", "clean"} - tensors.keys():
            raise UnmaskError(f"{path} is broken (no {', '.join(sorted(missing))})", "delete it to report without it")
        images = [one for name, one in tensors.items() if name in ("x_adv", "clean", "seen")]
        fit = tensors["clean"].shape[1:] == tensors["x_adv"].shape[1:] and all(one.ndim == 4 for one in images)
        if not fit or not all(map(np.ndim, tensors.values())):
            raise UnmaskError(f"{path} is broken (no images in it)", "delete it to report without it")
        for prefix, dimensions in _GROUPS.items():
            if not _consistent(
                {name: one for name, one in tensors.items() if name.startswith(prefix)}, examples, dimensions
            ):
                raise UnmaskError(f"{path} is broken (in {prefix}...)", "delete it to report without it")
        return tensors


_GROUPS = {
    "way_": {"index": 1, "step": 1, "image": 4, "view": 1, "true": 1, "predicted": 1, "seen": 4},
    "slice_": {"index": 1, "loss": 3, "scale": 1, "slope": 2},
}
"""Tensors of trajectories and of slices of the loss landscape: the dimensions of each; ``seen`` may be absent."""


def _consistent(tensors: Mapping[str, Array], examples: set[int], dimensions: Mapping[str, int]) -> bool:
    """Whether a group of tensors is complete, of one length, and on examples of its record; or is not there at all."""
    found = {name.split("_", 1)[1]: tensor for name, tensor in tensors.items()}
    return not found or (
        dimensions.keys() - {"seen"} <= found.keys() <= dimensions.keys()
        and all(tensor.ndim == dimensions[name] for name, tensor in found.items())
        and len({len(tensor) for tensor in found.values()}) == 1
        and set(found["index"].tolist()) <= examples
    )
