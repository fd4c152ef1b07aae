"""Data sets of the hub, of which a stand-in for the library ``datasets`` shows how they are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from tests.data.conftest import Encode
from unmask.data import DataError, load
from unmask.network import hubs


class Image(SimpleNamespace):
    pass


class ClassLabel(SimpleNamespace):
    dtype = "int64"


class Table:
    """A table of the library, of one row for each label."""

    def __init__(self, columns: dict[str, Any], features: dict[str, Any]) -> None:
        self.columns, self.features = columns, features

    def cast_column(self, name: str, feature: Image) -> Table:
        assert feature == Image(decode=False)
        return Table(self.columns, {**self.features, name: feature})

    def __getitem__(self, key: Any) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: held[key] for name, held in self.columns.items()}


class Hub:
    """What is installed, and what is asked of it."""

    def __init__(self, patch: pytest.MonkeyPatch, splits: Sequence[str], table: Table) -> None:
        self.asked: list[Any] = []
        self.offline: list[bool] = []
        self.failure: Exception | None = None
        library, config = ModuleType("datasets"), ModuleType("datasets.config")
        constants = ModuleType("huggingface_hub.constants")
        for module in (config, constants):
            vars(module)["HF_HUB_OFFLINE"] = False
        self.constants: Any = constants
        found = {"Image": Image, "get_dataset_split_names": self.split_names, "load_dataset": self.load_dataset}
        vars(library).update(found)
        self.splits, self.table = splits, table
        for module in (library, config, constants):
            patch.setitem(sys.modules, module.__name__, module)
        patch.delenv("HF_HUB_OFFLINE")
        patch.setattr(hubs, "HUGGING_FACE", "https://hub.example")
        patch.setattr(hubs, "urlopen", self.urlopen)

    def urlopen(self, request: Any, timeout: float) -> Any:
        assert timeout <= 5
        if self.failure:
            raise self.failure
        return SimpleNamespace(close=lambda: None)

    def split_names(self, name: str, config: str | None) -> Sequence[str]:
        self.offline.append(self.constants.HF_HUB_OFFLINE)
        if self.constants.HF_HUB_OFFLINE and self.failure:
            raise ConnectionError("neither here\nnor there")
        return self.splits

    def load_dataset(self, name: str, config: str | None, split: str) -> Table:
        self.asked.append((name, config, split))
        return self.table


@pytest.fixture
def table(encode: Encode) -> Table:
    images = [{"bytes": encode(np.full((2, 2), value)), "path": None} for value in (10, 20, 30)]
    names = {"fine": ["a", "b", "c"], "label": ["x", "y"]}
    features = {"img": Image(decode=True), **{name: ClassLabel(names=held) for name, held in names.items()}}
    return Table({"img": images, "fine": [0, 1, 2], "label": [1, 0, 1]}, features)


def refused(name: str) -> str:
    with pytest.raises(DataError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(name)


def test_images_labels_and_classes(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    hub = Hub(monkeypatch, ["train", "validation"], table)
    data = load("hf:some/set:config", n=2)
    assert data.images[:, 0, 0, 0].tolist() == [10, 20]
    assert data.labels.tolist() == [1, 0]
    assert (data.classes, data.name, data.note) == (("x", "y"), "hf:some/set:config", "hf:some/set:config")
    assert hub.asked == [("some/set", "config", "validation")]
    load("hf:some/set", "train")
    assert hub.asked[1] == ("some/set", None, "train")
    assert hub.offline == [False, False]


def test_without_the_hub_the_cache_is_asked_and_the_setting_comes_back(
    monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    hub = Hub(monkeypatch, ["test"], table)
    hub.failure = OSError("no network")
    assert refused("hf:some/set") == (
        "hub.example cannot be reached (no network), and hf:some/set was not downloaded before: connect, or give a "
        "folder or file of this machine"
    )
    assert hub.offline == [True]
    assert hub.constants.HF_HUB_OFFLINE is False
    monkeypatch.setattr(sys.modules["datasets"], "get_dataset_split_names", lambda *_: ["test"])  # the cache has it
    assert len(load("hf:some/set")) == 3


def test_a_hub_that_is_silent_costs_few_seconds(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    hub = Hub(monkeypatch, ["test"], table)
    monkeypatch.setattr(hubs, "_SECONDS", 0.1)
    monkeypatch.setattr(hubs, "urlopen", lambda request, timeout: time.sleep(3))
    started = time.monotonic()
    load("hf:some/set")
    assert time.monotonic() - started < 2
    assert hub.offline == [True]


def test_an_answer_that_is_an_error_is_an_answer(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    hub = Hub(monkeypatch, ["test"], table)
    hub.failure = HTTPError("", 401, "unauthorised", Message(), None)
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *_, **__: 1 / 0)
    told = " cannot be loaded (division by zero): check it; hf:NAME:CONFIG names a configuration"
    assert refused("hf:some/set") == told
    assert hub.offline == [False]


def test_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    hub = Hub(monkeypatch, ["train"], table)
    told = " has no test split, only train: save the images that you mean as a parquet file, and give its path"
    assert refused("hf:some/set") == told
    hub.splits = ["test"]
    table.columns["label"] = [0, -1, 1]
    assert refused("hf:some/set") == ": row 1 has label -1: its label is not public, or missing"
    table.columns["label"], table.columns["img"][2] = [0, 1, 0], {"bytes": None, "path": None}
    told = ": the image of row 2 is missing: save the rows that have one as a parquet file"
    assert refused("hf:some/set") == told
    del table.features["label"]
    table.features["coarse"] = ClassLabel()
    told = " has no one column of labels among img (Image), fine (ClassLabel), coarse (ClassLabel): save columns image "
    assert refused("hf:some/set") == told + "and label as a parquet file"
    assert refused("hf:") == " names no data set: give, for example, hf:uoft-cs/cifar10"


def test_without_the_library_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused("hf:some/set") == ' needs the library datasets: pip install "unmask[datasets]"'


def test_the_library_itself(tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on this machine, which it loads as it loads a data set of the hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split, name, value in (("train", "a", 1), ("test", "b", 30), ("test", "a", 20), ("test", "b", 40)):
        path = tmp_path / "set" / split / name / f"{value}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.full((2, 2, 3), value)))
    data = load(f"hf:{tmp_path}/set")
    pairs = sorted(zip(data.images[:, 0, 0, 0].tolist(), (data.classes[y] for y in data.labels), strict=True))
    assert pairs == [(20, "a"), (30, "b"), (40, "b")]
    assert data.classes == ("a", "b")
