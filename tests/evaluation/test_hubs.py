"""A hub that cannot be reached is said within seconds, and what was downloaded before is used."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from ssl import SSLCertVerificationError
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import pytest
import torch

from tests.evaluation.test_sources import DIGITS, fake_timm, fake_torchvision, fake_transformers
from unmask.evaluation.models.sources.torchvision_models import _cached
from unmask.evaluation.models.targets import find_target
from unmask.network import hubs

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError("not in the cache\nand more")


@pytest.mark.parametrize("fake", [fake_timm, fake_transformers])
def test_a_model_that_was_not_downloaded_before(fake: Any, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    name = fake(monkeypatch)
    library = sys.modules["timm" if "timm" in name else "transformers"]
    entry = "create_model" if "timm" in name else "AutoImageProcessor"
    monkeypatch.setattr(library, entry, refuse if "timm" in name else SimpleNamespace(from_pretrained=refuse))
    for address, reason in ((CLOSED, r"\[Errno 111\] Connection refused"), (silent, "timed out|no answer within 3 s")):
        monkeypatch.setattr(hubs, "HUGGING_FACE", address)
        begun = time.monotonic()
        message = rf"{name}: 127.0.0.1:\d+ cannot be reached \(({reason})\), and \S+ was not downloaded before"
        with pytest.raises(ValueError, match=message) as caught:
            find_target(name, DIGITS)
        assert time.monotonic() - begun < 5
        assert "\n" not in str(caught.value)
    assert "HF_HUB_OFFLINE" not in os.environ


def test_a_model_that_was_downloaded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries are told to look for it on this machine alone, and later for others on the hub again."""
    constants, config = SimpleNamespace(HF_HUB_OFFLINE=False), SimpleNamespace(HF_HUB_OFFLINE=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    monkeypatch.delitem(sys.modules, "datasets.config", raising=False)
    monkeypatch.setattr(hubs, "HUGGING_FACE", CLOSED)
    seen = []
    with hubs.offline_unless_reached("someone/tiny", local=False):
        monkeypatch.setitem(sys.modules, "datasets.config", config)  # imported here, it reads the variable
        seen.append((os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE))
    assert seen == [("1", True)]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert (constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE) == (False, False)


@pytest.mark.parametrize("answer", [URLError(SSLCertVerificationError()), HTTPError("", 503, "", Message(), None)])
def test_an_answer_that_is_an_error_is_an_answer(answer: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose certificate only the libraries may trust."""
    monkeypatch.setattr(hubs, "urlopen", Mock(side_effect=answer))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with hubs.offline_unless_reached("someone/tiny", local=False):
        assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_folder_is_loaded_without_a_look_at_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "HUGGING_FACE", "http://10.255.255.1")
    begun = time.monotonic()
    with pytest.raises(KeyError), hubs.offline_unless_reached("folder", local=True):
        raise KeyError("config")
    assert time.monotonic() - begun < 1


def test_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = fake_torchvision(monkeypatch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(sys.modules["unmask.evaluation.models.sources.torchvision_models"], "_cached", _cached)
    with pytest.raises(
        ValueError, match=r"torchvision:tiny: 127.0.0.1:9 cannot be reached \(.*refused\), and tiny was not"
    ):
        find_target(name, DIGITS)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/tiny-0123.pth").touch()
    assert find_target(name, DIGITS).draws == 1
