"""Networks in ONNX: translated to torch, or else run by ONNX Runtime, which has no gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unmask.errors import UnmaskError, first_line
from unmask.evaluation.models.sources.fitted import Batches
from unmask.evaluation.models.sources.loading import Loaded, Request, adapted, existing_file, library
from unmask.models.black_box_models import BlackBoxModel
from unmask.models.forms import in_form
from unmask.records import Finding

__all__ = ["load_onnx"]

_ALIKE = 1e-3
"""How far the logits of the translation may be from those of ONNX Runtime, as a share of the largest."""

_RANDOM = 4
"""Images of uniform noise on which both are compared, besides images of the data."""

_LEAST = 1e-30
"""What a probability of 0 counts as."""


def load_onnx(request: Request) -> Loaded:
    """The network of a file: constants are folded (onnxslim), then each operation becomes one of torch (onnx2pytorch).

    A softmax at the end is left out, since logits are wanted. The translation is compared with ONNX Runtime, which runs
    the file as it is, on images of the data and on noise. If an operation has no translation, or the answers differ,
    ONNX Runtime is the model: it answers scores, so that it can only be attacked by them, and a note says so and why.

    Raises UnmaskError for a file that is no ONNX, or whose output must be chosen, and for libraries that are absent.
    """
    onnx, runtime, onnxslim, onnx2pytorch = (
        library(name, name, "unmask[onnx]") for name in ("onnx", "onnxruntime", "onnxslim", "onnx2pytorch")
    )
    path = existing_file(request.name)
    try:
        model = onnx.load(path)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of its own kind
        raise UnmaskError(f"it is no network that ONNX Runtime can run: {first_line(error)}") from error
    output = _output(model.graph, request.form.output)
    softmax = _without_softmax(model.graph, output)
    batch = _fixed_batch(model.graph)
    answers = BlackBoxModel(_Runtime(session, output, batch, log=softmax))
    notes = [adapted("the softmax at its end is left out, since logits are wanted", "export it without")] * softmax
    try:
        net = _translated(model, onnxslim.slim, onnx2pytorch.ConvertModel)
    except Exception as error:  # the libraries raise what comes
        return Loaded(answers, _scores_only(_reason(error)), selected=True)
    for one in (net.eval(), *([Batches(net, batch).eval()] if batch else [])):  # most nets take any number all the same
        if not (differs := _difference(one, answers, request, softmax)):
            return Loaded(one, notes, selected=True)
    return Loaded(answers, _scores_only(differs), selected=True)


class _Runtime:
    """An ONNX Runtime session as a function of arrays."""

    def __init__(self, session: Any, output: str, batch: int, *, log: bool) -> None:
        self.session, self.output, self.batch, self.log = session, output, batch, log
        self.input = session.get_inputs()[0].name

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        size = self.batch or len(images)
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, 0)])
        parts = [padded[start : start + size] for start in range(0, len(padded), size)]
        found = np.concatenate([self.session.run([self.output], {self.input: part})[0] for part in parts])
        scores: NDArray[np.float32] = found[: len(images)]
        return np.log(np.maximum(scores, _LEAST)) if self.log else scores


def _output(graph: Any, wanted: str | None) -> str:
    """Name of the output that holds the logits; the others are taken out of the graph."""
    names = [one.name for one in graph.output]
    known = {str(place): name for place, name in enumerate(names)} | {name: name for name in names}
    if wanted is None and len(names) > 1:
        raise UnmaskError(f"it has the outputs {', '.join(names)}: name the logits with --output {names[0]}")
    if wanted is not None and wanted not in known:
        raise UnmaskError(f"it has no output {wanted!r}, but {', '.join(names)}: choose the logits of these")
    name: str = names[0] if wanted is None else known[wanted]
    for one in [one for one in graph.output if one.name != name]:
        graph.output.remove(one)
    return name


def _without_softmax(graph: Any, output: str) -> bool:
    """Whether the graph ends with a softmax; it then ends before it."""
    made_by = {name: node for node in graph.node for name in node.output}
    last = made_by.get(output)
    while last is not None and last.op_type == "Identity":
        last = made_by.get(last.input[0])
    if last is None or last.op_type != "Softmax":
        return False
    graph.output[0].name = last.input[0]
    return True


def _fixed_batch(graph: Any) -> int:
    """Images at a time that the network takes; 0 for any number."""
    weights = {tensor.name for tensor in graph.initializer}
    image = next(one for one in graph.input if one.name not in weights)
    size: int = image.type.tensor_type.shape.dim[0].dim_value
    return max(size, 0)  # PaddlePaddle writes -1 for any


def _translated(model: Any, slim: Callable[[Any], Any], convert: Callable[[Any], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own affairs
        folded = slim(model)
        for node in folded.graph.node:
            for attribute in [one for one in node.attribute if one.name == "training_mode" and not one.i]:
                node.attribute.remove(attribute)  # the default, which the converter does not know
        return convert(folded)


def _difference(net: nn.Module, answers: BlackBoxModel, request: Request, softmax: bool) -> str:
    """Why the translation is not the network; empty if it is, or if neither takes the images, which is said later."""
    noise = torch.rand(_RANDOM, *request.images.shape[1:], generator=torch.Generator().manual_seed(0))
    x = torch.cat([request.images.cpu(), noise])
    form = request.form
    try:
        wanted = in_form(answers, form)(x).logits
    except Exception:
        return ""
    try:
        with torch.no_grad():
            found = in_form(net, form)(x)
    except Exception as error:
        return _reason(error)
    found, wanted = (found.softmax(1), wanted.exp()) if softmax else (found, wanted)
    apart = float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")
    if apart <= _ALIKE * max(1.0, float(wanted.abs().max())):
        return ""
    return f"its translation to torch differs from ONNX Runtime by {apart:.2g}"


def _reason(error: Exception) -> str:
    return f"it cannot be translated to torch ({type(error).__name__}: {first_line(error)})"


def _scores_only(why: str) -> Sequence[Finding]:
    return [adapted(f"ONNX Runtime runs it, so that only its scores can be attacked: {why}", "give the torch model")]
