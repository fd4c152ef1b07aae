"""Sees every torch operation of a forward pass and gives those that break gradients a surrogate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unmask.gradients.straight_through.calls import Call, each, tensors
from unmask.gradients.straight_through.context import SurrogateContext
from unmask.gradients.straight_through.floats import FLOAT_RULES
from unmask.gradients.straight_through.hooks import suspended
from unmask.gradients.straight_through.integers import INTEGER_RULES, same_op
from unmask.gradients.straight_through.label_arithmetic import LABEL_ARITHMETIC
from unmask.gradients.straight_through.labels import LABEL_RULES
from unmask.gradients.straight_through.places import PLACE_RULES
from unmask.gradients.straight_through.writes import Saved, Writer, out_of_place

__all__ = ["Surrogates"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

_RULES = FLOAT_RULES | INTEGER_RULES | PLACE_RULES | LABEL_RULES | LABEL_ARITHMETIC
_NO_SURROGATE = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError)


class Surrogates(TorchFunctionMode):
    """Active during one forward pass of ``model``; ``unroll`` follows the gradients that it takes itself, and smooth
    steps are ``width`` times as wide as operands spread.
    """

    def __init__(self, model: nn.Module, saved: Saved, *, unroll: bool = False, width: float = 1.0) -> None:
        super().__init__()
        self.context, self.unroll = SurrogateContext(width), unroll
        lasting = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self.writer = Writer(self.context, saved, lasting)
        self._no_grad = 0  # how many of the model's no_grad blocks are open; they are not obeyed

    def __torch_function__(self, func: Any, types: Any, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # a custom autograd function, which has its own gradient, or inference_mode
            return func(*args, **kwargs)
        name = _name(func)
        if name == "_set_grad_enabled":
            self._no_grad = max(0, self._no_grad + (-1 if args[0] else 1))
            return None
        given = tensors([args, kwargs])
        self.context.recognize(given)
        if any(map(self.context.carries, given)):
            return self._dependent(func, name, args, kwargs)
        if self._no_grad and any(t.requires_grad for t in given):
            with torch.no_grad():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _dependent(self, func: Any, name: str, args: Args, kwargs: Kwargs) -> Any:
        """An operation on something that may depend on the input."""
        if "input" in kwargs:
            args, kwargs = (kwargs["input"], *args), {k: v for k, v in kwargs.items() if k != "input"}
        if name in _SPECIAL:
            return _SPECIAL[name](self, func, args, kwargs)
        out = kwargs.get("out")
        if isinstance(out, Tensor):
            value = self._dependent(func, name, args, _without(kwargs, "out"))
            return self.writer.write(out if out.shape == value.shape else out.resize_(value.shape), value)
        separate = out_of_place(func, name, kwargs)
        if separate is not None:
            value = self.surrogate(separate, name.replace("__i", "__"), args, _without(kwargs, "inplace"))
            return self.writer.write(args[0], value)
        return self.surrogate(func, name, args, kwargs)

    def surrogate(self, func: Callable[..., Any], name: str, args: Args, kwargs: Kwargs) -> Any:
        """What ``func`` gives, joined to its surrogate where there is one."""
        if self.context.moved:
            args, kwargs = each(self.context.leaf, args), each(self.context.leaf, kwargs)
        true = func(*args, **kwargs)
        call, rule = Call(self.context, true, args, kwargs), _RULES.get(name.strip("_"))
        try:
            surrogate = rule(call) if rule else None
            return self.context.join(true, same_op(func, call) if surrogate is None else surrogate)
        except _NO_SURROGATE:  # the operation may not exist for floats; only its gradient is lost
            return true


def _name(func: Any) -> str:
    name: str = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):  # of a property such as Tensor.data
        return f"{name.strip('_')} {func.__self__.__name__}"
    return name


def _without(kwargs: Kwargs, key: str) -> Kwargs:
    return {k: v for k, v in kwargs.items() if k != key}


def _leave(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """numpy has no gradients; a tensor that is made of the same memory later has those of this one."""
    mode.context.lend(args[0])
    return func(args[0].detach(), *args[1:], **kwargs)


def _ask_gradient(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The model's own backward pass must leave the graph that ours still needs, and is a part of it if unrolled."""
    if not mode.unroll:
        return func(*args, **kwargs | {"retain_graph": True})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward")  # of a cycle, which the end of the pass breaks
        return func(*args, **kwargs | {"create_graph": True})


def _require_gradient(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The model takes this for a leaf, whose ``grad`` it can read; it cannot be told not to require gradients."""
    if args[1] if len(args) > 1 else kwargs.get("requires_grad", True):
        args[0].retain_grad()
        mode.context.moved.append(args[0])
    return args[0]


def _hook(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    return func(args[0], suspended(kwargs["hook"] if kwargs else args[1], mode.context))


def _set_data(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    mode.writer.follow(args[0], args[1])
    return func(args[0], args[1].detach())


def _overwrite(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    return mode.writer.overwrite(args[0], func, *args[1:], **kwargs)


def _get_item(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    result = mode.surrogate(func, func.__name__, args, kwargs)
    entries = args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(mode.context.soft_value(entry) and entry.dtype != torch.bool for entry in entries):
        mode.context.remember(result, args[0], args[1])  # ``x[i] += 1`` writes what it has read
    return result


def _set_item(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    target, index, value = args
    mask = isinstance(index, Tensor) and index.dtype == torch.bool and mode.context.soft_value(index) is not None
    if mask and index.shape == target.shape and (not isinstance(value, Tensor) or value.ndim == 0):
        return mode.writer.write(target, mode.surrogate(torch.masked_fill, "masked_fill", (target, index, value), {}))
    return mode.writer.set_item(target, index, value)


def _reshape_in_place(mode: Surrogates, func: Any, args: Args, kwargs: Kwargs) -> Any:
    soft = mode.context.soft_value(args[0])
    mode.context.relabel(args[0], None)
    result = func(*args, **kwargs)
    if soft:
        mode.context.join(result, getattr(Tensor, func.__name__[:-1])(soft.value, *args[1:], **kwargs))
    return result


_SPECIAL: dict[str, Callable[[Surrogates, Any, Args, Kwargs], Any]] = {
    **dict.fromkeys(("numpy", "__array__"), _leave),
    "__deepcopy__": lambda mode, func, args, kwargs: mode.surrogate(torch.clone, "clone", args[:1], {}),
    **dict.fromkeys(("backward", "grad"), _ask_gradient),
    **dict.fromkeys(("requires_grad_", "set requires_grad"), _require_gradient),
    "detach_": lambda mode, func, args, kwargs: args[0],
    "register_hook": _hook,
    "set data": _set_data,
    **dict.fromkeys(("get grad", "set grad"), lambda mode, func, args, kwargs: func(*args, **kwargs)),
    "copy_": lambda mode, func, args, kwargs: mode.writer.write(args[0], args[1]),
    "__getitem__": _get_item,
    "__setitem__": _set_item,
    **dict.fromkeys(("zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"), _overwrite),
    **dict.fromkeys(("squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_"), _reshape_in_place),
}
