"""What can be evaluated: a case by name, or a model that the user's own code builds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from unmask.cases import Attacker, Case, find_case
from unmask.randomness import drawing, stream
from unmask.types import as_output
from unmask.victims import steady

__all__ = ["Target", "check_model", "find_target", "is_random"]


@dataclass(frozen=True)
class Target:
    """A model to evaluate, and how."""

    model: nn.Module
    attackers: Mapping[str, Attacker]
    draws: int  # per verdict
    foreign: bool  # whether randomness is drawn by torch's own functions


def find_target(name: str, attackers: Mapping[str, Attacker] | None = None, weights: Path | None = None) -> Target:
    """The model behind ``case:NAME``, ``path/to/file.py:factory`` or ``package.module:factory``.

    A factory takes no argument and returns an ``nn.Module`` in evaluation mode: float32 images
    (B, C, H, W) in [0, 1] to logits. Raises ValueError with one line for anything else.
    """
    kind, _, rest = name.rpartition(":")
    if kind == "case":
        case: Case = find_case(rest)
        return Target(case.load(weights), case.attackers if attackers is None else attackers, case.draws, False)
    if not kind or not rest:
        raise ValueError(f"target {name!r} is none of case:NAME, path/to/file.py:factory, package.module:factory")
    model = _build(_factory(kind, rest), name)
    return Target(model, attackers or {}, 1, False)


def _factory(source: str, name: str) -> Callable[[], Any]:
    module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ValueError(f"{source} has no function {name!r} that builds a model")
    made: Callable[[], Any] = factory
    return made


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"no file {path}: a target is named path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(f"unmask_target_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails when it is loaded: {type(error).__name__}: {error}") from error
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _build(factory: Callable[[], Any], name: str) -> nn.Module:
    try:
        model = factory()
    except Exception as error:
        raise ValueError(f"{name} fails: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returns a {type(model).__name__}: return an nn.Module")
    return model


def check_model(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Ask a model about a few images; ValueError with one line where no accuracy could be trusted.

    Looks for: training mode, a failing forward pass, logits of a wrong shape, NaN or Inf, probabilities
    or log-probabilities instead of logits, labels that the model has no class for, images out of [0, 1].
    """
    if not (x.isfinite().all() and x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"images lie in [{x.min():.3g}, {x.max():.3g}]: scale them to [0, 1], normalise in the model")
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise ValueError(f"the model is in training mode ({training[0]}): call model.eval() in the factory")
    try:
        with torch.no_grad():
            logits = as_output(model(x)).logits
    except Exception as error:
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"the model fails on images of shape {tuple(x.shape)}: {message}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model answers {shape} to {len(x)} images: return logits of shape (batch, classes)")
    if not logits.isfinite().all():
        kind = "NaN" if logits.isnan().any() else "Inf"
        raise ValueError(f"the model gives {kind} logits on clean images: return finite logits before any softmax")
    if int(y.max()) >= logits.shape[1] or int(y.min()) < 0:
        raise ValueError(
            f"labels go from {int(y.min())} to {int(y.max())}, but the model has {logits.shape[1]} classes: "
            "check that the data set is the model's"
        )
    sums = logits.double().sum(1)
    if logits.min() >= 0 and logits.max() <= 1 and (sums - 1).abs().max() < 1e-4:
        raise ValueError("the model returns probabilities: return the logits before the softmax")
    if logits.max() <= 0 and (logits.double().exp().sum(1) - 1).abs().max() < 1e-4 and logits.shape[1] > 1:
        raise ValueError("the model returns log-probabilities: return the logits before the log-softmax")


def is_random(model: nn.Module, x: Tensor) -> bool:
    """Whether the model's answers to the same images differ between draws of its randomness."""
    answers = []
    for draw in range(3):
        with torch.no_grad(), drawing(stream(draw, range(len(x)), "is it random")):
            answers.append(steady(model, foreign=True)(x).logits)
    return any(not torch.equal(answers[0], other) for other in answers[1:])
