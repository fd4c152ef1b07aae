"""Models that other libraries make, by name: their weights, in evaluation mode, on images in [0, 1]."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.data import load
from unmask.evaluation.models.model_loaders import Fitted
from unmask.evaluation.models.targets import find_target
from unmask.evaluation.verifying.fingerprint import fingerprint

DIGITS = load("digits", n=32)
X, Y = DIGITS.batch()
MEAN, STD = [0.3], [0.6]


class Weighted(nn.Module):
    """A linear net that wants images of 4x4, normalised."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.read = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, 4, 4)
        logits: Tensor = self.read(x.flatten(1))
        return logits


def expected() -> Tensor:
    """Of images shrunk by antialiased bilinear interpolation and normalised."""
    small = nn.functional.interpolate(X, (4, 4), mode="bilinear", antialias=True)
    logits: Tensor = Weighted()((small - 0.3) / 0.6)
    return logits


def put(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> str:
    weights = SimpleNamespace(transforms=lambda: SimpleNamespace(crop_size=[4], mean=MEAN, std=STD))
    known = {"tiny": SimpleNamespace(DEFAULT=weights)}

    def get_model(name: str, *, weights: Any) -> nn.Module:
        assert weights is known[name].DEFAULT
        return Weighted()

    put(monkeypatch, "torchvision")
    put(monkeypatch, "torchvision.models", get_model_weights=known.__getitem__, get_model=get_model)
    return "torchvision:tiny"


def fake_timm(monkeypatch: pytest.MonkeyPatch) -> str:
    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        assert (name, pretrained) == ("hf-hub:someone/tiny", True)
        return Weighted()

    data = SimpleNamespace(
        resolve_model_data_config=lambda net: {"input_size": (1, 4, 4), "mean": tuple(MEAN), "std": tuple(STD)}
    )
    put(monkeypatch, "timm", create_model=create_model, data=data)
    return "timm:hf-hub:someone/tiny"


class Answers(Weighted):
    """Answers as transformers do."""

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(logits=super().forward(pixel_values), loss=None)


def fake_transformers(monkeypatch: pytest.MonkeyPatch) -> str:
    processor = SimpleNamespace(
        size={"shortest_edge": 5},
        do_center_crop=True,
        crop_size={"height": 4, "width": 4},
        do_normalize=True,
        image_mean=MEAN,
        image_std=STD,
    )
    put(
        monkeypatch,
        "transformers",
        AutoImageProcessor=SimpleNamespace(from_pretrained={"someone/tiny": processor}.__getitem__),
        AutoModelForImageClassification=SimpleNamespace(from_pretrained=lambda name: Answers()),
    )
    return "hub:someone/tiny"


@pytest.mark.parametrize("fake", [fake_torchvision, fake_timm, fake_transformers])
def test_a_pretrained_model_sees_images_as_it_was_trained_on(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target(fake(monkeypatch), DIGITS)
    assert not any(part.training for part in target.model.modules())
    assert target.model(X).allclose(expected(), atol=1e-6)


def test_images_of_the_right_size_are_only_normalised() -> None:
    assert Fitted((8, 8), MEAN, STD)(X).equal((X - torch.tensor(0.3)) / torch.tensor(0.6))


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("torchvision:resnet18", "torchvision", r'it needs torchvision: pip install "unmask\[models\]"'),
        ("timm:resnet18", "timm", r'it needs timm: pip install "unmask\[models\]"'),
        ("hub:google/vit", "transformers", r'it needs transformers: pip install "unmask\[models\]"'),
        ("net.onnx", "onnx2torch", r'it needs onnx2torch: pip install "unmask\[onnx\]"'),
    ],
)
def test_an_optional_library_that_is_absent(
    name: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
        find_target(name, DIGITS)
    assert "\n" not in str(caught.value)


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"timm:x: timm cannot be imported \(operator torchvision::nms does not"):
        find_target("timm:x", DIGITS)


def test_a_name_that_the_library_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(monkeypatch)
    with pytest.raises(ValueError, match="torchvision:nope fails: KeyError: 'nope'"):
        find_target("torchvision:nope", DIGITS)


class Small(nn.Module):
    """A linear net of the whole image that rounds it first."""

    def __init__(self) -> None:
        super().__init__()
        x, y = load("digits", "train").batch()
        mean = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
        self.read = nn.Linear(64, 10)
        self.read.weight.data, self.read.bias.data = 2 * mean, -(mean**2).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.read(torch.round(4 * x.flatten(1)) / 4)
        return logits


def export(path: Path, batch: int, *, any_number: bool) -> nn.Module:
    net = Small().eval()
    shapes = ({0: torch.export.Dim("batch")},) if any_number else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (X[:batch],), dynamic_shapes=shapes), path)
    return net


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, while it copies what it exported
class TestExported:
    @pytest.mark.parametrize(("batch", "any_number"), [(2, True), (1, False), (3, False)])
    def test_it_takes_any_number_of_images(self, tmp_path: Path, batch: int, any_number: bool) -> None:
        net = export(tmp_path / "net.pt2", batch, any_number=any_number)
        model = find_target(f"{tmp_path}/net.pt2", DIGITS).model
        assert not any(part.training for part in model.modules())
        assert model(X).allclose(net(X), atol=1e-5)
        x = X.clone().requires_grad_()
        assert model(x).sum() is not None
        assert find_target(f"pt2:{tmp_path}/net.pt2", DIGITS).model(X).equal(model(X))

    def test_its_rounding_is_found(self, tmp_path: Path) -> None:
        export(tmp_path / "net.pt2", 2, any_number=True)
        model = find_target(f"{tmp_path}/net.pt2", DIGITS).model
        report = unmask.audit(model, DIGITS, unmask.Linf(0.15), n=16, budget="quick")
        assert [finding.kind for finding in report.findings] == ["shattered"]
        assert "round" in report.findings[0].where
        assert report.accuracy.plain is not None
        assert report.accuracy.plain.value > 0.5 > report.accuracy.adaptive.value
        assert report.lint == ()

    def test_its_file_is_part_of_the_fingerprint(self, tmp_path: Path) -> None:
        name = f"{tmp_path}/net.pt2"
        codes = []
        for batch in (1, 3):
            export(tmp_path / "net.pt2", batch, any_number=False)
            codes.append(fingerprint(name, nn.Flatten(), DIGITS, 4)["code"])
        assert codes[0] != codes[1]
        assert fingerprint(f"pt2:{name}", nn.Flatten(), DIGITS, 4)["code"] == codes[1]

    @pytest.mark.parametrize(
        ("text", "message"), [(None, r"net\.pt2: no file .*net\.pt2"), ("junk", r"net\.pt2 fails: ")]
    )
    def test_a_file_that_is_none(self, tmp_path: Path, text: str | None, message: str) -> None:
        if text is not None:
            (tmp_path / "net.pt2").write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            find_target(f"{tmp_path}/net.pt2", DIGITS)
        assert "\n" not in str(caught.value)


class OfOne(Small):
    """A net that reshapes to the batch that it was written with."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(1, 1, 8, 8))


@pytest.mark.parametrize(("batch", "net"), [(1, OfOne), (0, Small)])
@pytest.mark.parametrize("prefix", ["", "onnx:"])
def test_an_onnx_file(
    batch: int, net: type[nn.Module], prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")

    def put_in(name: str, size: int) -> Any:
        shape = SimpleNamespace(dim=[SimpleNamespace(dim_value=size)])
        return SimpleNamespace(name=name, type=SimpleNamespace(tensor_type=SimpleNamespace(shape=shape)))

    graph = SimpleNamespace(
        initializer=[SimpleNamespace(name="weight")], input=[put_in("weight", 64), put_in("images", batch)]
    )
    put(monkeypatch, "onnx", load={str(path): types.SimpleNamespace(graph=graph)}.__getitem__)
    put(monkeypatch, "onnx2torch", convert={str(path): net()}.__getitem__)
    target = find_target(f"{prefix}{path}", DIGITS)
    assert not target.model.training
    assert target.model(X).allclose(Small()(X), atol=1e-5)
    assert fingerprint(f"{prefix}{path}", target.model, DIGITS, 4)["code"] is not None
