"""What a model does in one forward pass: each operation and each part, with what went in and what came out."""

from __future__ import annotations

import itertools
import linecache
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules._functions import BackwardHookFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from unmask.diagnosis.snapshots import TensorSnapshot, Token, edge_of, numbers, tensors, token_of
from unmask.gradients.functions import functions_called
from unmask.models.checkpointing import computed_once
from unmask.randomness import Keys, use_keys
from unmask.types import as_output

__all__ = ["Event", "outermost", "trace", "within"]

_INNER_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
_OF_THE_TENSOR = (Tensor.register_hook, Tensor.retain_grad)
_TO_PYTHON = ("item", "int", "float", "bool", "index", "tolist", "numpy", "array")
"""Operations that answer no tensor but numbers, on which later ones may depend."""
_PYTHON = sysconfig.get_path("stdlib")
_UNMASK = Path(__file__).parents[1]
_MODELS = tuple(str(_UNMASK / name) for name in ("defenses", "nets"))
_OUTSIDE = (str(Path(torch.__file__).parent), str(_UNMASK))
"""Code that calls operations for others: torch's and this library's, but for the models in it."""


class Place(NamedTuple):
    """Where the user's code makes a call: "file.py:41", the text of the line, the path of the file."""

    line: str
    code: str
    file: str


@dataclass(frozen=True)
class Event:
    """One call of an operation or of a part.

    ``part`` is the path of the innermost module that runs, for a module's own call the module itself;
    ``line`` is where the user's code makes the call, "file.py:41", and ``code`` the text of the line; both are empty
    where no user's code does, as in layers that an ``nn.Sequential`` calls. A gradient that the
    model itself takes is given the images too, last of all: it hangs on all that lies between them and the loss.
    An operation that makes numbers of a tensor, such as ``int(t)``, has no outputs.
    """

    name: str  # of the operation, such as "round"; of the module's class
    part: str
    line: str
    code: str
    module: bool
    inputs: tuple[TensorSnapshot, ...]
    outputs: tuple[TensorSnapshot, ...]
    custom: bool = False  # whether it is an autograd function of the user's own
    inner: bool = False  # whether it is a gradient that the model itself takes
    under: tuple[str, Place] | None = None  # part and place of a call in which gradients were disabled before
    file: str = ""  # path of the user's code that makes the call
    layer: str = ""  # class of the part
    numbers: tuple[float, ...] = ()  # that an operation is given beside tensors

    @property
    def place(self) -> str:
        """Line and code for a reader; the layer where no user's code makes the call."""
        return f"{self.line} {self.code}".strip() or f"layer {self.part or 'of the model'} ({self.layer or self.name})"


class _Running(NamedTuple):
    """A part that has been called and has not answered yet."""

    path: str
    layer: str  # its class
    given: tuple[TensorSnapshot, ...]
    place: Place
    gradients: bool  # whether they were enabled when it was called


@dataclass
class _Recorder(TorchFunctionMode):
    lasting: set[int]  # parameters, by id: they are the same in every pass
    images: Tensor
    ours: bool  # whether the model is one of this library's, whose code is then the user's
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._running: list[_Running] = []
        self._alive: list[Tensor] = []  # so that no token is given twice
        self._values: dict[Token, Tensor] = {}  # that each was last seen with: most are seen many times
        self._inside = 0  # custom autograd functions, which count as one operation
        self.modes = 0  # dispatch modes that are active when the model is called

    def __deepcopy__(self, memo: dict[int, Any]) -> _Recorder:
        """Itself: a part that the model copies while it runs takes its hooks with it."""
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func in _INNER_GRADIENTS:
            kwargs["retain_graph"] = True  # the graph is still needed here
        inner = torch._C._len_torch_dispatch_stack() < self.modes  # a dispatch mode calls it, below autograd
        if name in ("__get__", "__set__", "") or inner or not self._running or self._inside:
            return func(*args, **kwargs)
        return self.operation(name.strip("_"), func, args, kwargs)

    def operation(self, name: str, func: Any, args: Any, kwargs: Any, custom: bool = False) -> Any:
        with torch._C.DisableTorchFunction():
            given = self.hold([args, kwargs])
            if _keeps(func, args, kwargs):
                given += self.hold([t._base for t in args[:1] if isinstance(t, Tensor) and t._base is not None])
            elif torch.is_grad_enabled():
                args, kwargs = tree_map_only(Tensor, _gate, (args, kwargs), is_leaf=_is_size)
                given = tuple(map(_through, given, self.found([args, kwargs])))
            if func in _INNER_GRADIENTS:
                given += self.hold([self.images])
        value = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            made = self.hold([value if value is not None else args[:1]])  # None: it wrote into its first argument
        if made or func is Tensor.register_hook or name in _TO_PYTHON:
            path, layer = self._running[-1].path, self._running[-1].layer
            line, code, file = _place(ours=self.ours)
            inner, under = func in _INNER_GRADIENTS, self.under()
            plain = tuple(numbers([args, kwargs]))
            self.events.append(
                Event(name, path, line, code, False, given, made, custom, inner, under, file, layer, plain)
            )
        return value

    def custom(self, cls: type, apply: Any, args: Any) -> Any:
        """A custom autograd function is one operation, whatever it does inside."""
        if not self._running or self._inside:
            value = apply(*args)
        else:
            self._inside += 1
            try:
                value = self.operation(cls.__name__, apply, args, {}, custom=True)
            finally:
                self._inside -= 1
        return self.hooked(args, value) if cls is BackwardHookFunction else value

    def hooked(self, args: Any, value: Any) -> Any:
        """Hooks on a part's gradients are at the edges of what torch makes of its answer once it has answered."""
        with torch._C.DisableTorchFunction():
            pairs = zip(tensors(args), tensors(value), strict=True)
            edges = {token_of(before): edge_of(after) for before, after in pairs}
        for i in [i for i, event in enumerate(self.events) if event.module][-1:]:
            made = tuple(
                replace(snapshot, edge=edges.get(snapshot.token, snapshot.edge)) for snapshot in self.events[i].outputs
            )
            self.events[i] = replace(self.events[i], outputs=made)
        return value

    def under(self) -> tuple[str, Place] | None:
        """The outermost call that is made where a part has disabled gradients, as under ``no_grad``."""
        if not torch.is_grad_enabled():
            for outer, called in itertools.pairwise(self._running):
                if not called.gradients:
                    return outer.path, called.place
        return None

    def found(self, value: Any) -> list[Tensor]:
        return [tensor for tensor in tensors(value) if id(tensor) not in self.lasting]

    def hold(self, value: Any) -> tuple[TensorSnapshot, ...]:
        found = self.found(value)
        self._alive += found
        snapshot = tuple(TensorSnapshot.of(tensor, self._values.get(token_of(tensor))) for tensor in found)
        self._values.update((one.token, one.value) for one in snapshot)
        return snapshot

    def enter(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        with torch._C.DisableTorchFunction():
            given, place = self.hold([args, kwargs]), _place(ours=self.ours)
            running = _Running(path, type(module).__name__, given, place, torch.is_grad_enabled())
            self._running.append(running)

    def leave(self, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._running:
            with torch._C.DisableTorchFunction():
                path, name, given, place = self._running.pop()[:4]
                made = self.hold([output])
                if not path:  # of what the model itself answers, logits first
                    logits = as_output(output).logits
                    made = tuple(sorted(made, key=lambda snapshot: snapshot.token != token_of(logits)))
                line, code, file = place
                self.events.append(Event(name, path, line, code, True, given, made, file=file))


def trace(model: nn.Module, x: Tensor, keys: Keys | None = None) -> list[Event]:
    """The events of a forward pass on images (B, C, H, W), in the order in which they ended.

    ``x`` requires a gradient, no parameter of the model does, and the graph is kept. ``keys`` are what all
    randomness of the model is drawn by.
    """
    ours = type(model).__module__.partition(".")[0] == _UNMASK.name
    recorder = _Recorder(set(map(id, model.parameters())), x, ours)
    with (
        _listening(model, recorder),
        functions_called(recorder.custom),
        use_keys(keys, uses_torch_random=True),
        torch.enable_grad(),
        computed_once(),
        recorder,
    ):
        recorder.modes = torch._C._len_torch_dispatch_stack()
        model(x.clone())  # some models write into their input
    return recorder.events


def _is_size(value: object) -> bool:
    """Mapped, a size would become a tuple, which ``x.new`` takes for numbers."""
    return isinstance(value, torch.Size)


def within(part: str, of: str) -> bool:
    """Whether a path is that of a part or of something inside it.

    >>> within("net.0", "net"), within("network", "net"), within("net", "")
    (True, False, True)
    """
    return part == of or part.startswith(of + ".") or of == ""


def outermost(paths: Iterable[str]) -> list[str]:
    """Each path once, without those of parts inside others.

    >>> outermost(["net.0", "encode", "net", "network", "net.0"])
    ['encode', 'net', 'network']
    """
    known = list(dict.fromkeys(paths))
    return [path for path in known if not any(within(path, other) for other in known if other != path)]


@contextmanager
def _listening(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # which has none
                enter = partial(recorder.enter, path)
                before = module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
                hooks.enter_context(before)
                hooks.enter_context(module.register_forward_hook(recorder.leave, with_kwargs=True))
        yield


def _gate(tensor: Tensor) -> Tensor:
    """The same tensor, at a place in the graph where only one operation takes it from."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor


def _through(snapshot: TensorSnapshot, gate: Tensor) -> TensorSnapshot:
    return replace(snapshot, edge=edge_of(gate)) if gate.requires_grad else snapshot


def _keeps(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation needs its very arguments: it writes into them, or concerns gradients with respect to them.

    What is written into a view comes from the tensor that is looked into: there the graph goes on.
    """
    if func in _INNER_GRADIENTS or func in _OF_THE_TENSOR:
        return True
    name = getattr(func, "__name__", "")
    if name == "__setitem__" or (name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}")):  # such as __imul__
        return True
    return (name.endswith("_") and not name.endswith("__")) or _declared_in_place(func, args, kwargs)


def _declared_in_place(func: Any, args: Any, kwargs: Any) -> bool:
    """As ``relu(x, inplace=True)``, by name or by position."""
    code = getattr(func, "__code__", None)
    arguments = dict(zip(code.co_varnames[: code.co_argcount], args, strict=False)) if code else {}
    return "out" in kwargs or bool(kwargs.get("inplace", arguments.get("inplace", False)))


def _outside(file: str, *, ours: bool) -> bool:
    library = file.startswith(_OUTSIDE) and not (ours and file.startswith(_MODELS))
    return library or (file.startswith(_PYTHON) and "site-packages" not in file)


def _place(*, ours: bool) -> Place:
    """That of the nearest caller below the trace that is neither Python, torch nor this library; empty for none.

    ``ours`` says that the models of this library count as the user's code.
    """
    frame = sys._getframe(1)
    while frame is not None and _outside(frame.f_code.co_filename, ours=ours):
        if frame.f_code is trace.__code__ or frame.f_back is None:
            return Place("", "", "")
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    name = "graph" if file.startswith("<eval_with_key>") else Path(file).name  # of torch.fx, another for each copy
    return Place(f"{name}:{line}", linecache.getline(file, line).strip(), file)
