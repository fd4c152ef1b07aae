"""Models by name that other libraries make: torchvision, timm, the Hugging Face hub, files of ONNX and torch.export."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.defenses.preprocessed import Preprocessed
from unmask.errors import UnmaskError

__all__ = ["BUILDERS", "FILES", "Batches", "Fitted"]


class Fitted(nn.Module):
    """Images in [0, 1] as a network wants them: resized to ``size`` (bilinear), less ``mean``, over ``std``.

    Args:
        size: (H', W').
        mean: of each channel.
        std: of each channel.

    (B, C, H, W) -> (B, C, H', W').

    >>> Fitted((1, 1), [0.5], [0.25])(torch.tensor([[[[0.25, 0.75], [1.0, 1.0]]]]))
    tensor([[[[1.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.size = tuple(size)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        return (x - self.mean) / self.std


class Batches(nn.Module):
    """A network that takes ``size`` images at a time and no other number: the last part is filled up.

    >>> Batches(nn.Flatten(), 2)(torch.ones(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.cat([x, x[-1:].expand(-len(x) % self.size, *x.shape[1:])]).split(self.size)
        return torch.cat([self.net(part) for part in parts])[: len(x)]


def _torchvision(name: str) -> nn.Module:
    """A torchvision classifier with its default weights."""
    models = _library("torchvision.models", "torchvision", "models")
    weights = models.get_model_weights(name).DEFAULT
    expects = weights.transforms()
    (size,) = expects.crop_size
    net: nn.Module = models.get_model(name, weights=weights)
    return Preprocessed(Fitted((size, size), expects.mean, expects.std), net).eval()


def _timm(name: str) -> nn.Module:
    """A pretrained timm classifier; ``hf-hub:ORG/NAME`` is one on the hub in timm's form."""
    timm = _library("timm", "timm", "models")
    net = timm.create_model(name, pretrained=True)
    expects = timm.data.resolve_model_data_config(net)
    return Preprocessed(Fitted(expects["input_size"][1:], expects["mean"], expects["std"]), net).eval()


class _Logits(nn.Module):
    """A network whose answer holds logits among other things."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(pixel_values=x).logits
        return logits


def _hub(name: str) -> nn.Module:
    """An image classifier on the Hugging Face hub, by its id, in the form of transformers."""
    transformers = _library("transformers", "transformers", "models")
    expects = transformers.AutoImageProcessor.from_pretrained(name)
    net = transformers.AutoModelForImageClassification.from_pretrained(name)
    cut = getattr(expects, "crop_size", None) if getattr(expects, "do_center_crop", False) else None
    sizes = cut or expects.size
    size = [sizes[side] if side in sizes else sizes["shortest_edge"] for side in ("height", "width")]
    mean, std = (expects.image_mean, expects.image_std) if expects.do_normalize else ([0.0], [1.0])
    return Preprocessed(Fitted(size, mean, std), _Logits(net)).eval()


def _onnx(path: str) -> nn.Module:
    """The network of an ONNX file, operation by operation in torch."""
    convert = _library("onnx2torch", "onnx2torch", "onnx").convert
    graph = _library("onnx", "onnx", "onnx").load(_file(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    batch = next(put for put in graph.input if put.name not in weights).type.tensor_type.shape.dim[0].dim_value
    net: nn.Module = convert(_file(path))
    return (Batches(net, batch) if batch else net).eval()  # 0 for any number


def _exported(path: str) -> nn.Module:
    """The network of a file that torch.export.save wrote."""
    program = torch.export.load(_file(path))
    image = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    batch, whole = image.meta["val"].shape[0], program.module()
    net = Batches(whole, batch) if isinstance(batch, int) else whole
    for part in net.modules():
        part.training = False  # settled when it was exported; eval() is not supported there
    return net


def _library(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # torchvision of another build raises RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name in (module, package):
            raise UnmaskError(f"it needs {package}", f'pip install "unmask[{extra}]"') from error
        raise UnmaskError(f"{package} cannot be imported ({error})", "reinstall it beside this torch") from error


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise UnmaskError(f"no file {path}")
    return path


BUILDERS: Mapping[str, Callable[[str], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hub": _hub,
    "onnx": _onnx,
    "pt2": _exported,
}
"""By the word before the colon: from the rest of the name to a network in evaluation mode, on images in [0, 1]."""

FILES = {".onnx": "onnx", ".pt2": "pt2"}
"""Files that need no word before them."""
