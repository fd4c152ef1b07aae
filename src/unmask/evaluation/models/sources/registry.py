"""The sources of models that are named otherwise than by a factory: how each is named, and what loads from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unmask.errors import UnmaskError
from unmask.evaluation.models.sources.exported_files import load_exported
from unmask.evaluation.models.sources.hugging_face import load_hugging_face
from unmask.evaluation.models.sources.loading import Loaded, Request
from unmask.evaluation.models.sources.onnx_files import load_onnx
from unmask.evaluation.models.sources.robustbench_models import load_robustbench
from unmask.evaluation.models.sources.services import load_service
from unmask.evaluation.models.sources.timm_models import load_timm
from unmask.evaluation.models.sources.torchvision_models import load_torchvision
from unmask.models.forms import ModelForm

__all__ = ["SOURCES", "Source", "check_options", "source_of"]


@dataclass(frozen=True)
class Source:
    """One kind of model names.

    Args:
        load: the model of a request; UnmaskError, of one line, where there is none.
        usage: how a name looks.
        about: a line about it.
        suffix: of files that need no word before them.
        takes: the fields of :class:`ModelForm` that are for this source and not for all.
        whole: whether the word is a part of the name, as that of an address is.
    """

    load: Callable[[Request], Loaded]
    usage: str
    about: str
    suffix: str | None = None
    takes: tuple[str, ...] = ()
    whole: bool = False


_CHECKPOINT = ("checkpoint", "num_classes")
_SERVICE = Source(
    load_service,
    "http://...",
    "a service that answers scores to JSON, also https: see docs/models.md; --header, --rate-limit",
    takes=("headers", "rate_limit"),
    whole=True,
)

SOURCES: Mapping[str, Source] = {
    "torchvision": Source(
        load_torchvision,
        "torchvision:NAME",
        "a torchvision classifier with its default weights, or with --checkpoint FILE --num-classes K",
        takes=_CHECKPOINT,
    ),
    "timm": Source(
        load_timm,
        "timm:NAME",
        "a pretrained timm classifier, or with --checkpoint FILE --num-classes K; timm:hf-hub:ORG/NAME on the hub",
        takes=_CHECKPOINT,
    ),
    "hf": Source(
        load_hugging_face,
        "hf:ORG/NAME",
        "an image classifier on the Hugging Face hub or in a folder, in the form of transformers",
    ),
    "robustbench": Source(
        load_robustbench,
        "robustbench:NAME",
        "a model of RobustBench for cifar10 and Linf, or robustbench:DATASET/THREAT/NAME",
    ),
    "onnx": Source(load_onnx, "FILE.onnx", "a network in ONNX, run by torch if it can be; also onnx:FILE", ".onnx"),
    "pt2": Source(load_exported, "FILE.pt2", "a network that torch.export.save wrote; also pt2:FILE", ".pt2"),
    "http": _SERVICE,
    "https": _SERVICE,
}
"""By the word before the colon."""

_OPTIONS = {
    "checkpoint": "--checkpoint",
    "num_classes": "--num-classes",
    "headers": "--header",
    "rate_limit": "--rate-limit",
}
"""Of fields of :class:`ModelForm`, the option that sets them."""


def source_of(name: str) -> tuple[Source, str] | None:
    """The source of a name, and what it is asked for; None for the name of a case or a factory.

    >>> source, rest = source_of("timm:resnet18")
    >>> source.usage, rest
    ('timm:NAME', 'resnet18')
    """
    word, _, rest = name.partition(":")
    if rest and word in SOURCES:
        return SOURCES[word], name if SOURCES[word].whole else rest
    found = [source for source in SOURCES.values() if source.suffix is not None and Path(name).suffix == source.suffix]
    return (found[0], name) if found else None


def check_options(name: str, form: ModelForm) -> None:
    """UnmaskError for an option that is not for the model of this name, or lacks another."""
    found = source_of(name)
    for field, option in _OPTIONS.items():
        if getattr(form, field) and not (found and field in found[0].takes):
            fitting = dict.fromkeys(source.usage for source in SOURCES.values() if field in source.takes)
            raise UnmaskError(f"{option} is for {' and '.join(fitting)}, not for {name}: leave it out")
    if form.num_classes and not form.checkpoint:
        raise UnmaskError("--num-classes is for the weights of a file: give --checkpoint too, or leave it out")
