"""What a source of models is asked, what it gives, and what all sources need."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.kinds import FindingKind
from unmask.models.forms import ModelForm
from unmask.records import Finding

__all__ = ["Loaded", "Request", "adapted", "existing_file", "library"]


@dataclass(frozen=True)
class Request:
    """A model that a user names.

    Args:
        name: what follows the word of the source, such as ``resnet18``, or a path; a whole address for a service.
        images: some of the data, (B, C, H, W) in [0, 1].
        classes: of the data.
        form: what the user says of the model.
    """

    name: str
    images: Tensor
    classes: int
    form: ModelForm = ModelForm()

    @property
    def num_classes(self) -> int:
        """Of weights in a file of the user: those that are said, or those of the data."""
        return self.form.num_classes or self.classes


@dataclass(frozen=True)
class Loaded:
    """A model of a source, in evaluation mode.

    Args:
        model: images (B, C, H, W) in [0, 1], converted by what the user says of its form, -> logits (B, K).
        notes: what was done to make it ready.
        normalised: whether ``mean`` and ``std`` of its form have been applied.
        selected: whether ``output`` of its form has been applied.
    """

    model: nn.Module
    notes: Sequence[Finding] = ()
    normalised: bool = False
    selected: bool = False


def adapted(where: str, remedy: str) -> Finding:
    """The finding that something was adapted, which reports show."""
    return Finding(kind=FindingKind.ADAPTED, module="", where=where, evidence={}, remedy=remedy)


def library(module: str, package: str, install: str) -> Any:
    """A module of an optional package; UnmaskError that says to ``pip install`` it, or why it does not load.

    >>> library("no_such_module", "no-such-package", "some-package")
    Traceback (most recent call last):
    unmask.errors.UnmaskError: it needs no-such-package: pip install "some-package"
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # torchvision of another build raises RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0], package):
            raise UnmaskError(f'it needs {package}: pip install "{install}"') from error
        raise UnmaskError(f"{package} cannot be imported ({error}): reinstall it beside this torch") from error


def existing_file(path: str) -> str:
    """The path of a file; UnmaskError if there is none."""
    if not Path(path).is_file():
        raise UnmaskError(f"no file {path}")
    return path
