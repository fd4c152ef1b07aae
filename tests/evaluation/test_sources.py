"""Models that other libraries make, by name: their weights, in evaluation mode, on images in [0, 1]."""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.data import load
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.sources import torchvision_models
from unmask.evaluation.models.sources.fitted import Fitted
from unmask.evaluation.models.targets import find_target
from unmask.evaluation.verifying.fingerprint import fingerprint
from unmask.models.forms import ModelForm

DIGITS = load("digits", n=32)
X, Y = DIGITS.batch()
MEAN, STD = [0.3], [0.6]


class Weighted(nn.Module):
    """A linear net that wants images of a size, normalised."""

    def __init__(self, classes: int = 10, size: int = 4) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.size = size
        self.read = nn.Linear(size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, self.size, self.size)
        logits: Tensor = self.read(x.flatten(1))
        return logits


def expected() -> Tensor:
    """Of images shrunk by antialiased bilinear interpolation and normalised."""
    small = nn.functional.interpolate(X, (4, 4), mode="bilinear", antialias=True)
    logits: Tensor = Weighted()((small - 0.3) / 0.6)
    return logits


def put(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # torch looks for onnx
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> str:
    expects = SimpleNamespace(crop_size=[4], mean=MEAN, std=STD)
    weights = SimpleNamespace(transforms=lambda: expects, url="https://127.0.0.1:9/models/tiny-0123.pth")
    known = {"tiny": SimpleNamespace(DEFAULT=weights)}

    def get_model(name: str, *, weights: Any, num_classes: int = 10) -> nn.Module:
        assert weights is (None if num_classes != 10 else known[name].DEFAULT)
        return Weighted(num_classes, 4 if weights else 8)

    monkeypatch.setattr(torchvision_models, "_cached", lambda url: True)
    put(monkeypatch, "torchvision")
    put(monkeypatch, "torchvision.models", get_model_weights=known.__getitem__, get_model=get_model)
    return "torchvision:tiny"


def fake_timm(monkeypatch: pytest.MonkeyPatch) -> str:
    def create_model(name: str, *, pretrained: bool, num_classes: int = 10, in_chans: int = 1) -> nn.Module:
        assert name == "hf-hub:someone/tiny"
        return Weighted(num_classes, 4 if pretrained else 8)

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
    return "hf:someone/tiny"


@pytest.mark.parametrize("fake", [fake_torchvision, fake_timm, fake_transformers])
def test_a_pretrained_model_sees_images_as_it_was_trained_on(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target(fake(monkeypatch), DIGITS)
    assert not any(part.training for part in target.model.modules())
    assert target.model(X).allclose(expected(), atol=1e-6)
    (note,) = target.setup_findings
    assert note.where.startswith("images of 8 x 8 are resized to 4 x 4, as its ")


@pytest.mark.parametrize("fake", [fake_torchvision, fake_timm, fake_transformers])
def test_a_mean_and_a_std_replace_those_of_a_pretrained_model(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target(fake(monkeypatch), DIGITS, ExecutionConfig(form=ModelForm(mean=[0.5], std=[0.25])))
    small = nn.functional.interpolate(X, (4, 4), mode="bilinear", antialias=True)
    assert target.model(X).allclose(Weighted()((small - 0.5) / 0.25), atol=1e-6)
    with pytest.raises(ValueError, match="mean has 3 values, but the images have 1 channels: give one value for each"):
        find_target(fake(monkeypatch), DIGITS, ExecutionConfig(form=ModelForm(mean=[0.5] * 3, std=[0.25] * 3)))


def test_images_of_the_right_size_are_only_normalised() -> None:
    assert Fitted((8, 8), MEAN, STD)(X).equal((X - torch.tensor(0.3)) / torch.tensor(0.6))


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("torchvision:resnet18", "torchvision", r'it needs torchvision: pip install "unmask\[models\]"'),
        ("timm:resnet18", "timm", r'it needs timm: pip install "unmask\[models\]"'),
        ("hf:google/vit", "transformers", r'it needs transformers: pip install "unmask\[models\]"'),
        ("net.onnx", "onnx", r'it needs onnx: pip install "unmask\[onnx\]"'),
        ("robustbench:Carmon2019Unlabeled", "robustbench", r'it needs robustbench: pip install "robustbench"'),
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


def fake_robustbench(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    def load_model(model_name: str, model_dir: Path, dataset: str, threat_model: str) -> nn.Module:
        asked.append((model_name, dataset, threat_model, model_dir))
        return Small()

    put(monkeypatch, "robustbench")
    put(monkeypatch, "robustbench.utils", load_model=load_model)


def test_a_model_of_robustbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    fake_robustbench(monkeypatch, asked)
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    model = find_target("robustbench:Carmon2019Unlabeled", DIGITS).model
    assert not model.training
    assert model(X).equal(Small()(X))
    find_target("robustbench:imagenet/L2/Standard", DIGITS)
    folder = tmp_path / "robustbench"
    assert asked == [("Carmon2019Unlabeled", "cifar10", "Linf", folder), ("Standard", "imagenet", "L2", folder)]
    with pytest.raises(ValueError, match="robustbench:L2/Standard: give NAME or DATASET/THREAT/NAME"):
        find_target("robustbench:L2/Standard", DIGITS)


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("net.onnx", ModelForm(checkpoint="a"), "--checkpoint is for torchvision:NAME and timm:NAME, not for net.onnx"),
        ("case:plain-digits", ModelForm(headers=("A: b",)), "--header is for http://..., not for case:plain-digits"),
        ("timm:x", ModelForm(rate_limit=2), "--rate-limit is for http://..., not for timm:x: leave it out"),
        ("timm:x", ModelForm(num_classes=2), "--num-classes is for the weights of a file: give --checkpoint too"),
    ],
)
def test_options_of_another_kind_of_model_are_refused(name: str, form: ModelForm, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_target(name, DIGITS, ExecutionConfig(form=form))


@pytest.mark.parametrize(
    ("address", "header", "message"),
    [
        ("http://[x", "A: b", r"^http://\[x: 'http://\[x' is no address of a service: give one such as"),
        ("http://127.0.0.1:9/x", "Authorization", "--header takes NAME: VALUE, such as"),
        ("http://127.0.0.1:9/x", "A:b", r"http://127.0.0.1:9/x cannot be reached \(.*refused\)"),
    ],
)
def test_a_service_that_cannot_be_asked(address: str, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_target(address, DIGITS, ExecutionConfig(form=ModelForm(headers=(header,))))
