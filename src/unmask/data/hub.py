"""Fetching a data set from the Hugging Face hub, where the optional huggingface_hub is installed."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from pathlib import Path

from unmask.data.dataset import DataError

__all__ = ["fetch"]


def fetch(repository: str, file: str, folder: Path) -> Path | None:
    """Download ``file`` of the data set ``repository`` to ``folder / file``, its path; None without huggingface_hub.

    Raises :class:`DataError` if the download fails, whatever the reason. It then leaves no file and no new folder.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        return None
    target = folder / file
    new = [parent for parent in target.parents if not parent.exists()]  # the innermost first
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as place:
            Path(hub.hf_hub_download(repository, file, repo_type="dataset", local_dir=place)).replace(target)
    except Exception as error:  # the network, the hub and the disk each fail in their own way
        remedy = f"try again with a network, or put {target.name} into {folder}"
        raise DataError(f"cannot download {file} of {repository} ({error})", remedy) from error
    finally:
        with contextlib.suppress(OSError):  # what holds something stays
            for parent in new:
                parent.rmdir()
    return target
