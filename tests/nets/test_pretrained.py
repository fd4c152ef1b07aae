"""Google's MobileNetV2 on the Hugging Face hub, transcribed from its names, beside what is made of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.commands import unmask
from unmask.nets import mobilenet_v2
from unmask.weights import load_weights, origin
from unmask.weights.mobilenet import make_mobilenet_v2

EPS = 0.001
# expansion, channels, repeats, stride: the first block is the end of the stem
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def blocks() -> list[tuple[str, int, int, int, int]]:
    """Name, channels before, inside and after, and stride of each block."""
    found: list[tuple[str, int, int, int, int]] = []
    before = 32
    for expansion, channels, repeats, stride in STAGES:
        for i in range(repeats):
            name = "conv_stem" if not found else f"layer.{len(found) - 1}"
            found.append((name, before, expansion * before, channels, stride if i == 0 else 1))
            before = channels
    return found


def checkpoint() -> dict[str, Tensor]:
    """Random weights under the names of ``MobileNetV2ForImageClassification``, 1001 classes."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = {}

    def layer(name: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3]
        state[f"mobilenet_v2.{name}.convolution.weight"] = torch.randn(shape) * (2 / fan) ** 0.5
        for part in ("weight", "running_var"):
            state[f"mobilenet_v2.{name}.normalization.{part}"] = torch.rand(shape[0]) + 0.5
        for part in ("bias", "running_mean"):
            state[f"mobilenet_v2.{name}.normalization.{part}"] = torch.randn(shape[0]) / 10
        state[f"mobilenet_v2.{name}.normalization.num_batches_tracked"] = torch.tensor(7)

    layer("conv_stem.first_conv", 32, 3, 3, 3)
    for name, before, inside, after, _ in blocks():
        if inside > before:
            layer(f"{name}.expand_1x1", inside, before, 1, 1)
        layer(f"{name}.conv_3x3", inside, 1, 3, 3)
        layer(f"{name}.reduce_1x1", after, inside, 1, 1)
    layer("conv_1x1", 1280, 320, 1, 1)
    state["classifier.weight"], state["classifier.bias"] = torch.randn(1001, 1280), torch.randn(1001)
    return state


def theirs(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits (B, 1001) of images in [-1, 1], with even sides: what stride 2 lacks is padded right and below."""

    def layer(name: str, h: Tensor, stride: int = 1, *, active: bool = True) -> Tensor:
        weight = state[f"mobilenet_v2.{name}.convolution.weight"]
        if weight.shape[-1] == 3:
            h = F.pad(h, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        h = F.conv2d(h, weight, stride=stride, groups=1 if weight.shape[1] > 1 else h.shape[1])
        mean, var, scale, bias = (
            state[f"mobilenet_v2.{name}.normalization.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        h = F.batch_norm(h, mean, var, scale, bias, eps=EPS)
        return F.relu6(h) if active else h

    h = layer("conv_stem.first_conv", x, 2)
    for name, before, inside, after, stride in blocks():
        wide = layer(f"{name}.expand_1x1", h) if inside > before else h
        new = layer(f"{name}.reduce_1x1", layer(f"{name}.conv_3x3", wide, stride), active=False)
        h = h + new if stride == 1 and before == after else new
    h = layer("conv_1x1", h).mean((2, 3))
    return F.linear(h, state["classifier.weight"], state["classifier.bias"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(checkpoint(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_same_function_without_the_background_class(file: Path, tmp_path: Path) -> None:
    made = tmp_path / "weights" / "mobilenet_v2.safetensors"
    make_mobilenet_v2(file, made)
    net = mobilenet_v2().eval()
    load_weights(net, made)
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(checkpoint(), 2 * x - 1)[:, 1:], net(x)
    assert expected.std() > 1
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert origin(made).startswith("google/mobilenet_v2_1.0_224 on the Hugging Face hub, float32")
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds weights of another model: no 'mobilenet_v2.conv_stem"):
        make_mobilenet_v2(tmp_path / "other.safetensors", tmp_path / "made.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"torn.safetensors is not a readable safetensors file") as error:
        make_mobilenet_v2(tmp_path / "torn.safetensors", tmp_path / "made.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made.safetensors").exists()


def test_the_command_puts_the_file_where_cases_look_and_replaces_none(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    made = tmp_path / "weights" / "mobilenet_v2.safetensors"
    assert unmask("fetch", "mobilenet_v2", "--checkpoint", str(file)) == 0
    assert capsys.readouterr().out == f"Weights: {made}\n"
    before = made.read_bytes()
    assert unmask("fetch", "mobilenet_v2", "--checkpoint", str(file)) == 2
    assert "is there already: delete it first" in capsys.readouterr().err
    assert made.read_bytes() == before
    assert unmask("fetch", "resnet") == 2
    assert "nothing to fetch under 'resnet'; there is: mobilenet_v2" in capsys.readouterr().err
