"""Tests that need published data ask for the data, not for a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.needs import need

Skipped = pytest.skip.Exception


@pytest.mark.parametrize("left", ["data/mnist/mnist", "data/mnist/.cache/huggingface", "data/cifar10"])
def test_a_folder_without_the_data_skips(left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    (tmp_path / left).mkdir(parents=True)
    for name in ("mnist", "cifar10", "imagenet-sample"):
        with pytest.raises(Skipped, match=name):
            need(name)


def test_a_split_is_not_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    folder = tmp_path / "data/mnist/MNIST/raw"
    folder.mkdir(parents=True)
    image, label = np.full((1, 28, 28), 7, np.uint8), np.array([3], np.uint8)
    for kind, values in (("images-idx3", image), ("labels-idx1", label)):
        head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        (folder / f"t10k-{kind}-ubyte").write_bytes(head + values.tobytes())
    need("mnist")
    with pytest.raises(Skipped, match=r"mnist.*train"):
        need("mnist", "train")
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"half")
    with pytest.raises(Skipped, match="t10k-images"):
        need("mnist")
