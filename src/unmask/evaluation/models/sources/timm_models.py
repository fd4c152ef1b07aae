"""Classifiers of timm, with its weights or the user's."""

from __future__ import annotations

from unmask.evaluation.models.sources.checkpoints import load_checkpoint
from unmask.evaluation.models.sources.fitted import fitted
from unmask.evaluation.models.sources.loading import Loaded, Request, library
from unmask.network.hubs import offline_unless_reached

__all__ = ["load_timm"]


def load_timm(request: Request) -> Loaded:
    """A pretrained timm classifier (``hf-hub:ORG/NAME`` is one on the hub, ``local-dir:FOLDER`` one in a folder, in
    timm's form), or one with the weights of ``--checkpoint``.

    With a checkpoint it has as many classes as ``--num-classes``, or the data, and takes images of the data's size and
    channels. Raises UnmaskError for a hub that cannot be reached and for a checkpoint that does not fit.
    """
    timm = library("timm", "timm", "unmask[models]")
    if request.form.checkpoint is not None:
        channels = request.images.shape[1]
        net = timm.create_model(request.name, pretrained=False, num_classes=request.num_classes, in_chans=channels)
        notes = load_checkpoint(net, request.form.checkpoint, request.name)
        expects = timm.data.resolve_model_data_config(net)
        mean, std = (_of_channels(expects[moment], channels) for moment in ("mean", "std"))
        found = fitted(net, request, None, mean, std, "those of timm's own weights")
        return Loaded(found.model, [*notes, *found.notes], normalised=True)
    with offline_unless_reached(request.name, local=request.name.startswith("local-dir:")):
        net = timm.create_model(request.name, pretrained=True)
    expects = timm.data.resolve_model_data_config(net)
    return fitted(net, request, expects["input_size"][1:], expects["mean"], expects["std"], "as its weights want them")


def _of_channels(moments: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Those of colours, averaged where the images have another number of channels."""
    return moments if len(moments) == channels else (sum(moments) / len(moments),) * channels
