"""Folders by class and resizing, as torchvision itself does both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data import from_memory, load


def test_classes_order_and_pixels_are_those_of_torchvisions_image_folder(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from torchvision import datasets, transforms

    random = np.random.RandomState(0)
    for name in ("b/2.png", "b/10.png", "B/x.png", "a/sub/1.jpg", "a/z.bmp", "a/sub2/0.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (20, 30, 3)).astype(np.uint8)).save(path)
    ours = load(str(tmp_path))
    theirs = datasets.ImageFolder(tmp_path, transforms.ToTensor())
    same = from_memory(theirs, 6)
    assert ours.classes == same.classes == tuple(theirs.classes)
    assert torch.equal(ours.labels, same.labels)
    assert torch.equal(ours.batch()[0], same.batch()[0])
    resized = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(14), transforms.ToTensor()])
    cropped = from_memory(datasets.ImageFolder(tmp_path, resized), 6)
    assert torch.equal(load(str(tmp_path), size=14).batch()[0], cropped.batch()[0])
