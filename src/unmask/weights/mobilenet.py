"""The weights of MobileNetV2 that Google published, in the form of ``unmask.nets.mobilenet_v2``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = ["CHECKPOINT", "REPOSITORY", "download", "fold", "make_mobilenet_v2"]

REPOSITORY, CHECKPOINT = "google/mobilenet_v2_1.0_224", "model.safetensors"
_EPS = 1e-3  # of its batch norms
_PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}


def make_mobilenet_v2(checkpoint: Path, path: Path) -> None:
    """Write the file ``path`` of a checkpoint of ``google/mobilenet_v2_1.0_224`` on the Hugging Face hub.

    It is the same function: that network, too, pads like TensorFlow and takes images in [-1, 1]. Its batch norms
    are folded into the convolutions and its background class is dropped. Those of torchvision and timm are padded
    on the other side and normalised otherwise: with their weights it would be another function.

    Raises UnmaskError where the checkpoint is missing, damaged or of another network.
    """
    try:
        state = load_file(checkpoint)
    except (SafetensorError, OSError) as error:
        raise UnmaskError(f"{checkpoint} is not a readable safetensors file ({error})") from error
    try:
        tensors = dict(_converted(state))
    except KeyError as error:
        raise UnmaskError(f"{checkpoint} holds weights of another model: no {error} of {REPOSITORY} in it") from error
    source = f"{REPOSITORY} on the Hugging Face hub, float32, batch norm folded, background class dropped"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(tensors, metadata={"source": source}))
    part.replace(path)


def download() -> Path:
    """The checkpoint, downloaded from the hub or found in its cache; UnmaskError where that cannot be."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        get = f"or give {CHECKPOINT} of {REPOSITORY} by --checkpoint"
        raise UnmaskError("the download takes huggingface_hub", f'pip install "unmask[hub]", {get}') from error
    try:
        return Path(hub.hf_hub_download(REPOSITORY, CHECKPOINT))
    except Exception as error:  # the network, the hub and the disk each fail in their own way
        reason = " ".join(str(error).split())
        raise UnmaskError(
            f"cannot download {CHECKPOINT} of {REPOSITORY} ({reason:.200})", "give it by --checkpoint"
        ) from error


def fold(weight: Tensor, norm: Mapping[str, Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what one without a bias and a batch norm after it do.

    Args:
        weight: (channels, ...) of the convolution.
        norm: "weight", "bias", "running_mean" and "running_var" of the batch norm, (channels,) each.

    >>> import torch
    >>> norm = dict(zip(("weight", "bias", "running_mean", "running_var"), torch.tensor([[6.0], [1.0], [2.0], [9.0]])))
    >>> [t.item() for t in fold(torch.tensor([[5.0]]), norm, eps=0.0)]  # 6 (5 x - 2) / 3 + 1
    [10.0, -3.0]
    """
    scale, mean = norm["weight"].double() / (norm["running_var"].double() + eps).sqrt(), norm["running_mean"].double()
    folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return folded.float(), (norm["bias"].double() - scale * mean).float()


def _converted(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    layers = {"features.0": "conv_stem.first_conv", "features.18": "conv_1x1"}
    for number in range(1, 18):
        theirs = "conv_stem" if number == 1 else f"layer.{number - 2}"
        for ours, part in _PARTS.items():
            if number > 1 or ours != "expand":
                layers[f"features.{number}.{ours}"] = f"{theirs}.{part}"
    for ours, theirs in layers.items():
        whole = f"mobilenet_v2.{theirs}"
        norm = {
            name: state[f"{whole}.normalization.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        }
        weight, bias = fold(state[f"{whole}.convolution.weight"], norm, _EPS)
        yield f"{ours}.weight", weight
        yield f"{ours}.bias", bias
    for name in ("weight", "bias"):
        yield f"classifier.{name}", state[f"classifier.{name}"][1:].float().contiguous()
