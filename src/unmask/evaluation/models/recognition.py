"""What form a model has: how it takes images and where its logits are, found by trying it on a few images.

What is certain is adapted and said; what is not raises one line with the option that settles it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.errors import UnmaskError, first_line
from unmask.evaluation.models.model_checks import failure
from unmask.evaluation.models.sources.loading import adapted
from unmask.kinds import FindingKind
from unmask.models.forms import (
    ModelForm,
    check_moments,
    from_arrays,
    in_form,
    in_tensors,
    select_output,
    takes,
    two_classes,
    with_refusals,
)
from unmask.models.model_wrappers import query
from unmask.records import Finding
from unmask.types import LOGITS, REJECT, InvalidModelOutput, as_output, items_of

__all__ = ["recognised"]


def recognised(model: nn.Module, x: Tensor, classes: int, form: ModelForm) -> tuple[nn.Module, list[Finding]]:
    """The model, or a copy that takes images (B, C, H, W) in [0, 1] and answers logits (B, K); what was adapted.

    Args:
        x: images (B, C, H, W) in [0, 1] to try it on, at least two.
        classes: of the data.
        form: what the user says of the model.

    Raises UnmaskError, of one line, where the model fails on the images or it is not clear what its logits are.
    """
    found: list[Finding] = []
    check_moments(form.mean, x.shape[1])
    model = in_form(model, form)
    try:
        answer = _try(model, x)
    except Exception as error:
        model, answer, note = _other_input(model, x, form, error)
        found.append(note)
    if isinstance(answer, np.ndarray):
        model = from_arrays(model)
        answer = _try(model, x)
        found.append(adapted("its answer is an array of numpy, which has no gradient", "answer a tensor"))
    if form.output is not None:
        model = select_output(model, form.output)
        answer = _try(model, x)
    else:
        key = _logits_of_several(answer, len(x), classes)
        if key is not None and (share := _refused(answer, len(x))) is not None:
            found.append(_refusals(share))
            model = with_refusals(model)
            answer = _try(model, x)
        elif key is not None:
            found.append(adapted(f"of {_shapes(answer)}, {key!r} is taken for the logits", f"--output {key}"))
            model = select_output(model, key)
            answer = _try(model, x)
    if isinstance(answer, Tensor) and not answer.is_floating_point():
        model = in_tensors(model)
        found.append(adapted("its logits are integers, which have no gradient", "answer floats"))
    reject = items_of(answer).get(REJECT)
    if reject is not None and not isinstance(reject, Tensor):
        model = in_tensors(model)
        found.append(adapted("its refusal is no tensor, and has no gradient", "answer a tensor"))
    logits = as_output(answer).logits
    if logits.ndim in (1, 2) and logits.numel() == len(x):
        probability = bool(((logits >= 0) & (logits <= 1)).all())
        model = two_classes(model, probability=probability)
        what = "one probability an image is taken for that of class 1" if probability else "one logit an image is taken"
        found.append(adapted(f"{what}{'' if probability else ' for class 1 against class 0'}", "answer two logits"))
    return model, found


@torch.no_grad()
def _try(model: nn.Module, x: Tensor) -> Any:
    with preserve_buffers(model):
        return model(x.clone())


def _other_input(model: nn.Module, x: Tensor, form: ModelForm, error: Exception) -> tuple[nn.Module, Any, Finding]:
    """The model behind a conversion of its input, where it fails on the images as they are."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if dtype != torch.float32:
        other, name = takes(model, dtype=dtype), str(dtype).removeprefix("torch.")
        with suppress(Exception):  # the first error says more
            return (
                other,
                _try(other, x),
                adapted(f"its weights are {name}: images are given as {name}", "model.float()"),
            )
    reason = first_line(error, type(error).__name__)
    if not form.channels_last and _answers(takes(model, channels_last=True), x):
        raise UnmaskError(
            "the model fails on images (B, C, H, W) and takes (B, H, W, C)", f"give --layout nhwc ({reason})"
        ) from error
    raise failure(x, error) from error


def _answers(model: nn.Module, x: Tensor) -> bool:
    try:
        with preserve_buffers(model):
            return query(model, x).logits.shape[1] > 1
    except Exception:
        return False


def _logits_of_several(answer: Any, rows: int, classes: int) -> str | int | None:
    """Key of the one tensor that has a column for each class; None where the answer is clear as it is.

    Raises :class:`InvalidModelOutput` where none has, or several have.
    """
    try:
        as_output(answer)
    except InvalidModelOutput:
        items = items_of(answer)
        fitting: list[str | int] = [
            key
            for key, value in items.items()
            if isinstance(value, Tensor) and value.is_floating_point() and tuple(value.shape) == (rows, classes)
        ]
        if len(fitting) != 1 or LOGITS in items:  # what is unclear is a number beside them
            raise
        return fitting[0]
    return None


def _refused(answer: Any, rows: int) -> float | None:
    """Of a pair of logits and a margin of refusal, the share of images that are refused; None of anything else."""
    if not (type(answer) in (tuple, list) and len(answer) == 2):
        return None
    logits, reject = answer
    pair = isinstance(logits, Tensor) and isinstance(reject, Tensor) and tuple(reject.shape) == (rows,)
    if not pair or not (reject.is_floating_point() or reject.dtype == torch.bool):
        return None
    return float((reject > 0).double().mean())


def _refusals(share: float) -> Finding:
    return Finding(
        kind=FindingKind.REFUSALS,
        module="",
        where="of the two outputs, the second is taken for a margin: above 0 the image is refused",
        evidence={"clean images refused": share},
        remedy="--output 0, if it is none; return unmask.Output(logits, reject), if it is",
    )


def _shapes(answer: Any) -> str:
    """As ``{'boxes': (8, 4), 'scores': (8, 10)}``."""
    return str({key: tuple(value.shape) for key, value in items_of(answer).items() if isinstance(value, Tensor)})
