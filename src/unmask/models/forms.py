"""Models whose input or output has another form than images (B, C, H, W) in [0, 1] and logits (B, K).

Each function gives a copy of the model that has the usual form, by hooks, so that the paths of its parts stay what they
are. Attacks, views and the judge then take it as any other model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unmask.state import State
from unmask.state.deep_copy import deep_copy
from unmask.types import InvalidModelOutput, Output, items_of

__all__ = [
    "ModelForm",
    "forgetting",
    "select_output",
    "takes",
    "two_classes",
    "under_default_dtype",
    "with_refusals",
    "with_script_parts",
]


@dataclass(frozen=True)
class ModelForm:
    """What a user says of the form of a model.

    Args:
        channels_last: it takes images (B, H, W, C).
        pixel_max: the value that it takes for white, such as 255.
        output: key or position of the logits in a mapping or tuple; None where it answers nothing else.
        reject_class: the class that means a refusal; -1 for none, None to find out.
    """

    channels_last: bool = False
    pixel_max: float = 1.0
    output: str | None = None
    reject_class: int | None = None


def takes(
    model: nn.Module, *, channels_last: bool = False, pixel_max: float = 1.0, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of a model that takes images of another form: ``channels_last`` (B, H, W, C), values from 0 to
    ``pixel_max``, of type ``dtype``. The copy takes float32 images (B, C, H, W) in [0, 1].

    >>> class Bytes(nn.Module):
    ...     def forward(self, x): return (x / 255).flatten(1)  # (B, H, W, C) from 0 to 255
    >>> takes(Bytes(), channels_last=True, pixel_max=255)(torch.tensor([[[[0.5]], [[1.0]]]]))
    tensor([[0.5000, 1.0000]])
    """
    twin = deep_copy(model)
    twin.register_forward_pre_hook(partial(_reformed, channels_last, pixel_max, dtype))
    return twin


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
    channels_last: bool, pixel_max: float, dtype: torch.dtype | None, _: nn.Module, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    x: Tensor = args[0]
    x = x if pixel_max == 1 else pixel_max * x
    x = x.permute(0, 2, 3, 1).contiguous() if channels_last else x
    return (x if dtype is None else x.to(dtype), *args[1:])


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
