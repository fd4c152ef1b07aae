"""What one forward pass knows about gradients that its tensors cannot carry themselves.

Integer and boolean tensors have no autograd graph, so each that depends on the input gets a *soft value*:
a float tensor of the same shape that follows the same computation smoothly. Where such a tensor
becomes float again, and where an operation kills the gradient of a float, a *gate* joins the true
value to the graph of its surrogate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Order", "SoftValue", "SurrogateContext"]


class Order(NamedTuple):
    """What an index sorts, along the last dimension of ``scores``."""

    scores: Tensor  # (..., K)
    down: bool  # whether the largest comes first
    dim: int  # of the index, along which it runs


class SoftValue(NamedTuple):
    """A differentiable surrogate of an integer or boolean tensor."""

    value: Tensor  # the shape of the tensor that it replaces
    weights: Tensor | None = None  # (*shape, K) for an index into K places: the weight of each index
    bit: bool = False  # whether the tensor is 0 or 1
    partial: bool = False  # whether a label is there only where a condition holds, so that its weights sum to less
    order_of: Order | None = None  # for an index that sorts

    @property
    def long_order(self) -> bool:
        """Whether it sorts too many scores for the weights of each place; a part of it may have them."""
        return self.order_of is not None and self.weights is None


class _Gate(torch.autograd.Function):
    """The true value forward; backward into the surrogate, or into the true graph while the model itself asks."""

    generate_vmap_rule = True  # models may call their parts under torch.func.vmap

    @staticmethod
    def forward(true: Tensor, surrogate: Tensor, context: SurrogateContext) -> Tensor:
        return true.detach()  # shares memory with ``true``, as ``x.detach()`` must

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.context = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        # An optimisation inside the forward pass must see the true gradients, or its steps would change.
        return (gradient, None, None) if ctx.context.running else (None, gradient, None)


class SurrogateContext:
    """The surrogates of the tensors of one forward pass."""

    def __init__(self, width: float = 1.0) -> None:
        self.running = True
        self.width = width  # of the smooth steps that stand for comparisons
        self.moved = list[Tensor]()  # by gradients that the model takes, which may hang on themselves
        self._soft_values = WeakTensorKeyDictionary()
        self._float_labels = WeakTensorKeyDictionary()  # soft values of floats that were cast from labels
        self._were_read = WeakTensorKeyDictionary()  # what tensors were when they were read at computed places
        self._lent = dict[int, Tensor]()  # tensors whose memory other libraries look into, by its address

    def carries(self, value: Any) -> bool:
        """Whether an argument is a tensor that may depend on the input, by its own graph or by a surrogate."""
        if not isinstance(value, Tensor):
            return False
        return value.grad_fn is not None or value in self._soft_values

    def soft_value(self, value: Any) -> SoftValue | None:
        found: SoftValue | None = self._soft_values.get(value) if isinstance(value, Tensor) else None
        return found

    def label(self, value: Any) -> SoftValue | None:
        """The soft value of a label, also of one that is a float by now; None where no class weights are known."""
        found = self._float_labels.get(value) if isinstance(value, Tensor) else None
        found = self.soft_value(value) if found is None else found
        known = found is not None and found.weights is not None and found.weights.shape[:-1] == value.shape
        return found if known else None

    def relabel(self, value: Tensor, label: SoftValue | None) -> None:
        """From now on a float tensor has the class weights of this label, or none."""
        self._float_labels.pop(value, None)
        if label is not None and label.weights is not None:
            self._float_labels[value] = label

    def remember(self, value: Tensor, source: Tensor, index: Any) -> None:
        """``value`` was read at computed places of the source, where it may be written with a change."""
        self._were_read[value] = (source.data_ptr(), source.shape, _parts(index), self.real(value).clone())

    def was(self, value: Any, source: Tensor, index: Any) -> Tensor | None:
        """The surrogate of what was read of the source at this index, where ``value`` has been made of that."""
        found = self._were_read.get(value) if isinstance(value, Tensor) else None
        if found is None or found[:2] != (source.data_ptr(), source.shape):
            return None
        parts, others = found[2], _parts(index)
        same = len(parts) == len(others) and all(one is other for one, other in zip(parts, others, strict=True))
        read: Tensor = found[3]
        return read if same else None

    def close(self) -> None:
        """The forward pass is over: from now on gradients are taken from outside."""
        self.running = False
        for tensor in self.moved:
            tensor.grad = None
        self.moved.clear()
        self._lent.clear()
        self._soft_values.clear()
        self._float_labels.clear()
        self._were_read.clear()

    def follow(self, leaf: Tensor, value: Tensor) -> None:
        """From now on a leaf has the gradient of the value that is written into it."""
        self.forget(leaf)
        if value.grad_fn is not None:
            self._soft_values[leaf] = SoftValue(value)
            self.moved.append(leaf)

    def lend(self, value: Tensor) -> None:
        """From now on a tensor that is made of this one's memory has its gradient."""
        self._lent[value.data_ptr()] = value

    def recognize(self, given: Sequence[Tensor]) -> None:
        """Let those of the tensors that were made of lent memory follow the tensor that the memory was lent by."""
        for tensor in given if self._lent else ():
            known = None if self.carries(tensor) else self._lent.get(_address(tensor))
            if known is not None and known is not tensor and (known.shape, known.dtype) == (tensor.shape, tensor.dtype):
                self.follow(tensor, self.exact(known))

    def forget(self, value: Tensor) -> None:
        self._soft_values.pop(value, None)
        self._float_labels.pop(value, None)

    def soft(self, value: Any) -> Any:
        """The differentiable surrogate of a tensor; anything else as it is."""
        soft = self.soft_value(value)
        return soft.value if soft else value

    def real(self, value: Any) -> Any:
        """As :meth:`soft`, but a float for every tensor."""
        value = self.soft(value)
        if isinstance(value, Tensor) and not value.is_floating_point():
            return value.to(torch.get_default_dtype())
        return value

    def exact(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        """The float tensor with the true value and the gradient of its surrogate; anything else as it is."""
        soft = self.soft_value(value)
        return self.gate(value.to(dtype or soft.value.dtype), soft.value) if soft else value

    def leaf(self, value: Any) -> Any:
        """A leaf that the model itself moves, with the gradient of its moves; anything else as it is."""
        soft = self.soft_value(value)
        return self.gate(value, soft.value) if soft and value.is_floating_point() else value

    def gate(self, true: Tensor, surrogate: Tensor) -> Tensor:
        """The value of ``true``, to the bit and in the same memory, with the gradient of ``surrogate``."""
        surrogate = surrogate.to(true.device, true.dtype).expand(true.shape)
        if true.grad_fn is not None and true.grad_fn.name().endswith("NotImplemented"):
            true = true.detach()  # its gradient raises even where none arrives
        joined: Tensor = _Gate.apply(true, surrogate, self)  # type: ignore[no-untyped-call]
        return joined

    def join(self, true: Any, surrogate: Any) -> Any:
        """Attach a surrogate (Tensor, SoftValue, None, or a sequence of them) to what an operation gave."""
        if isinstance(true, tuple | list):
            pairs = [self.join(*pair) for pair in zip(true, surrogate, strict=True)] if surrogate else true
            return pairs if isinstance(true, list) else tuple(pairs) if type(true) is tuple else type(true)(pairs)
        soft = SoftValue(surrogate) if isinstance(surrogate, Tensor) else surrogate
        if not isinstance(true, Tensor) or not isinstance(soft, SoftValue) or not soft.value.requires_grad:
            return true
        if true.is_floating_point():
            gated = self.gate(true, soft.value)
            self.relabel(gated, soft)
            return gated
        self._soft_values[true] = soft._replace(value=soft.value.to(true.device).expand(true.shape))
        return true


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout == torch.strided and tensor.device.type != "meta" else -1
