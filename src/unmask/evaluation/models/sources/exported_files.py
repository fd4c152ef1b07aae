"""Files that torch.export.save wrote."""

from __future__ import annotations

import torch

from unmask.evaluation.models.sources.fitted import Batches
from unmask.evaluation.models.sources.loading import Loaded, Request, existing_file

__all__ = ["load_exported"]


def load_exported(request: Request) -> Loaded:
    """The network of a ``.pt2`` file; one that was exported for a fixed number of images is given that many at a time.

    What it does in evaluation mode was settled when it was exported.
    """
    program = torch.export.load(existing_file(request.name))
    image = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    batch, whole = image.meta["val"].shape[0], program.module()
    net = Batches(whole, batch) if isinstance(batch, int) else whole
    for part in net.modules():
        part.training = False  # eval() is not supported there
    return Loaded(net)
