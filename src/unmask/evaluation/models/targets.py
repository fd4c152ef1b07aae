"""What can be evaluated: a case by name, or a model that the user's own code builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.adapters import reject_class_as_detector
from unmask.cases import AttackSpec, ImageProbe, StrengthSweep, find_case
from unmask.data import Dataset
from unmask.diagnosis.behaviour.determinism import left_in_training
from unmask.diagnosis.behaviour.memory import counts_calls, remembers
from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.errors import UnmaskError, first_line
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.models.estimators import as_module
from unmask.evaluation.models.factories import find_factory
from unmask.evaluation.models.model_checks import DRAWS, check_model, for_gradients, is_random
from unmask.evaluation.models.process_settings import own_settings
from unmask.evaluation.models.recognition import recognised
from unmask.evaluation.models.sources.loading import Loaded, Request
from unmask.evaluation.models.sources.registry import SOURCES, Source, check_options, source_of
from unmask.kinds import FindingKind
from unmask.models.forms import ModelForm, forgetting, with_script_parts
from unmask.models.model_wrappers import query
from unmask.randomness import make_keys
from unmask.records import Finding
from unmask.state.deep_copy import deep_copy

__all__ = ["Target", "find_target", "prepare_target"]

_PICKLE = (
    "a file whose loading runs code that it holds: write a factory, def build(): return joblib.load(FILE), and give "
    "my_model.py:build"
)
_CHECKPOINT = "a file of weights: give timm:NAME --checkpoint FILE --num-classes K, or a factory that loads it"
_FILES = {
    ".joblib": _PICKLE,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".pt": _CHECKPOINT,
    ".pth": _CHECKPOINT,
    ".ckpt": _CHECKPOINT,
    ".safetensors": _CHECKPOINT,
}
"""Files that are no models by themselves, by their suffix: what they are and what to do."""

PROBED = 8
"""Images that a model is tried on before anything is computed."""


@dataclass(frozen=True)
class Target:
    """A model to evaluate, and how."""

    model: nn.Module
    attacks: Mapping[str, AttackSpec] = field(default_factory=dict)
    draws: int = 1  # per verdict
    uses_torch_random: bool = False  # whether randomness is drawn by torch's own functions
    image_probe: ImageProbe | None = None  # what a report shows of it
    strength_sweep: StrengthSweep | None = None  # what a report varies of it
    setup_findings: tuple[Finding, ...] = ()  # what was done to make it ready


def find_target(
    name: str,
    data: Dataset,
    config: ExecutionConfig = ExecutionConfig(),
) -> Target:
    """The model behind a name, on the device of ``config``.

    ``path/to/file.py:factory`` or ``package.module:factory``; ``case:NAME``; a name of
    :data:`unmask.evaluation.models.sources.registry.SOURCES`, such as ``timm:NAME`` or ``FILE.onnx``. A factory takes
    no argument and returns an ``nn.Module`` in evaluation mode: float32 images (B, C, H, W) in [0, 1] to logits; or an
    estimator of scikit-learn; or any other function, of arrays, as of :class:`unmask.BlackBoxModel`. The model is tried
    on a few images of ``data``. Raises UnmaskError for whatever does not fit.
    """
    form = config.form
    check_options(name, form)
    named = source_of(name)
    if named is not None:
        loaded = _loaded(*named, name, data, form)
        form = replace(form, mean=(), std=()) if loaded.normalised else form
        form = replace(form, output=None) if loaded.selected else form
        target = prepare_target(loaded.model, data, replace(config, form=form))
        return replace(target, setup_findings=(*loaded.notes, *target.setup_findings))
    kind, _, rest = name.rpartition(":")
    if kind == "case":
        case = find_case(rest)
        target = Target(
            case.load(config.weights).to(config.device),
            case.attacks,
            case.draws,
            image_probe=case.image_probe,
            strength_sweep=case.strength_sweep,
        )
        check_model(target.model, data.batch(0, PROBED)[0].to(config.device), data.labels, strict=config.strict)
        return target
    kind, rest = (name, "") if name.endswith(".py") else (kind, rest)
    if not kind:
        usual = dict.fromkeys(source.usage for source in SOURCES.values())
        raise UnmaskError(
            f"target {name!r} is {_FILES.get(Path(name).suffix, 'no name of a model')}; models: "
            f"path/to/file.py:factory, package.module:factory, case:NAME, {', '.join(usual)}"
        )
    with own_settings() as settings:
        model = _build(find_factory(kind, rest), name, data.classes)
        model, notes = settings.applied(model)
    target = prepare_target(model, data, config)
    return replace(target, setup_findings=(*notes, *target.setup_findings))


def prepare_target(model: nn.Module, data: Dataset, config: ExecutionConfig = ExecutionConfig()) -> Target:
    """A model that is no case, tried on the first images of ``data``, and whether it is random.

    Unless ``config.strict``, a model that was left in training mode is replaced by a copy in evaluation mode, and an
    answer that is one class more than the data name is taken for a refusal. A model whose answers depend on earlier
    ones is replaced by a copy that begins each call with the state in which the model was given.

    Raises UnmaskError as :func:`recognised` and :func:`check_model` do, and for a class of refusal that there is not.
    """
    device, strict, form = config.device, config.strict, config.form
    notes: list[Finding] = []
    classes = len(data.classes) if data.classes_known else 0  # which no output of a model has
    x = data.batch(0, PROBED)[0].to(device)
    x = x if len(x) > 1 else x.expand(2, -1, -1, -1)
    model = _on(getattr(model, "_orig_mod", model), device)  # torch.compile keeps there what it was given
    model, scripts = with_script_parts(model)
    notes += [_compiled(path) for path in scripts[:1]]
    if model.training and not strict:
        given, model = model, deep_copy(model).eval()
        model, adapted = recognised(model, x, classes, form)
        given, _ = recognised(given, x, classes, form)
        notes.append(left_in_training(given, model, x, make_keys(0, range(len(x)), "training mode")))
    else:
        model, adapted = recognised(model, x, classes, form)
    notes += adapted
    try:
        check_model(model, x, data.labels, strict=strict)
    except UnmaskError as error:
        raise UnmaskError("; ".join([str(error), *(one.where for one in adapted)])) from error
    model, changed = for_gradients(model, x)
    notes += [changed] if changed else []
    with torch.no_grad(), preserve_buffers(model):
        count = query(model, x).logits.shape[1]
    seen = data.labels.unique()
    if len(data) > 1 == len(seen) and count > 1:
        notes.append(_one_class(data, int(seen), max(count, classes)))
    refuse = form.reject_class
    if data.classes_found and count != classes + (refuse is not None and refuse >= 0):
        raise UnmaskError(
            f"the model has {count} classes, but {classes} occur in {data.name}, so that their numbers may not agree",
            "number the labels in a CSV file, or put train/ with a folder for each class beside test/; or name the "
            "class that means a refusal with --reject-class",
        )
    if refuse is None and not strict and count == classes + 1:
        refuse = count - 1
    if refuse is not None and refuse >= 0:
        if refuse >= count or int(data.labels.max()) >= count - 1:
            raise UnmaskError(
                f"class {refuse} cannot be a refusal: the model has {count} classes, the data use them all"
            )
        model = reject_class_as_detector(model, refuse)
        notes.append(_refusals(model, refuse, x))
    with in_one_line("the model", prefixed=False):
        random = is_random(model, x)
        memory = remembers(model, x, make_keys(0, range(len(x)), "memory"))
        if memory is None and not random:
            memory = counts_calls(model, x, make_keys(0, range(len(x)), "calls"))
    if memory is not None:
        model = forgetting(model)
        notes.append(memory)
    return Target(model, draws=DRAWS if random else 1, uses_torch_random=random, setup_findings=tuple(notes))


def _on(model: nn.Module, device: str) -> nn.Module:
    """The model on a device; one that is spread over several stays as it is."""
    spread = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return model if len(spread) > 1 else model.to(device)


def _compiled(path: str) -> Finding:
    return Finding(
        kind=FindingKind.COMPILED,
        module=path,
        where="TorchScript: the probe sees only its input and output, not its operations",
        evidence={},
        remedy="give the module that was passed to torch.jit",
    )


def _one_class(data: Dataset, label: int, classes: int) -> Finding:
    return Finding(
        kind=FindingKind.ONE_CLASS,
        module="",
        where=f"all {len(data)} images are of class {data.classes[label]}, of {classes} classes",
        evidence={},
        remedy="give images of every class, in a random order, as a DataLoader with shuffle=True does",
    )


def _refusals(model: nn.Module, refuse: int, x: Tensor) -> Finding:
    with torch.no_grad(), preserve_buffers(model):
        reject = query(model, x).reject
    assert reject is not None
    return Finding(
        kind=FindingKind.REFUSALS,
        module="",
        where=f"class {refuse}, which is no label, is counted as a refusal",
        evidence={"clean images refused": float((reject > 0).double().mean())},
        remedy="--reject-class -1, if it is not",
    )


def _loaded(source: Source, rest: str, name: str, data: Dataset, form: ModelForm) -> Loaded:
    try:
        return source.load(Request(rest, data.batch(0, PROBED)[0], len(data.classes), form))
    except UnmaskError as error:
        raise UnmaskError(f"{name}: {error.problem}", error.remedy) from error
    except (Exception, SystemExit) as error:
        raise UnmaskError(f"{name} fails: {type(error).__name__}: {first_line(error)}") from error


def _build(factory: Callable[[], Any], name: str, classes: tuple[str, ...]) -> nn.Module:
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        raise UnmaskError(f"{name} fails: {type(error).__name__}: {error}") from error
    module = as_module(model, classes)
    if module is None:
        raise UnmaskError(f"{name} returns {type(model).__name__}", "return an nn.Module")
    return module
