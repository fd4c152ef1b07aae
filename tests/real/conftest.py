"""Libraries that the other tests stand in for: what is absent is skipped, and `make test-all` installs everything."""

from __future__ import annotations

import importlib.util

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def torchvision_without_kernels() -> object:
    """PyPI's torchvision has CUDA kernels alone: beside a CPU build of torch its operators are only declared here.

    Object detection needs them. The classifiers, and the libraries that import torchvision for those, do not.
    """
    if importlib.util.find_spec("torchvision") is None or torch.version.cuda:
        return None
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators  # undone when it is collected
