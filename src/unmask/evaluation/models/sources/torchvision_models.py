"""Classifiers of torchvision, with its weights or the user's."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import nn

from unmask.evaluation.models.sources.checkpoints import load_checkpoint
from unmask.evaluation.models.sources.fitted import fitted
from unmask.evaluation.models.sources.loading import Loaded, Request, library
from unmask.network.hubs import online

__all__ = ["load_torchvision"]


def load_torchvision(request: Request) -> Loaded:
    """A torchvision classifier with its default weights, or with those of ``--checkpoint``.

    With a checkpoint it has as many classes as ``--num-classes``, or the data, and takes images of the data's size.
    Raises UnmaskError for a download host that cannot be reached and for a checkpoint that does not fit.
    """
    models = library("torchvision.models", "torchvision", "unmask[models]")
    weights = models.get_model_weights(request.name).DEFAULT
    expects = weights.transforms()
    if request.form.checkpoint is not None:
        net: nn.Module = models.get_model(request.name, weights=None, num_classes=request.num_classes)
        notes = load_checkpoint(net, request.form.checkpoint, request.name)
        found = fitted(net, request, None, expects.mean, expects.std, "those of torchvision's own weights")
        return Loaded(found.model, [*notes, *found.notes], normalised=True)
    if not _cached(weights.url):
        online(weights.url, request.name)
    (size,) = expects.crop_size
    net = models.get_model(request.name, weights=weights)
    return fitted(net, request, (size, size), expects.mean, expects.std, "as its weights want them")


def _cached(address: str) -> bool:
    """Whether ``torch.hub`` has downloaded a file before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name).is_file()
