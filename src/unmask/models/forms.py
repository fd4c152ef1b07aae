"""Models whose input or output has another form than images (B, C, H, W) in [0, 1] and logits (B, K).

Each function gives a copy of the model that has the usual form, by hooks, so that the paths of its parts stay what they
are. Attacks, views and the judge then take it as any other model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.state import State
from unmask.state.deep_copy import deep_copy
from unmask.types import InvalidModelOutput, Output, as_output, items_of

__all__ = [
    "ModelForm",
    "check_moments",
    "forgetting",
    "from_arrays",
    "in_form",
    "in_tensors",
    "select_output",
    "takes",
    "two_classes",
    "under_default_dtype",
    "with_refusals",
    "with_script_parts",
    "without_gradients",
]


@dataclass(frozen=True)
class ModelForm:
    """What a user says of a model: how it takes images and gives logits, and how it is obtained.

    Args:
        channels_last: it takes images (B, H, W, C).
        pixel_max: the value that it takes for white, such as 255.
        output: key or position of the logits in a mapping or tuple; None where it answers nothing else.
        reject_class: the class that means a refusal; -1 for none, None to find out.
        mean: of each channel, which is subtracted from the images first, in the units of ``pixel_max``; empty for none.
        std: of each channel, by which they are then divided.
        checkpoint: file of its weights, if it is an architecture of a library.
        num_classes: of its weights in this file; None for as many as the data have.
        headers: of each request to a service, as ``NAME: VALUE``; they may be secrets, so no run stores them.
        rate_limit: requests to a service in a second, at most.

    Raises UnmaskError for ``mean`` and ``std`` of different lengths, and for a ``pixel_max`` or ``std`` that is not
    positive.
    """

    channels_last: bool = False
    pixel_max: float = 1.0
    output: str | None = None
    reject_class: int | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    checkpoint: str | None = None
    num_classes: int | None = None
    headers: tuple[str, ...] = field(default=(), repr=False)
    rate_limit: float | None = None

    def __post_init__(self) -> None:
        white = self.pixel_max
        if isinstance(white, bool) or not isinstance(white, int | float) or not 0 < white < math.inf:
            raise UnmaskError(
                f"pixel_max is {white!r:.40}", "give the value that the model takes for white, such as 255"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
                raise UnmaskError(f"{name} is {values!r:.40}", "give a list of numbers, one for each channel")
        if len(self.mean) != len(self.std):
            lengths = f"mean has {len(self.mean)} values and std has {len(self.std)}"
            raise UnmaskError(f"{lengths}: give both, with a value for each channel")
        if not all(math.isfinite(value) for value in self.mean):
            raise UnmaskError("mean takes numbers, such as 0.485, 0.456, 0.406")
        if not all(0 < value < math.inf for value in self.std):
            raise UnmaskError("std takes positive numbers, such as 0.229, 0.224, 0.225")

    def stored(self) -> dict[str, Any]:
        """The fields that a run stores, as plain data: all but the headers."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "headers"}
        return own | {"mean": list(self.mean), "std": list(self.std)}


def check_moments(mean: Sequence[float], channels: int) -> None:
    """UnmaskError unless a ``mean`` (and ``std``) is empty or has a value for each channel."""
    if mean and len(mean) != channels:
        values = f"{len(mean)} value{'s' if len(mean) > 1 else ''}"
        raise UnmaskError(f"mean has {values}, but the images have {channels} channels: give one value for each")


def takes(
    model: nn.Module,
    *,
    channels_last: bool = False,
    pixel_max: float = 1.0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A copy of a model that takes images of another form: ``channels_last`` (B, H, W, C), values from 0 to
    ``pixel_max``, less the ``mean`` of their channel, over its ``std``, of type ``dtype``. The copy takes float32
    images (B, C, H, W) in [0, 1].

    Raises UnmaskError, when the copy is called, for images of another number of channels than ``mean`` has.

    >>> class Bytes(nn.Module):
    ...     def forward(self, x): return (x / 255).flatten(1)  # (B, H, W, C) from 0 to 255
    >>> takes(Bytes(), channels_last=True, pixel_max=255)(torch.tensor([[[[0.5]], [[1.0]]]]))
    tensor([[0.5000, 1.0000]])
    >>> takes(nn.Flatten(), mean=[0.5], std=[0.25])(torch.tensor([[[[0.25, 1.0]]]]))
    tensor([[-1.,  2.]])
    """
    twin = deep_copy(model)
    twin.register_forward_pre_hook(partial(_reformed, channels_last, pixel_max, mean, std, dtype))
    return twin


def in_form(model: nn.Module, form: ModelForm) -> nn.Module:
    """The model, or a copy that takes images (B, C, H, W) in [0, 1] where the model takes what ``form`` says."""
    if not (form.channels_last or form.pixel_max != 1 or form.mean):
        return model
    return takes(model, channels_last=form.channels_last, pixel_max=form.pixel_max, mean=form.mean, std=form.std)


def select_output(model: nn.Module, key: str | int) -> nn.Module:
    """A copy of a model that answers one tensor of several: by its key in a mapping, or its position in a tuple.

    Raises :class:`unmask.types.InvalidModelOutput`, when the copy is called, for a key that the answer does not have.

    >>> class Two(nn.Module):
    ...     def forward(self, x): return {"boxes": x, "scores": x.flatten(1)}
    >>> select_output(Two(), "scores")(torch.ones(1, 1, 1, 2))
    tensor([[1., 1.]])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(partial(_selected, key))
    return twin


def from_arrays(model: nn.Module) -> nn.Module:
    """A copy of a model that answers arrays of numpy, with tensors instead.

    >>> class ByNumpy(nn.Module):
    ...     def forward(self, x): return x.detach().numpy() + 1
    >>> from_arrays(ByNumpy())(torch.zeros(1, 1))
    tensor([[1.]])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(_as_tensor)
    return twin


def in_tensors(model: nn.Module) -> nn.Module:
    """A copy that answers tensors of floats, of a model that answers integers or a refusal that is none of torch's.

    >>> class Votes(nn.Module):
    ...     def forward(self, x): return (x.flatten(1) > 0.5).long()
    >>> in_tensors(Votes())(torch.ones(1, 1, 1, 2)).logits
    tensor([[1., 1.]])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(_floats)
    return twin


def with_refusals(model: nn.Module) -> nn.Module:
    """A copy of a model that answers a tuple of logits and a margin of refusal, above 0 where it refuses an image.

    >>> class Pair(nn.Module):
    ...     def forward(self, x): return x.flatten(1), x.flatten(1)[:, 0]
    >>> with_refusals(Pair())(torch.ones(1, 1, 1, 2)).reject
    tensor([1.])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(_refusing)
    return twin


def two_classes(model: nn.Module, *, probability: bool = False) -> nn.Module:
    """A copy of a binary model with one logit z an image, (B,) or (B, 1), that answers two: 0 and z.

    With ``probability`` the model answers the probability p of class 1 instead, and the copy 1 - p and p.

    >>> class Bright(nn.Module):
    ...     def forward(self, x): return 10 * (x.flatten(1).mean(1) - 0.5)
    >>> two_classes(Bright())(torch.tensor([[[[0.25]]], [[[0.75]]]])).argmax(1)
    tensor([0, 1])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(partial(_two_logits, probability))
    return twin


def under_default_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a model that computes under another default type of torch; that of the process stays what it is.

    >>> class Ones(nn.Module):
    ...     def forward(self, x): return torch.ones(len(x), 2)
    >>> under_default_dtype(Ones(), torch.float64)(torch.zeros(1)).dtype, torch.get_default_dtype()
    (torch.float64, torch.float32)
    """
    twin = deep_copy(model)
    vars(twin)["forward"] = partial(_under_default_dtype, twin.forward, dtype)
    return twin


def without_gradients(model: nn.Module) -> nn.Module:
    """A copy of a model that computes without gradients, for code that fails on images that require them.

    Views that replace gradients still see each of its operations.

    >>> class ByNumpy(nn.Module):
    ...     def forward(self, x): return torch.from_numpy(x.numpy() + 1)
    >>> without_gradients(ByNumpy())(torch.zeros(1, requires_grad=True))
    tensor([1.])
    """
    twin = deep_copy(model)
    vars(twin)["forward"] = partial(_without_gradients, twin.forward)
    return twin


def forgetting(model: nn.Module) -> nn.Module:
    """A copy of a model that begins each call with the state that the model is in now: see :class:`State`.

    >>> class Counts(nn.Module):
    ...     calls = 0
    ...     def forward(self, x): self.calls += 1; return torch.full((len(x), 2), float(self.calls))
    >>> model = forgetting(Counts()); model(torch.zeros(1)), model(torch.zeros(1))
    (tensor([[1., 1.]]), tensor([[1., 1.]]))
    """
    twin = deep_copy(model)
    twin.register_forward_pre_hook(partial(_restored, State(twin)))
    return twin


def with_script_parts(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The model, TorchScript parts of it (or all of it) each within a plain module, on which hooks can be registered.

    The second result holds the paths of these parts, "" for the whole model; the first is a copy where there are any.

    >>> whole, paths = with_script_parts(nn.Sequential(torch.jit.script(nn.Flatten())))
    >>> type(whole[0]).__name__, paths
    ('Script', ['0'])
    """
    if isinstance(model, torch.jit.ScriptModule):
        return Script(model), [""]
    parts = [path for path, part in model.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    outer = [path for path in parts if path.rpartition(".")[0] not in parts]
    if not outer:
        return model, []
    with torch.no_grad():  # a copy of what torch.jit compiled is a computation
        twin = deep_copy(model)
    for path in outer:
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, Script(twin.get_submodule(path)))
    return twin, outer


class Script(nn.Module):
    """A TorchScript module within a plain one, whose other attributes are those of the former."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script
        self.train(script.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.script(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "script" not in self._modules:
                raise
            return getattr(self._modules["script"], name)


# Hooks are partial functions, whose settings deepcopy copies; what closures hold on to it leaves as it is.


def _reformed(
    channels_last: bool,
    pixel_max: float,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype | None,
    _: nn.Module,
    args: tuple[Any, ...],
) -> tuple[Any, ...]:
    x: Tensor = args[0]
    x = x if pixel_max == 1 else pixel_max * x
    if mean:
        check_moments(mean, x.shape[1])
        centre, spread = (torch.tensor(moment, device=x.device).view(-1, 1, 1) for moment in (mean, std))
        x = (x - centre) / spread
    x = x.permute(0, 2, 3, 1).contiguous() if channels_last else x
    return (x if dtype is None else x.to(dtype), *args[1:])


def _without_gradients(forward: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return forward(x.detach(), *args, **kwargs)


def _restored(state: State, _: nn.Module, __: tuple[Any, ...]) -> None:
    state.restore()


def _selected(key: str | int, _: nn.Module, __: tuple[Any, ...], answer: Any) -> Any:
    parts = {str(name): part for name, part in items_of(answer).items()}
    if isinstance(answer, tuple | list):
        parts |= {str(place): part for place, part in enumerate(answer)}  # also of a tuple whose parts have names
    if str(key) in parts:
        return parts[str(key)]
    if isinstance(key, str) and key.isidentifier() and hasattr(answer, key):
        return getattr(answer, key)
    known = ", ".join(parts) or "one tensor alone"
    raise InvalidModelOutput(f"the model's answer has no {key!r}, but {known}", "choose the logits of these")


def _as_tensor(_: nn.Module, args: tuple[Any, ...], answer: Any) -> Tensor:
    device = args[0].device if args and isinstance(args[0], Tensor) else None
    return torch.as_tensor(np.array(answer), device=device)


def _floats(_: nn.Module, __: tuple[Any, ...], answer: Any) -> Output:
    return as_output(answer)


def _refusing(_: nn.Module, __: tuple[Any, ...], answer: Any) -> Output:
    logits, reject = answer
    return Output(logits, reject)


def _two_logits(probability: bool, _: nn.Module, __: tuple[Any, ...], answer: Any) -> Tensor:
    z: Tensor = answer.logits if isinstance(answer, Output) else answer
    z = z.flatten().float() if z.dtype == torch.bool else z.flatten()
    return torch.stack((1 - z if probability else torch.zeros_like(z), z), 1)


def _under_default_dtype(forward: Callable[..., Any], dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return forward(*args, **kwargs)
    finally:
        torch.set_default_dtype(before)
