"""Models that real libraries make and real files hold, through `unmask.load_model`'s names, against the original."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.commands import unmask
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.models.targets import find_target

pytestmark = pytest.mark.filterwarnings("ignore")  # these libraries' own affairs
DIGITS = load("digits", n=32)
X, Y = DIGITS.batch()


def enlarged(size: int) -> Tensor:
    return nn.functional.interpolate(X, (size, size), mode="bilinear", antialias=True)


def slope(model: nn.Module, x: Tensor) -> Tensor:
    """Of the logits' softened maximum, with respect to the images."""
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    return gradient


def by_timm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Callable[[], Tensor]]:
    """A folder in the form of timm on the hub."""
    timm = pytest.importorskip("timm")
    from timm.models import save_for_hf

    net = timm.create_model("resnet10t", num_classes=10, in_chans=1).eval()
    net.pretrained_cfg |= {"input_size": (1, 32, 32), "mean": (0.3,), "std": (0.6,), "num_classes": 10}
    save_for_hf(net, folder, safe_serialization=True)
    return f"timm:local-dir:{folder}", lambda: net((enlarged(32) - 0.3) / 0.6)


def by_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Callable[[], Tensor]]:
    """A folder in the form of transformers on the hub."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=10,
    )
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(folder)
    processor = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=processor, image_mean=[0.3], image_std=[0.6]).save_pretrained(folder)
    return f"hub:{folder}", lambda: net(pixel_values=(enlarged(16) - 0.3) / 0.6).logits


def by_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Callable[[], Tensor]]:
    """Weights in the folder into which torchvision downloads them."""
    models = pytest.importorskip("torchvision.models")
    weights = models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    net = models.shufflenet_v2_x0_5().eval()
    monkeypatch.setenv("TORCH_HOME", str(folder))
    file = folder / "hub/checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    torch.save(net.state_dict(), file)
    mean, std = (
        torch.tensor(moments).view(-1, 1, 1) for moments in (weights.transforms().mean, weights.transforms().std)
    )
    return "torchvision:shufflenet_v2_x0_5", lambda: net((enlarged(224).expand(-1, 3, -1, -1) - mean) / std)


@pytest.mark.parametrize("make", [by_timm, by_transformers, by_torchvision])
def test_a_model_of_a_library_answers_as_the_library_says(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, answers = make(tmp_path, monkeypatch)
    colours = 3 if "torchvision" in name else 1
    images = replace(DIGITS, images=DIGITS.images.expand(-1, colours, -1, -1))
    x, _ = images.batch()
    model = find_target(name, images).model
    with torch.no_grad():
        assert model(x).allclose(answers(), atol=1e-5)
    gradient = slope(model, x)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


def exported(path: Path, dynamo: bool = False) -> nn.Module:
    """The plain network of the digits, written by torch's older or newer exporter for any number of images."""
    pytest.importorskip("onnx")
    net = find_case("plain-digits").load()
    many: dict[str, Any] = {"dynamic_shapes": ({0: "n"},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(net, (X[:2],), path, dynamo=dynamo, input_names=["x"], external_data=False, **many)
    return net


def test_an_onnx_file_answers_and_has_the_gradient_of_its_network(tmp_path: Path) -> None:
    """Also as ONNX Runtime reads the file, so that both the file and its translation to torch are the network."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx2torch")
    path = tmp_path / "net.onnx"
    net = exported(path)
    (logits,) = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X.numpy()})
    model = find_target(str(path), DIGITS).model
    with torch.no_grad():
        assert net(X).allclose(torch.from_numpy(logits), atol=1e-4)
        assert model(X).allclose(torch.from_numpy(logits), atol=1e-4)
    assert slope(model, X).allclose(slope(net, X), atol=1e-5)


def test_an_onnx_file_that_cannot_be_translated_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnx2torch")
    path = tmp_path / "net.onnx"
    exported(path, dynamo=True)
    with pytest.raises(ValueError, match="not implemented") as caught:
        find_target(str(path), DIGITS)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_is_audited_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx2torch")
    path, out = tmp_path / "net.onnx", tmp_path / "run"
    exported(path)
    assert unmask("audit", str(path), "--data", "digits", "--eps", "0.15", "--n", "8", "--out", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"]["adaptive"]["value"] == 0
    assert unmask("verify", str(out)) == 0


def test_onnx_runtime_is_attacked_by_its_scores(tmp_path: Path) -> None:
    """What torch cannot translate is still a function of arrays."""
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    exported(path)
    factory = tmp_path / "model.py"
    factory.write_text(
        f"""import onnxruntime
session = onnxruntime.InferenceSession({str(path)!r}, providers=["CPUExecutionProvider"])
def build():
    return lambda images: session.run(None, {{"x": images}})[0]
"""
    )
    out = tmp_path / "run"
    assert runtime
    audit = ("audit", f"{factory}:build", "--data", "digits", "--eps", "0.15", "--n", "8", "--budget", "quick")
    assert unmask(*audit, "--out", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"]["adaptive"]["value"] < 0.5
