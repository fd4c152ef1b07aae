"""What there is, by topic: a name and a line about it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["TOPICS"]


def _cases() -> dict[str, str]:
    from unmask.cases import CASES

    return {
        c.name: f"{c.defense}, {', '.join(c.obfuscation)}; "
        f"{c.threat.norm} {c.threat.eps:g} {c.threat.unit}; {c.citation}"
        + ("" if c.has_weights else "; its weights do not ship")
        for c in CASES.values()
    }


def _defenses() -> dict[str, str]:
    from unmask.cases import CASES

    return {c.defense: c.citation for c in CASES.values() if c.defense != "none"}


def _attacks() -> dict[str, str]:
    from unmask.evaluation.attack_registry import ATTACKS

    return {name: setting.description for name, setting in ATTACKS.items()}


def _datasets() -> dict[str, str]:
    from unmask.data import FORMS, describe, names

    own = {form.syntax: f"your own: {form.about}; for example --data {form.example}" for form in FORMS}
    return {name: describe(name) for name in names()} | own


def _models() -> dict[str, str]:
    """What may be given as a target."""
    return {f"case:{name}": about for name, about in _cases().items()} | {
        "path/to/file.py:factory": "your own: a function without arguments that returns an nn.Module",
        "package.module:factory": "the same, by import",
        "torchvision:NAME": "a torchvision classifier with its default weights",
        "timm:NAME": "a pretrained timm classifier; timm:hf-hub:ORG/NAME is one on the hub in timm's form",
        "hub:ORG/NAME": "an image classifier on the Hugging Face hub, in the form of transformers",
        "FILE.onnx": "a network in ONNX, run by torch; also onnx:FILE",
        "FILE.pt2": "a network that torch.export.save wrote; also pt2:FILE",
        "http://...": "a service that answers scores, asked by POST in JSON",
    }


TOPICS: dict[str, Callable[[], dict[str, str]]] = {
    "cases": _cases,
    "defenses": _defenses,
    "attacks": _attacks,
    "datasets": _datasets,
    "models": _models,
}
