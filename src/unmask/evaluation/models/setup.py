"""What a reader must know of a model before any figure, from its answers to a few images and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from unmask.cases import AttackSpec
from unmask.data import Dataset
from unmask.diagnosis.behaviour.clock import by_the_clock
from unmask.diagnosis.behaviour.determinism import crowded
from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.diagnosis.lint import made_for, overwrites
from unmask.diagnosis.probe import unavailable
from unmask.evaluation.models.targets import Target
from unmask.kinds import Access
from unmask.randomness import make_keys
from unmask.records import Finding
from unmask.state.deep_copy import deep_copy
from unmask.threats import Threat

__all__ = ["rms_radius", "setup_findings"]

_PROBED = 16
"""Images that are looked at."""

_FEW = 2
"""Images that are queried at other times, and among similar images."""


def setup_findings(target: Target, attacker: AttackSpec, data: Dataset, threat: Threat, seed: int) -> Iterator[Finding]:
    """Findings of kinds "range", "overwrites input", "clock", "batch" (an answer that depends on similar images in the
    batch) and, for attacks that take gradients, "gradient".

    The last says where the gradient of the view that is attacked is missing, zero or not finite.
    """
    device = next(target.model.parameters(), torch.empty(0)).device
    index = torch.arange(min(len(data), _PROBED))
    x, y = (part.to(device) for part in data.floats(index))
    keys = make_keys(seed, index, "setup")
    with torch.no_grad(), preserve_buffers(target.model):
        yield from made_for(target.model, x, y, keys)
        yield from overwrites(target.model, x, keys)
        yield from by_the_clock(target.model, x[:_FEW], keys.select(torch.arange(len(x[:_FEW]))))
        yield from crowded(target.model, x, keys, _FEW)
    if attacker.access != Access.WHITE_BOX:
        return
    with suppress(Exception):  # an error of the model under attack is reported by the attack
        view = target.model if attacker.view is None else attacker.view(deep_copy(target.model))
        found = unavailable(view, x, y, rms_radius(threat, x), keys)
        if found is not None:
            yield found


def rms_radius(threat: Threat, x: Tensor) -> float:
    """Radius of the ball around images (B, C, H, W), as the root mean square of an element."""
    size = float(threat.radius(x).mean())
    return size if threat.norm == "linf" else size / x[0].numel() ** (0.5 if threat.norm == "l2" else 1.0)
