"""Gradients of networks that torch has quantised: those of the float layers with the same weights.

Layers of torch's static and dynamic quantisation (``torch.ao.nn.quantized``) compute in 8-bit integers and have no
gradient. Their weights are numbers like others, so that a float network with these weights is almost the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.ao.nn import quantized
from torch.ao.nn.quantized import dynamic
from torch.overrides import TorchFunctionMode

from unmask.gradients.bpda import ModelView
from unmask.state.deep_copy import deep_copy

__all__ = ["dequantized", "is_quantized"]

_LIBRARY = "torch.ao.nn"


def is_quantized(model: nn.Module) -> bool:
    """Whether a part of the model is a layer of torch's quantisation that :func:`dequantized` knows.

    >>> is_quantized(nn.Sequential(nn.Linear(2, 2)))
    False
    """
    return any(_float_layer(part) is not None for part in model.modules())


def dequantized(model: nn.Module) -> nn.Module:
    """A view of the model with a float layer, of the same weights, in the place of each quantised one.

    Use when a network was quantised by ``torch.ao.quantization``. What it finds transfers to the model where rounding
    to 8 bits changes little. It cannot replace quantised recurrent layers and embeddings.

    Args:
        model: any module; it stays as it is.

    Returns:
        A module on (B, C, H, W) images whose outputs differ from the model's by rounding.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval()
    >>> import warnings; warnings.simplefilter("ignore")
    >>> q = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    >>> x = torch.rand(4, 1, 1, 2)
    >>> bool((dequantized(q)(x) - net(x)).abs().max() < 0.01)
    True
    """
    twin = deep_copy(model)
    for path, part in list(twin.named_modules()):
        layer = _float_layer(part)
        if layer is not None and path:
            parent, _, name = path.rpartition(".")
            setattr(twin.get_submodule(parent), name, layer.eval().requires_grad_(False))
    return ModelView(twin if (root := _float_layer(twin)) is None else root, _in_floats)


def _in_floats(model: nn.Module, x: Tensor) -> Any:
    with _WithoutQuantisers():
        return model(x)


class _WithoutQuantisers(TorchFunctionMode):
    """Calls that quantise or dequantise a tensor give it back as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("quantize_per_tensor", "quantize_per_channel", "dequantize"):
            return args[0]
        return func(*args, **(kwargs or {}))


def _float_layer(part: nn.Module) -> nn.Module | None:
    """The float layer that computes what a quantised one does but for rounding; None for all others."""
    if not type(part).__module__.startswith(_LIBRARY):
        return None
    for kinds, make in _FLOAT:
        if isinstance(part, kinds):
            layer, weighted = make(part), isinstance(part, _WEIGHTED)
            return nn.Sequential(layer, nn.ReLU()) if weighted and "ReLU" in type(part).__name__ else layer
    return None


def _linear(part: Any) -> nn.Module:
    return _with_weights(nn.Linear(part.in_features, part.out_features, bias=part.bias() is not None), part)


def _conv(part: Any) -> nn.Module:
    kind = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[part.weight().ndim]
    layer = kind(
        part.in_channels,
        part.out_channels,
        part.kernel_size,
        part.stride,
        part.padding,
        part.dilation,
        part.groups,
        bias=part.bias() is not None,
        padding_mode=part.padding_mode,
    )
    return _with_weights(layer, part)


def _norm(part: Any) -> nn.Module:
    layer = nn.BatchNorm2d(part.num_features, eps=part.eps)
    own = layer.state_dict()
    layer.load_state_dict({name: value for name, value in part.state_dict().items() if name in own}, strict=False)
    return layer


def _with_weights(layer: Any, part: Any) -> nn.Module:
    layer.weight.data = part.weight().dequantize().detach().clone()
    if part.bias() is not None:
        layer.bias.data = part.bias().detach().clone()
    return layer  # type: ignore[no-any-return]


_CONVOLUTIONS = (quantized.Conv1d, quantized.Conv2d, quantized.Conv3d)
_WEIGHTED = (quantized.Linear, quantized.BatchNorm2d, *_CONVOLUTIONS)
"""Layers that may be fused with a ReLU behind them: a class of their own, derived from these."""

_FLOAT: tuple[tuple[Any, Callable[[Any], nn.Module]], ...] = (
    ((quantized.Quantize, quantized.DeQuantize), lambda part: nn.Identity()),
    ((quantized.Linear, dynamic.Linear), _linear),
    (_CONVOLUTIONS, _conv),
    (quantized.BatchNorm2d, _norm),
    (quantized.QFunctional, lambda part: quantized.FloatFunctional()),
    (quantized.ReLU6, lambda part: nn.ReLU6()),
    (quantized.Hardswish, lambda part: nn.Hardswish()),
    (quantized.LeakyReLU, lambda part: nn.LeakyReLU(part.negative_slope)),
    (quantized.ELU, lambda part: nn.ELU(part.alpha)),
    (quantized.Sigmoid, lambda part: nn.Sigmoid()),
)
"""Quantised layers, those with a ReLU behind them too, and what makes the float one."""
