"""A model as an audit attacks it, for scripts."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from unmask.data import Dataset
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import find_target, prepare_target
from unmask.models.black_box_models import ArrayFunction, BlackBoxModel
from unmask.models.forms import ModelForm

__all__ = ["load_model"]


def load_model(
    model: str | nn.Module | ArrayFunction,
    data: Dataset,
    *,
    device: str = "cpu",
    weights: Path | str | None = None,
    form: ModelForm = ModelForm(),
) -> nn.Module:
    """The model that :func:`unmask.audit` and the command ``unmask audit`` attack: images in [0, 1] to logits.

    A name is one of the command line, such as ``"case:plain-digits"``, ``"my_model.py:build"``, ``"timm:NAME"`` or
    ``"http://..."``. A model in memory is made ready as an audit does it: in evaluation mode, without a memory of
    earlier calls, a class of refusals as a detector.

    Args:
        model: a name, a module, or a function of arrays.
        data: test images, on the first of which it is tried.
        device: as torch names it.
        weights: folder of the cases' weights; None for those that ship.
        form: how the model takes images and gives logits, and how it is obtained.

    Raises UnmaskError for a name that there is not, and a model that does not fit.

    >>> from unmask.data import load
    >>> data = load("digits", n=8)
    >>> load_model("case:plain-digits", data)(data.batch()[0]).shape
    torch.Size([8, 10])
    """
    folder = None if weights is None else Path(weights)
    config = ExecutionConfig(device=device, weights=folder, strict=False, form=form)
    if isinstance(model, str):
        return find_target(model, data, config).model
    return prepare_target(model if isinstance(model, nn.Module) else BlackBoxModel(model), data, config).model
