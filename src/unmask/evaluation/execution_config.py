"""How jobs are executed, by this process or by each worker of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unmask.models.forms import ModelForm

__all__ = ["ExecutionConfig"]


@dataclass(frozen=True)
class ExecutionConfig:
    """What an executor needs besides its jobs."""

    batch: int = 128
    """Images at a time, which bounds memory; no result depends on it."""
    device: str = "cpu"
    """As torch names it."""
    weights: Path | None = None
    """Folder of the cases' weights, which every worker must see; None for those that ship."""
    strict: bool = True
    """Whether models that return probabilities are refused."""
    form: ModelForm = ModelForm()
    """How models take images and return logits, as far as the user says so."""
    size: int | None = None
    """To which images are resized and cropped; None for none."""
    compile: bool = False
    """Whether the views that attacks optimise are compiled."""
