"""The state of a training run on disk: written whole or not at all, read without running code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from unmask.errors import UnmaskError

__all__ = ["Checkpoints"]


class Checkpoints:
    """``state.pt`` and ``log.jsonl`` of one training run in a folder.

    A run continues only with the same ``settings`` as in the first call; otherwise UnmaskError says what to do.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        asked, text = folder / "settings.json", json.dumps(settings, indent=1)
        if asked.exists() and json.loads(asked.read_text()) != json.loads(text):
            raise UnmaskError(
                f"{folder} holds a training run with other settings", "choose another folder or remove it"
            )
        asked.write_text(text)

    def load(self) -> dict[str, Any] | None:
        """The last state saved, or None."""
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def save(self, state: dict[str, Any], log: dict[str, Any]) -> None:
        """Replace the state and append a line to the log."""
        part = self.folder / "state.pt.part"
        torch.save(state, part)
        os.replace(part, self.folder / "state.pt")
        with (self.folder / "log.jsonl").open("a") as lines:
            lines.write(json.dumps(log) + "\n")
