"""Models that real libraries make and real files hold, through `unmask.load_model`'s names, against the original."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.commands import unmask
from unmask.attacking import run_attack
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import find_target
from unmask.models.forms import ModelForm
from unmask.network import hubs
from unmask.threats import Linf

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
    return f"hf:{folder}", lambda: net(pixel_values=(enlarged(16) - 0.3) / 0.6).logits


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


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_weights_of_the_user_in_an_architecture_of_a_library(library: str, tmp_path: Path) -> None:
    """Saved from data parallel training; another number of classes is one line."""
    path = tmp_path / "net.pt"
    if library == "timm":
        name, channels = "resnet10t", 1
        net = pytest.importorskip("timm").create_model(name, num_classes=10, in_chans=1).eval()
    else:
        name, channels = "shufflenet_v2_x0_5", 3
        net = pytest.importorskip("torchvision.models").shufflenet_v2_x0_5(num_classes=10).eval()
    weights = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, path)
    images = replace(DIGITS, images=DIGITS.images.expand(-1, channels, -1, -1))
    form = ModelForm(mean=[0.5] * channels, std=[0.25] * channels, checkpoint=str(path), num_classes=10)
    target = find_target(f"{library}:{name}", images, ExecutionConfig(form=form))
    x, _ = images.batch()
    with torch.no_grad():
        assert target.model(x).allclose(net((x - 0.5) / 0.25), atol=1e-4)
    assert [note.where for note in target.setup_findings] == [
        "net.pt: the weights are those of 'state_dict'; it also has 'epoch'",
        "net.pt: names of weights are taken without 'module.'",
    ]
    with pytest.raises(
        ValueError, match=rf"does not fit {name}: fc.weight is \(10, \d+\) in the file and \(12, "
    ) as caught:
        find_target(f"{library}:{name}", images, ExecutionConfig(form=replace(form, num_classes=12)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "transformers", "torchvision"])
def test_a_hub_that_cannot_be_reached_is_one_line_within_seconds(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and never answers; the libraries themselves wait for minutes. Their caches are empty."""
    imported = pytest.importorskip(library)
    assert library != "transformers" or imported.AutoImageProcessor  # which is imported when it is first named
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr(hubs, "HUGGING_FACE", address)
    if library == "torchvision":
        weights = pytest.importorskip("torchvision.models").get_model_weights("shufflenet_v2_x0_5").DEFAULT
        monkeypatch.setattr(type(weights), "url", f"{address}/net.pth")
    names = {"timm": "timm:resnet10t.c3_in1k", "transformers": "hf:nobody/unmask-no-such-model"}
    name = names.get(library, "torchvision:shufflenet_v2_x0_5")
    begun = time.monotonic()
    with (
        silent,
        pytest.raises(ValueError, match=rf"{name}: 127.0.0.1:\d+ cannot be reached .* was not downloaded") as caught,
    ):
        find_target(name, DIGITS)
    assert time.monotonic() - begun < 5
    assert "\n" not in str(caught.value)


def exported(path: Path, dynamo: bool = False, many: bool = True, net: nn.Module | None = None) -> nn.Module:
    """The plain network of the digits, or another, written by torch's older or newer exporter."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    net = net or find_case("plain-digits").load()
    number: dict[str, Any] = {"dynamic_shapes": ({0: "n"},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    options: dict[str, Any] = {"opset_version": 18, "external_data": False} if dynamo else {}
    images = X[:2] if many else X[:1]
    torch.onnx.export(net, (images,), path, dynamo=dynamo, input_names=["x"], **options, **(number if many else {}))
    return net


def need_converters() -> Any:
    """onnxruntime, where the libraries that translate ONNX are installed too."""
    pytest.importorskip("onnxslim")
    pytest.importorskip("onnx2pytorch")
    return pytest.importorskip("onnxruntime")


class Pooled(nn.Module):
    """A convolutional network of the digits that ends with a mean over places, as residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(self.body(x), 1).flatten(1))
        return logits


def pooled() -> nn.Module:
    """Trained for some seconds, so that it classifies most digits."""
    net, (x, y) = Pooled(), load("digits", "train").batch()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(150):
        rows = torch.arange(step * 64, step * 64 + 64) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


def paddle(path: Path) -> nn.Module:
    """A net as PaddlePaddle writes it: opset 11, weights as Constant nodes, any number of images as -1, a Split without
    sizes, a softmax and an Identity at its end; and the same in torch.
    """
    onnx = pytest.importorskip("onnx")
    net = find_case("plain-digits").load()
    weights = [part for part in net if isinstance(part, nn.Conv2d | nn.Linear)]  # type: ignore[attr-defined]
    put, nodes, last = onnx.helper.make_node, [], "x"
    flat = False
    for place, part in enumerate(net):  # type: ignore[arg-type, var-annotated]
        made = f"t{place}"
        names = [f"{made}_{name}" for name, _ in part.named_parameters()]
        for name, (_, value) in zip(names, part.named_parameters(), strict=True):
            nodes.append(put("Constant", [], [name], value=onnx.numpy_helper.from_array(value.detach().numpy(), name)))
        match part:
            case nn.Conv2d():
                stride, pad = [*part.stride], [*part.padding] * 2
                nodes.append(put("Conv", [last, *names], [made], strides=stride, pads=pad))
            case nn.Linear():
                nodes.append(put("Gemm", [last, *names], [made], transB=1))
            case nn.ReLU():
                nodes.append(put("Relu", [last], [made]))
            case nn.Flatten():
                flat = True
                nodes.append(put("Flatten", [last], [made]))
        last = made
    assert flat
    assert weights
    nodes += [put("Split", [last], ["left", "right"], axis=1), put("Concat", ["left", "right"], ["both"], axis=1)]
    nodes += [put("Softmax", ["both"], ["p"], axis=1), put("Identity", ["p"], ["y"])]
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(*one) for one in (("x", kind, [-1, 1, 8, 8]), ("y", kind, [-1, 10]))]
    graph = onnx.helper.make_graph(nodes, "paddle", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8), path)
    return net


def test_onnx_files_as_they_are_shipped_answer_and_have_the_gradient_of_their_network(tmp_path: Path) -> None:
    """Torch's older and newer exporter (opset 18, axes of a mean as an input, reshapes that allow 0), for any number of
    images and for one; PaddlePaddle. Compared with ONNX Runtime on the file too.
    """
    runtime = need_converters()
    path = tmp_path / "net.onnx"
    writers: dict[str, Callable[[], nn.Module]] = {
        "older": lambda: exported(path),
        "newer": lambda: exported(path, dynamo=True),
        "newer, one image": lambda: exported(path, dynamo=True, many=False),
        "newer, mean": lambda: exported(path, dynamo=True, net=Pooled().eval()),
        "PaddlePaddle": lambda: paddle(path),
    }
    for name, write in writers.items():
        net = write()
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        rows = X if "one image" not in name else X[:1]
        (answer,) = session.run(None, {"x": rows.numpy()})
        target = find_target(str(path), DIGITS)
        with torch.no_grad():
            own, found = net(rows), target.model(X)[: len(rows)]
            assert found.allclose(own, atol=1e-4), name
            ends = name == "PaddlePaddle"
            assert (found.softmax(1) if ends else found).allclose(torch.from_numpy(answer), atol=1e-4), name
        assert slope(target.model, X).allclose(slope(net, X), atol=1e-4), name
        said = ["the softmax at its end is left out, since logits are wanted"] if ends else []
        assert [note.where for note in target.setup_findings] == said, name


def test_an_onnx_file_is_attacked_with_its_gradient_from_the_command_line(tmp_path: Path) -> None:
    """The attack leaves as much of the file as of its network, which has no defense."""
    need_converters()
    attack = ("--data", "digits", "--eps", "0.15", "--n", "64", "--steps", "30")
    x, y = load("digits", n=64).batch()
    writers: dict[str, Callable[[Path], nn.Module]] = {
        "mean": lambda path: exported(path, dynamo=True, net=pooled()),
        "paddle": paddle,
    }
    for name, write in writers.items():
        path, out = tmp_path / f"{name}.onnx", tmp_path / name
        net = write(path)
        assert unmask("attack", str(path), *attack, "--out", str(out)) == 0
        (case,) = json.loads((out / "report.json").read_text())["rows"]
        with torch.no_grad():
            clean = float((net(x).argmax(1) == y).double().mean())
        own = run_attack(APGD(30), net, x, y, Linf(0.15)).accuracy.value
        assert case["clean"]["value"] == clean > 0.9
        assert abs(case["plain"]["value"] - own) < 0.04
        assert case["plain"]["value"] < 0.1


def test_an_onnx_file_is_audited_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_converters()
    path, out = tmp_path / "net.onnx", tmp_path / "run"
    exported(path, dynamo=True)
    assert unmask("audit", str(path), "--data", "digits", "--eps", "0.15", "--n", "8", "--out", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"]["adaptive"]["value"] == 0
    assert report["masking"] != "masked"
    assert unmask("verify", str(out)) == 0


class Rounded(nn.Module):
    """The plain network of the digits behind a rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.net = find_case("plain-digits").load()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(torch.round(x * 4) / 4)
        return logits


def test_rounding_in_an_onnx_file_is_found_to_mask_its_gradient(tmp_path: Path) -> None:
    need_converters()
    path, out = tmp_path / "net.onnx", tmp_path / "run"
    exported(path, dynamo=True, net=Rounded().eval())
    audit = ("audit", str(path), "--data", "digits", "--eps", "0.15", "--n", "16", "--budget", "quick")
    assert unmask(*audit, "--out", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["masking"] == "masked"
    assert report["accuracy"]["plain"]["value"] > 0.5 > report["accuracy"]["adaptive"]["value"]
    assert [finding["kind"] for finding in report["findings"]] == ["shattered"]


def test_an_operation_without_a_translation_leaves_onnx_runtime_and_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The translator is made to lack an operation, as it lacks those of other domains."""
    need_converters()
    converter = pytest.importorskip("onnx2pytorch")
    path, out = tmp_path / "net.onnx", tmp_path / "run"
    net = paddle(path)

    def lacking(model: Any) -> nn.Module:
        raise NotImplementedError("Conversion not implemented for op_type=Odd")

    monkeypatch.setattr(converter, "ConvertModel", lacking)
    target = find_target(str(path), DIGITS)
    with torch.no_grad():
        assert target.model(X).logits.allclose(net(X).log_softmax(1), atol=1e-3)
    audit = ("audit", str(path), "--data", "digits", "--eps", "0.15", "--n", "8", "--budget", "quick")
    assert unmask(*audit, "--out", str(out)) == 0
    said = (
        "ONNX Runtime runs it, so that only its scores can be attacked: it cannot be translated to torch "
        "(NotImplementedError: Conversion not implemented for op_type=Odd)"
    )
    report = json.loads((out / "report.json").read_text())
    assert said in [finding["where"] for finding in report["lint"]]
    assert report["accuracy"]["adaptive"]["value"] < 0.5
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_translation_that_answers_otherwise_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_converters()
    converter = pytest.importorskip("onnx2pytorch")
    path = tmp_path / "net.onnx"
    exported(path)
    other = nn.Sequential(find_case("plain-digits").load(), nn.Softsign())
    monkeypatch.setattr(converter, "ConvertModel", lambda model: other)
    (note,) = find_target(str(path), DIGITS).setup_findings
    assert "its translation to torch differs from ONNX Runtime by " in note.where
