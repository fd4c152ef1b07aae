from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unmask.weights import load_weights, origin, save_weights


def net(seed: int, hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, hidden), nn.Linear(hidden, 2)
    )
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    norm.num_batches_tracked.fill_(70_001)  # more than half precision can count
    norm.running_mean.uniform_()
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(net(0), path)
    return path


def test_half_precision_round_trip(saved: Path) -> None:
    original, model = net(0), net(1)
    load_weights(model, saved)
    for name, value in model.state_dict().items():
        true = original.state_dict()[name]
        assert value.dtype == true.dtype
        assert torch.equal(value, true.half().float() if true.is_floating_point() else true), name
    x = torch.rand(3, 1, 4, 4)
    assert torch.allclose(model.eval()(x), original.eval()(x), atol=5e-3)


def test_files_hold_half_precision(saved: Path) -> None:
    kinds = {name: tensor.dtype for name, tensor in load_file(saved).items()}
    assert kinds.pop("1.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}


def test_saving_again_changes_nothing(saved: Path) -> None:
    model = net(1)
    load_weights(model, saved)
    again = saved.with_name("again.safetensors")
    save_weights(model, again)
    assert again.read_bytes() == saved.read_bytes()


def test_channels_last_weights_are_the_same_weights(saved: Path) -> None:
    model = net(0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = saved.with_name("other.safetensors")
    save_weights(model, other)
    assert other.read_bytes() == saved.read_bytes()


def refusal(model: nn.Module, path: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_weights(model, path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_missing_files(tmp_path: Path) -> None:
    assert "no weights at" in refusal(net(0), tmp_path / "absent.safetensors")
    assert "unmask train absent" in refusal(net(0), tmp_path / "absent.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "no weights at" in refusal(net(0), tmp_path / "folder.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_files(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    assert "is not a readable safetensors file" in refusal(net(0), saved)


def test_damaged_files(saved: Path) -> None:
    raw = bytearray(saved.read_bytes())
    raw[8:12] = b"\xff\xfe\xfd\xfc"
    saved.write_bytes(raw)
    assert "is not a readable safetensors file" in refusal(net(0), saved)
    saved.write_text("<html>\nnot found\n</html>")
    assert "is not a readable safetensors file" in refusal(net(0), saved)


def test_weights_of_another_model(saved: Path) -> None:
    assert "holds weights of another model: size mismatch for 5.weight" in refusal(net(0, hidden=7), saved)
    assert "Unexpected key" in refusal(nn.Sequential(nn.Conv2d(1, 4, 3)), saved)
    assert "holds weights of another model" in refusal(nn.Sequential(*net(0), nn.Linear(2, 2)), saved)


class Parts(nn.Module):
    """Names that begin alike."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.heads, self.bias = net(seed), nn.Linear(3, 2), nn.Parameter(torch.rand(2))


def test_a_part_that_is_left_out_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "parts.safetensors"
    save_weights(Parts(0), path, without="head")
    assert load_file(path).keys() == {"heads.weight", "heads.bias", "bias"}


@pytest.mark.parametrize("saved_without", ["", "head"])
def test_a_part_that_is_left_out_keeps_its_own_weights(saved_without: str, tmp_path: Path) -> None:
    """To the bit, also where the file has some for it."""
    path = tmp_path / "parts.safetensors"
    save_weights(Parts(0), path, without=saved_without)
    model, own, stored = Parts(1), Parts(1).state_dict(), Parts(0).state_dict()
    load_weights(model, path, without="head")
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("head.") else stored[name].half().float()), name


def test_a_file_without_a_part_is_refused_where_the_part_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "parts.safetensors"
    save_weights(Parts(0), path, without="head")
    assert "holds weights of another model: Missing key" in refusal(Parts(0), path)
    save_weights(Parts(0).head, path)
    with pytest.raises(ValueError, match="holds weights of another model: "):
        load_weights(Parts(0), path, without="head")  # what is left must be there, and nothing else


def test_the_origin_of_weights_is_what_their_file_says_on_one_line(saved: Path, tmp_path: Path) -> None:
    assert origin(saved) == ""
    save_file({"a": torch.zeros(1)}, tmp_path / "told.safetensors", metadata={"source": "somewhere,\n  int8"})
    assert origin(tmp_path / "told.safetensors") == "somewhere, int8"
    (tmp_path / "torn.safetensors").write_bytes(b"nothing")
    for name in ("torn", "none"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is not a readable safetensors file") as error:
            origin(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)
