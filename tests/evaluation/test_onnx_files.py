"""What becomes of an ONNX file, with stand-ins for the libraries that read it: see tests/real for those themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.test_sources import DIGITS, Small, X, put
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import find_target
from unmask.evaluation.verifying.fingerprint import fingerprint
from unmask.models.black_box_models import BlackBoxModel
from unmask.models.forms import ModelForm


class OfOne(Small):
    """A net that reshapes to the batch that it was written with."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(1, 1, 8, 8))


class Probabilities(Small):
    """What a file with a softmax at its end answers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


def node(operation: str, put_in: str, made: str, **attributes: int) -> SimpleNamespace:
    named = [SimpleNamespace(name=name, i=value) for name, value in attributes.items()]
    return SimpleNamespace(op_type=operation, input=[put_in], output=[made], attribute=named)


NODES = [node("BatchNormalization", "x", "z", training_mode=0)]
WITH_SOFTMAX = [*NODES, node("Softmax", "z", "p"), node("Identity", "p", "y")]


def file(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    runs: nn.Module,
    translate: Callable[[Any], Any],
    *,
    batch: int = 0,
    nodes: list[SimpleNamespace] = NODES,
    outputs: tuple[str, ...] = ("z",),
) -> list[int]:
    """A file that ONNX Runtime runs as ``runs``, translated by ``translate``; the batches that the former is given."""
    seen: list[int] = []

    def shaped(name: str, size: int) -> Any:
        shape = SimpleNamespace(dim=[SimpleNamespace(dim_value=size)])
        return SimpleNamespace(name=name, type=SimpleNamespace(tensor_type=SimpleNamespace(shape=shape)))

    class Session:
        def __init__(self, name: str, providers: list[str]) -> None:
            assert name == str(path)

        def get_inputs(self) -> Any:
            return [SimpleNamespace(name="x")]

        @torch.no_grad()
        def run(self, wanted: list[str], given: dict[str, Any]) -> Any:
            seen.append(len(given["x"]))
            assert wanted == [outputs[-1]]
            return [runs(torch.from_numpy(given["x"])).numpy()]

    path.write_bytes(b"graph")
    graph = SimpleNamespace(
        initializer=[SimpleNamespace(name="weight")],
        input=[shaped("weight", 64), shaped("x", batch)],
        output=[SimpleNamespace(name=name) for name in outputs],
        node=[SimpleNamespace(**vars(one)) for one in nodes],
    )
    put(monkeypatch, "onnx", load=lambda name: SimpleNamespace(graph=graph))
    put(monkeypatch, "onnxruntime", InferenceSession=Session)
    put(monkeypatch, "onnxslim", slim=lambda model: model)
    put(monkeypatch, "onnx2pytorch", ConvertModel=lambda model: translate(model))
    return seen


@pytest.mark.parametrize("prefix", ["", "onnx:"])
@pytest.mark.parametrize("batch", [0, -1, 1])
def test_it_is_translated(batch: int, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With no number of images, with -1 for any, with one that the translation does not insist on."""

    def translate(model: Any) -> nn.Module:
        assert all(not one.attribute for one in model.graph.node)  # the default training_mode is left out
        return Small()

    path = tmp_path / "net.onnx"
    seen = file(monkeypatch, path, Small(), translate, batch=batch)
    target = find_target(f"{prefix}{path}", DIGITS)
    assert isinstance(target.model, Small)
    assert not target.model.training
    assert target.setup_findings == ()
    assert set(seen) == ({1} if batch == 1 else {12})
    assert fingerprint(f"{prefix}{path}", target.model, DIGITS, 4)["code"] is not None


def test_a_translation_for_one_image_is_given_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    file(monkeypatch, path, OfOne(), lambda model: OfOne(), batch=1)
    target = find_target(str(path), DIGITS)
    assert target.model(X).allclose(Small()(X), atol=1e-5)
    assert target.setup_findings == ()


def test_a_softmax_at_its_end_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def translate(model: Any) -> nn.Module:
        assert [one.name for one in model.graph.output] == ["z"]
        return Small()

    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Probabilities(), translate, nodes=WITH_SOFTMAX, outputs=("y",))
    target = find_target(str(path), DIGITS)
    assert target.model(X).equal(Small()(X))
    assert [note.where for note in target.setup_findings] == [
        "the softmax at its end is left out, since logits are wanted"
    ]


def lacking(model: Any) -> nn.Module:
    raise NotImplementedError("no ReduceMean\nof version 18")


RUNTIME = "ONNX Runtime runs it, so that only its scores can be attacked: "
OTHERWISE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no translation": (lacking, r"it cannot be translated to torch \(NotImplementedError: no ReduceMean\)$"),
    "it fails": (
        lambda model: OfOne(),
        r"it cannot be translated to torch \(RuntimeError: shape '\[1, 1, 8, 8\]' is invalid for input of size 768\)$",
    ),
    "another answer": (lambda model: Scaled(1.003), r"its translation to torch differs from ONNX Runtime by [0-9.]+$"),
    "another shape": (lambda model: nn.Flatten(), "its translation to torch differs from ONNX Runtime by inf$"),
    "no number": (lambda model: nn.Sequential(Small(), Root()), "differs from ONNX Runtime by nan$"),
}


class Scaled(Small):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


class Root(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return (-1 - z.abs()).sqrt()


@pytest.mark.parametrize("batch", [0, 5])
@pytest.mark.parametrize("name", OTHERWISE)
def test_otherwise_its_scores_are_attacked(
    name: str, batch: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    translate, reason = OTHERWISE[name]
    if name == "it fails" and batch:
        reason = reason.replace("768", "320")  # five at a time
    path = tmp_path / "net.onnx"
    seen = file(monkeypatch, path, Small(), translate, batch=batch)
    target = find_target(str(path), DIGITS)
    assert isinstance(target.model, BlackBoxModel)
    assert target.model(X).logits.allclose(Small()(X), atol=1e-5)
    assert set(seen) == {5} if batch else 5 not in seen
    (note,) = target.setup_findings
    assert note.where.startswith(RUNTIME)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(note.where)


def test_a_translation_may_round_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Small(), lambda model: Scaled(1.0005))
    assert isinstance(find_target(str(path), DIGITS).model, Scaled)


def test_scores_of_a_softmax_are_logarithms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands take no probabilities; one of 0 stays a number."""
    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Probabilities(), lacking, nodes=WITH_SOFTMAX, outputs=("y",))
    logits = find_target(str(path), DIGITS).model(X).logits
    assert logits.allclose(Small()(X).log_softmax(1), atol=1e-4)
    file(monkeypatch, path, nn.Sequential(Small(), nn.Threshold(1e9, 0.0)), lacking, nodes=WITH_SOFTMAX, outputs=("y",))
    assert np.isfinite(find_target(str(path), DIGITS).model(X).logits.numpy()).all()


def test_what_it_takes_is_said_by_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The translation is compared on images of the form that the model takes."""

    class Bytes(Small):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == (8, 8, 1)
            assert x.max() > 2
            return super().forward(x.permute(0, 3, 1, 2) / 255)

    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Bytes(), lambda model: Bytes())
    form = ModelForm(channels_last=True, pixel_max=255)
    target = find_target(str(path), DIGITS, ExecutionConfig(form=form))
    assert target.model(X).allclose(Small()(X), atol=1e-4)
    assert target.setup_findings == ()
    with pytest.raises(ValueError, match="the model fails on images"):  # of neither form, whoever runs it
        find_target(str(path), DIGITS)


@pytest.mark.parametrize("wanted", ["scores", "1"])
def test_one_output_of_several(wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def translate(model: Any) -> nn.Module:
        assert [one.name for one in model.graph.output] == ["scores"]
        return Small()

    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Small(), translate, outputs=("boxes", "scores"))
    assert find_target(str(path), DIGITS, ExecutionConfig(form=ModelForm(output=wanted))).model(X).equal(Small()(X))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, "net.onnx: it has the outputs boxes, scores: name the logits with --output boxes"),
        ("logits", "net.onnx: it has no output 'logits', but boxes, scores: choose the logits of these"),
    ],
)
def test_an_output_that_must_be_chosen(
    wanted: str | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Small(), lambda model: Small(), outputs=("boxes", "scores"))
    with pytest.raises(ValueError, match=message):
        find_target(str(path), DIGITS, ExecutionConfig(form=ModelForm(output=wanted)))


def test_a_file_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    file(monkeypatch, path, Small(), lambda model: Small())
    put(monkeypatch, "onnxruntime", InferenceSession=lacking)
    with pytest.raises(ValueError, match="it is no network that ONNX Runtime can run: "):
        find_target(str(path), DIGITS)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path}: no file {path}"):
        find_target(str(path), DIGITS)
