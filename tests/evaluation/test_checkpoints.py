"""Weights in a user's file, for an architecture of a library: all of them are loaded, or one line says why not."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.evaluation.test_sources import DIGITS, X, fake_timm, fake_torchvision
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.sources.checkpoints import load_checkpoint
from unmask.evaluation.models.targets import find_target
from unmask.models.forms import ModelForm


def net(seed: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes)).eval()


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


FORMS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], list[str]]] = {
    "alone": (lambda own: own, []),
    "data parallel": (lambda own: prefixed(own, "module."), ["names of weights are taken without 'module.'"]),
    "compiled": (lambda own: prefixed(own, "module._orig_mod."), ["are taken without 'module._orig_mod.'"]),
    "of a script": (
        lambda own: {"epoch": 3, "state_dict": own, "optimizer": {"lr": 0.1}},
        ["the weights are those of 'state_dict'; it also has 'epoch', 'optimizer'"],
    ),
    "nested": (
        lambda own: {"model": prefixed(own, "model."), "model_ema": own},
        ["the weights are those of 'model'; it also has 'model_ema'", "are taken without 'model.'"],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_are_found_in_their_file(name: str, tmp_path: Path) -> None:
    wrap, said = FORMS[name]
    trained, path = net(0), tmp_path / "net.pt"
    torch.save(wrap(dict(trained.state_dict())), path)
    other = net(1)
    notes = load_checkpoint(other, str(path), "tiny")
    assert other(X).equal(trained(X))
    assert len(notes) == len(said)
    assert all(words in note.where for note, words in zip(notes, said, strict=True))


def test_a_file_of_safetensors(tmp_path: Path) -> None:
    trained, path, other = net(0), tmp_path / "net.safetensors", net(1)
    save_file(trained.state_dict(), path)
    assert load_checkpoint(other, str(path), "tiny") == []
    assert other(X).equal(trained(X))


class Evil:
    """Makes a folder where it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def without(key: str) -> dict[str, Tensor]:
    return {name: value for name, value in net(0).state_dict().items() if name != key}


BAD: dict[str, tuple[Any, str]] = {
    "shape": (
        net(0, 5).state_dict(),
        r"does not fit tiny: 2.weight is \(5, 64\) in the file and \(3, 64\) in the model and 1 more: give the right",
    ),
    "missing": (without("2.bias"), "does not fit tiny: it has no 2.bias: give the right architecture"),
    "unexpected": ({**net(0).state_dict(), "head": torch.ones(1)}, "does not fit tiny: it has also head: give"),
    "another net": ({"a": torch.ones(1), "b": torch.ones(1)}, "it has no 1.weight and 5 more, and also a and 1 more"),
    "a number": (3, "holds a int: save model.state_dict()"),
    "nothing": ({}, "holds nothing, and no weights under state_dict"),
    "other things": ({"epoch": 3}, "holds 'epoch', and no weights under state_dict, model_state_dict, model, net"),
}


@pytest.mark.parametrize("name", BAD)
def test_weights_that_do_not_fit(name: str, tmp_path: Path) -> None:
    held, message = BAD[name]
    torch.save(held, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(net(1), f"{tmp_path}/net.pt", "tiny")
    assert "\n" not in str(caught.value)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    for path, write in ((tmp_path / "a.pt", torch.save), (tmp_path / "b.pt", dump)):
        write({"weights": Evil(tmp_path / "made")}, path)
        with pytest.raises(ValueError, match="holds more than weights, which would run code of the file: save model"):
            load_checkpoint(net(1), str(path), "tiny")
    assert not (tmp_path / "made").exists()


def dump(held: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(held))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_none(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    with pytest.raises(ValueError, match=f"no file {path}"):
        load_checkpoint(net(1), str(path), "tiny")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{path} holds no weights") as caught:
        load_checkpoint(net(1), str(path), "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fake", [fake_torchvision, fake_timm])
def test_an_architecture_has_the_classes_of_the_file_and_takes_the_images_as_they_are(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = fake(monkeypatch)
    torch.manual_seed(9)
    read = nn.Linear(64, 12)
    torch.save({f"read.{key}": value for key, value in read.state_dict().items()}, tmp_path / "net.pt")
    form = ModelForm(checkpoint=f"{tmp_path}/net.pt", num_classes=12, reject_class=-1)
    target = find_target(name, DIGITS, ExecutionConfig(form=form))
    assert target.model(X).allclose(read(((X - 0.3) / 0.6).flatten(1)), atol=1e-5)
    (note,) = target.setup_findings
    assert note.where.startswith("images are normalised by mean 0.3 and std 0.6, those of ")
    own = find_target(name, DIGITS, ExecutionConfig(form=ModelForm(**{**form.stored(), "mean": [0.5], "std": [0.25]})))
    assert own.model(X).allclose(read(((X - 0.5) / 0.25).flatten(1)), atol=1e-5)
    assert own.setup_findings == ()
