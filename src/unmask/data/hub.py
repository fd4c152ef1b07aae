"""Fetching a data set from the Hugging Face hub, where the optional huggingface_hub is installed."""

from __future__ import annotations

import importlib
from pathlib import Path

from unmask.data.dataset import DataError

__all__ = ["fetch"]


def fetch(repository: str, file: str, folder: Path) -> Path | None:
    """Download ``file`` of the data set ``repository`` to ``folder / file``, its path; None without huggingface_hub.

    Raises :class:`DataError` if the download fails, whatever the reason.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        return None
    try:
        return Path(hub.hf_hub_download(repository, file, repo_type="dataset", local_dir=folder))
    except Exception as error:  # the network, the hub and the disk each fail in their own way
        remedy = f"try again with a network, or put {Path(file).name} into {folder}"
        raise DataError(f"cannot download {file} of {repository} ({error}): {remedy}") from error
