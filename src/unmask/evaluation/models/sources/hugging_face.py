"""Image classifiers on the Hugging Face hub, in the form of transformers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from unmask.evaluation.models.sources.fitted import fitted
from unmask.evaluation.models.sources.loading import Loaded, Request, library
from unmask.network.hubs import offline_unless_reached

__all__ = ["load_hugging_face"]


def load_hugging_face(request: Request) -> Loaded:
    """An image classifier by its id on the hub, or of a folder, with the size and the moments of its processor.

    Raises UnmaskError for a hub that cannot be reached.
    """
    transformers = library("transformers", "transformers", "unmask[models]")
    name = request.name
    with offline_unless_reached(name, local=Path(name).is_dir()):
        expects = transformers.AutoImageProcessor.from_pretrained(name)
        net = transformers.AutoModelForImageClassification.from_pretrained(name)
    cut = getattr(expects, "crop_size", None) if getattr(expects, "do_center_crop", False) else None
    sizes = cut or expects.size
    size = [sizes[side] if side in sizes else sizes["shortest_edge"] for side in ("height", "width")]
    mean, std = (expects.image_mean, expects.image_std) if expects.do_normalize else ([0.0], [1.0])
    return fitted(_Logits(net), request, size, mean, std, "as its image processor says")


class _Logits(nn.Module):
    """A network whose answer holds logits among other things."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(pixel_values=x).logits
        return logits
