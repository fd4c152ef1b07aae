"""What a model answers to a few images, before anything is computed: whether it can be judged, and whether it draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.determinism import parts_in_training
from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.errors import UnmaskError, first_line
from unmask.evaluation.models.sources.loading import adapted
from unmask.inputs import as_images, as_labels
from unmask.models.forms import without_gradients
from unmask.models.graph_memory import out_of_memory
from unmask.models.model_wrappers import batch_invariant, query
from unmask.randomness import draws_numbers, make_keys, use_keys
from unmask.records import Finding
from unmask.state.snapshot import GENERATORS
from unmask.types import InvalidModelOutput

__all__ = ["DRAWS", "check_model", "failure", "for_gradients", "is_random"]

DRAWS = 16
"""Draws per verdict of a random model that is no case."""

_BLENDS = 8
"""Equal steps from an image to another, at which a model that draws numbers is asked."""

_FEW = 4
"""Draws at each of them."""


def check_model(model: nn.Module, x: Tensor, labels: Tensor, *, strict: bool = True) -> None:
    """Run a model on a few images; UnmaskError with one line if no accuracy would be reliable.

    Looks for: images and ``labels`` (N,) that :mod:`unmask.inputs` refuses, a failing forward pass, logits of a wrong
    shape, NaN or Inf, labels that the model has no class for; and, only if ``strict`` (an audit adapts to them), for
    training mode that changes outputs, and probabilities instead of logits. Log-probabilities count as logits.

    >>> check_model(nn.Flatten().eval(), torch.rand(4, 1, 2, 2), torch.tensor([0, 4]))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: labels go from 0 to 4, but the model has 4 classes: check that the data set \
is the model's
    """
    x = as_images(x)
    with torch.no_grad(), preserve_buffers(model):
        try:
            logits = query(model, x).logits
        except InvalidModelOutput:
            raise
        except Exception as error:
            raise failure(x, error) from error
        keys = make_keys(0, range(len(x)), "training mode")
        training = ["all of it"] if model.training else parts_in_training(model, x, keys)
        if strict and training:
            raise UnmaskError(f"the model is in training mode ({training[0]})", "call model.eval() in the factory")
    if not logits.isfinite().all():
        kind = "NaN" if logits.isnan().any() else "Inf"
        raise UnmaskError(f"the model gives {kind} logits on clean images", "return finite logits before any softmax")
    as_labels(labels, logits.shape[1])
    if not strict:
        return
    total = logits.double().sum(1)
    if logits.min() >= 0 and logits.max() <= 1 and (total - 1).abs().max() < 1e-4:
        raise UnmaskError("the model returns probabilities", "return the logits before the softmax")


def failure(x: Tensor, error: Exception) -> UnmaskError:
    """The message for a model that raises ``error`` on images ``x``."""
    first = first_line(error, type(error).__name__)
    shape = tuple(x.shape)
    return UnmaskError(f"the model fails on images of shape {shape}: {first}; check that the data set is the model's")


def for_gradients(model: nn.Module, x: Tensor) -> tuple[nn.Module, Finding | None]:
    """The model, and what was done to it if its code fails on images that require gradients, such as ``x.numpy()``.

    >>> class ByNumpy(nn.Module):
    ...     def forward(self, x): return torch.from_numpy(x.numpy()).flatten(1)
    >>> _, found = for_gradients(ByNumpy().eval(), torch.rand(2, 1, 1, 2))
    >>> found.where
    "the model's code fails on images that require gradients: RuntimeError: Can't call numpy() on Tensor that requires \
grad. Use tensor.detach().numpy() instead."
    """
    with torch.enable_grad(), preserve_buffers(model):
        try:
            query(model, x.detach().requires_grad_())
        except Exception as error:  # of the author's code
            if out_of_memory(error):  # attacks take a gradient of fewer images at once
                return model, None
            why = f"{type(error).__name__}: {first_line(error, '')}"
        else:
            return model, None
    twin = without_gradients(model)
    where = f"the model's code fails on images that require gradients: {why}"
    return twin, adapted(where, "it is called without gradients; views replace the gradient that is missing")


def is_random(model: nn.Module, x: Tensor) -> bool:
    """Whether the model's logits or refusals of the same images differ between draws of its randomness.

    A vote over noisy copies may be unanimous at all clean images. So a model that draws numbers is also asked about
    blends of two images, where its answer goes over from one class to another. A state that changes from call to call
    counts too: noise may be made of a counter.

    >>> is_random(nn.Flatten(), torch.ones(2, 1, 1, 3)), is_random(nn.Dropout().train(), torch.ones(2, 3))
    (False, True)
    """

    def answer(x: Tensor, draw: int) -> Tensor:
        with use_keys(make_keys(draw, range(len(x)), "is it random")):
            output = batch_invariant(model, uses_torch_random=True)(x)
        refusal = [] if output.reject is None else [output.reject[:, None].to(output.logits.dtype)]
        return torch.cat([output.logits, *refusal], 1)

    def differs(x: Tensor, draws: int) -> bool:
        first = answer(x, 0)
        return any(not torch.equal(first, answer(x, draw)) for draw in range(1, draws))

    with torch.no_grad(), preserve_buffers(model):
        if differs(x, DRAWS):  # a coin for all may come up heads again and again
            return True
        keys = make_keys(0, range(len(x)), "draws")
        if not _has_generators(model) and not draws_numbers(lambda: query(model, x), keys):
            return False
        return any(differs(x.lerp(x.roll(1, 0), part / _BLENDS), _FEW) for part in range(1, _BLENDS))


def _has_generators(model: nn.Module) -> bool:
    """Whether a part holds a generator of random numbers, which it may draw from."""
    return any(isinstance(value, GENERATORS) for part in model.modules() for value in vars(part).values())
