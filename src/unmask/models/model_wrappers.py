"""How a model is called: counted, keyed, at a fixed granularity, and in reduced precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unmask.models.checkpointing import recomputed
from unmask.models.graph_memory import count_graph
from unmask.models.own_training import differentiates_by_weights
from unmask.randomness import current, use_keys
from unmask.state.deep_copy import deep_copy
from unmask.types import Model, Output, as_output

__all__ = [
    "BATCH_MULTIPLE",
    "Passes",
    "batch_invariant",
    "bfloat16",
    "fold_batchnorm",
    "frozen_copy",
    "multiplies_bfloat16",
    "query",
]

BATCH_MULTIPLE = 16
"""Batches are filled up to a multiple of this many rows. Below it, matrix products take other code
paths, which round differently, so that an example's logits would depend on how many others it came with."""


@dataclass
class Passes:
    """Examples that went forward and backward through a model."""

    forwards: int = 0
    backwards: int = 0


def query(model: Model, x: Tensor) -> Output:
    """The output of ``model`` for images (B, C, H, W), computed on a copy of them, since some models write into their
    input. A single image is given twice, since some models drop a batch dimension of one. Gradients reach ``x``.

    Raises :class:`unmask.types.InvalidModelOutput` for an output that is no logits.

    >>> import torch
    >>> x = torch.zeros(1, 1, 1, 2)
    >>> query(lambda x: x.add_(1).flatten(1).squeeze(), x).logits, x.flatten()
    (tensor([[1., 1.]]), tensor([0., 0.]))
    """
    with recomputed():
        if len(x) > 1:
            return as_output(model(x.clone()), len(x))
        output = as_output(model(torch.cat((x, x))), 2)
    return Output(output.logits[:1], None if output.reject is None else output.reject[:1])


def batch_invariant(
    model: Model, *, passes: Passes | None = None, uses_torch_random: bool = False
) -> Callable[[Tensor], Output]:
    """Call ``model`` so that the output for an example does not depend on the rest of its batch.

    The model is given a copy of the images, since some models write into their input. Fills the batch up to a multiple
    of :data:`BATCH_MULTIPLE`. Inside :func:`unmask.randomness.use_keys`, each row has its own randomness;
    ``uses_torch_random`` extends that to torch's own random operations, for models that use them. Adds the passes to
    ``passes``.

    >>> import torch
    >>> seen = Passes()
    >>> batch_invariant(lambda x: x.flatten(1), passes=seen)(torch.rand(3, 1, 2, 2)).logits.shape
    torch.Size([3, 4])
    >>> seen.forwards
    3
    """

    def call(x: Tensor) -> Output:
        size, missing = len(x), -len(x) % BATCH_MULTIPLE
        keys = current()
        if missing:
            keys = keys and keys.extended(missing)
        x = torch.cat((x, x[-1:].detach().expand(missing, *x.shape[1:])))  # a new tensor, also where nothing is missing
        with use_keys(keys, uses_torch_random=uses_torch_random), recomputed():
            output = as_output(count_graph(lambda: model(x), len(x)), len(x))
        if missing:
            output = Output(output.logits[:size], None if output.reject is None else output.reject[:size])
        if passes is not None:
            passes.forwards += size
            if output.logits.requires_grad:
                output.logits.register_hook(lambda _: _add_backward(passes, size))
        return output

    return call


def _add_backward(passes: Passes, size: int) -> None:
    passes.backwards += size


def frozen_copy(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy of ``model`` that is only good for input gradients: its weights are frozen.

    Those of a model that differentiates by them while it answers are not, if images ``x`` (B, C, H, W) are given, on
    which that is tried: see :func:`unmask.models.own_training.differentiates_by_weights`.
    """
    with torch.no_grad():  # a copy of what torch.jit compiled is a computation
        twin = deep_copy(model)
    if x is not None and differentiates_by_weights(model, x):
        return twin
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A :func:`frozen_copy` of a model in evaluation mode, with each batch norm folded into the convolution before it.

    Same function but for rounding, a fifth less time for a small residual net's gradient. Only pairs that
    follow each other in a plain ``Sequential`` are folded, and only where nothing is hooked to them.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(layer).__name__ for layer in fold_batchnorm(net)]
    ['Conv2d', 'Identity', 'ReLU']
    """
    twin = frozen_copy(model)
    for chain in [module for module in twin.modules() if _plain_sequential(module)]:
        layers = list(chain.named_children())
        for (before, layer), (after, norm) in itertools.pairwise(layers):
            if _foldable(layer, nn.Conv2d) and _foldable(norm, nn.BatchNorm2d) and norm.running_var is not None:
                fused = fuse_conv_bn_eval(layer, norm)  # type: ignore[type-var, arg-type]
                if isinstance(layer, nn.Conv2d) and layer.weight.is_contiguous(memory_format=torch.channels_last):
                    fused = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                setattr(chain, before, fused)
                setattr(chain, after, nn.Identity().eval())
    return twin


def _plain_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _foldable(module: nn.Module, kind: type[nn.Module]) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module)
    return type(module) is kind and not (module.training or hooked or parametrize.is_parametrized(module))


def bfloat16(model: Model) -> Model:
    """Run ``model`` under bfloat16 autocast, channels-last. For gradients; never for a verdict.

    >>> import torch
    >>> bfloat16(torch.nn.Flatten())(torch.rand(8, 1, 2, 2)).logits.dtype
    torch.float32
    """

    def call(x: Tensor) -> Output:
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            output = as_output(model(x))
        return Output(output.logits.float(), None if output.reject is None else output.reject.float())

    return call


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16 matrix products: AMX tiles, or a GPU since Ampere.

    Elsewhere bfloat16 is converted back and forth and takes longer than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
