"""Models of another form compute what they did, on images (B, C, H, W) in [0, 1] and with logits (B, K)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.bpda import bpda
from unmask.models.forms import (
    ModelForm,
    in_form,
    select_output,
    takes,
    two_classes,
    under_default_dtype,
    with_script_parts,
)
from unmask.state.deep_copy import deep_copy
from unmask.types import InvalidModelOutput, Output, as_output

X = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))


class Last(nn.Module):
    """Weighs pixels of (B, H, W, C) from 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(72, 2)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (4, 6, 3)
        answer: Tensor = self.head(x.flatten(1) / 255)
        return answer


def test_another_layout_and_range() -> None:
    model = Last()
    adapted = takes(model, channels_last=True, pixel_max=255)
    assert torch.allclose(adapted(X), model.head(X.permute(0, 2, 3, 1).flatten(1)), atol=1e-6)
    assert [path for path, _ in adapted.named_modules()] == ["", "head"]
    assert torch.equal(bpda("head", lambda h: h[:, :2])(adapted)(X), adapted(X))  # a view finds its parts


def test_a_mean_and_a_std_come_after_the_range_and_before_the_layout() -> None:
    mean, std = (124.0, 116.0, 104.0), (58.0, 57.0, 56.0)
    model = Last()
    normal = torch.stack([(255 * X[:, c] - mean[c]) / std[c] for c in range(3)], 3)
    form = ModelForm(channels_last=True, pixel_max=255, mean=mean, std=std)
    assert torch.allclose(in_form(model, form)(X), model(normal), atol=1e-5)
    x = X.clone().requires_grad_()
    in_form(nn.Flatten(), ModelForm(mean=mean, std=std))(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad[0, :, 0, 0], 1 / torch.tensor(std))
    assert in_form(model, ModelForm(output="logits")) is model


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [], "mean has 1 values and std has 0: give both, with a value for each channel"),
        ([0.5] * 2, [0.0, 1.0], "std takes positive numbers, such as 0.229, 0.224, 0.225"),
        ([0.5] * 2, [0.2, float("nan")], "std takes positive numbers"),
        ([0.5], [0.2], "mean has 1 value, but the images have 3 channels: give one value for each"),
        ([0.5] * 4, [0.2] * 4, "mean has 4 values, but the images have 3 channels: give one value for each"),
    ],
)
def test_a_mean_or_a_std_that_is_none(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_form(nn.Flatten(), ModelForm(mean=mean, std=std))(X)


def test_a_run_stores_the_form_without_the_headers() -> None:
    form = ModelForm(mean=(0.5,), std=(0.25,), headers=("Authorization: Bearer 7",), rate_limit=2.0)
    stored = json.loads(json.dumps(form.stored()))
    assert stored == form.stored()
    assert "7" not in repr(form) + str(stored)
    assert ModelForm(**stored) == replace(form, headers=(), mean=[0.5], std=[0.25])


def test_another_type_reaches_the_images() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).double()
    x = X.clone().requires_grad_()
    takes(model, dtype=torch.float64)(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad.flatten(1)[0], model[1].weight[0].float())  # type: ignore[index]


class Several(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"boxes": x.flatten(1)[:, :4], "scores": x.flatten(1)[:, :3]}


def test_one_output_of_several() -> None:
    assert torch.equal(select_output(Several(), "scores")(X), X.flatten(1)[:, :3])
    pair = select_output(nn.Identity(), 1)
    assert torch.equal(pair((X, X + 1)), X + 1)
    assert torch.equal(select_output(nn.Identity(), "1")((X, X + 1)), X + 1)  # as the command line gives it
    with pytest.raises(InvalidModelOutput, match="no 'logits', but boxes, scores"):
        select_output(Several(), "logits")(X)
    with pytest.raises(InvalidModelOutput, match="no 2, but 0, 1: choose"):
        select_output(nn.Identity(), 2)((X, X))


def test_outputs_by_field_name() -> None:
    @dataclass
    class Found:
        boxes: Tensor
        scores: Tensor

    class Named(NamedTuple):
        boxes: Tensor
        scores: Tensor

    for kind in (Found, Named):
        answer = kind(X, X + 1)
        assert torch.equal(select_output(nn.Identity(), "scores")(answer), X + 1)
        with pytest.raises(InvalidModelOutput, match=r"boxes: .*, scores: .*: name the logits with --output boxes"):
            as_output(answer)


def test_an_output_is_a_copy_of_a_buffer_that_a_model_uses_again() -> None:
    buffer = torch.zeros(5, 3)
    first = as_output(buffer, 5).logits
    buffer += 1
    assert first.max() == 0


@pytest.mark.parametrize(
    "reject",
    [np.array([True, False]), np.array([0.5, -0.5]), [True, False], (0.5, -0.5), torch.tensor([True, False])],
)
def test_a_refusal_may_be_an_array_or_a_list(reject: Any) -> None:
    """It was left out, without a word, unless it was a tensor."""
    for answer in (Output(torch.zeros(2, 3), reject), {"logits": torch.zeros(2, 3), "reject": reject}):
        found = as_output(answer, 2).reject
        assert found is not None
        assert (found > 0).tolist() == [True, False]
        assert found.dtype == torch.float32


@pytest.mark.parametrize("reject", ["no", [None, None], object(), np.array([1, 0])])
def test_a_refusal_that_cannot_be_read_is_an_error(reject: Any) -> None:
    with pytest.raises(InvalidModelOutput, match="`reject` is"):
        as_output(Output(torch.zeros(2, 3), reject))


def test_outputs_that_cannot_be_logits() -> None:
    good = torch.zeros(5, 3)
    assert as_output({"logits": good, "reject": torch.zeros(5)}, 5).reject is not None
    assert as_output((good, None), 5).reject is None
    for answer, words in (
        ((good, good), "a tuple of 0: (5, 3), 1: (5, 3): name the logits with --output 0"),
        ((good, torch.zeros(5)), "return unmask.Output(logits, reject), if the second refuses images"),
        ((good, [good]), "a tuple of 0: (5, 3), 1: list: name the logits"),
        (Output(good, torch.zeros(5).long()), "`reject` is torch.int64"),
        ({"boxes": good}, "a dict of boxes: (5, 3): name the logits"),
        (torch.zeros(5), "shape (5,) to 5 images: return logits (batch, classes); unmask.two_classes(model)"),
        (torch.zeros(3, 3), "shape (3, 3) to 5 images"),
        (torch.zeros(5, 3, 1), "shape (5, 3, 1) to 5 images"),
        ({"logits": good, "reject": torch.zeros(4)}, "`reject` holds 4 margins of refusal for 5 images"),
        ("cat", "answers a str"),
    ):
        with pytest.raises(InvalidModelOutput) as error:
            as_output(answer, 5)
        assert words in str(error.value)


@pytest.mark.parametrize("column", [True, False])
def test_one_logit_makes_two_classes(column: bool) -> None:
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 9 * x.flatten(1).mean(1, keepdim=True) - 4.5 if column else 9 * x.flatten(1).mean(1) - 4.5

    z = 9 * X.flatten(1).mean(1) - 4.5
    logits = two_classes(Bright())(X)
    assert torch.allclose(logits.softmax(1)[:, 1], z.sigmoid())
    assert torch.allclose(two_classes(nn.Sigmoid(), probability=True)(z)[:, 1], z.sigmoid())
    assert torch.equal(two_classes(nn.Sigmoid(), probability=True)(z).argmax(1), (z > 0).long())


def test_a_default_type_holds_for_the_model_alone_and_in_copies_of_it() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ torch.ones(72, 2)  # of the default type

    with pytest.raises(RuntimeError):
        Noisy()(X.double())
    model = under_default_dtype(Noisy(), torch.float64)
    assert model(X.double()).dtype == torch.float64
    assert deep_copy(model)(X.double()).dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32


def test_script_parts_compute_what_they_did_and_have_hooks() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    whole, path = with_script_parts(torch.jit.trace(net, X))
    model = nn.Sequential(nn.Identity(), torch.jit.script(net))
    part, paths = with_script_parts(model)
    assert (path, paths) == ([""], ["1"])
    assert with_script_parts(net) == (net, [])
    for adapted in (whole, part, deep_copy(part)):
        seen: list[Tensor] = []
        adapted.register_forward_hook(lambda module, args, answer, seen=seen: seen.append(answer))
        assert torch.equal(adapted(X), net(X))
        assert torch.equal(seen[0], net(X))
    assert isinstance(model[1], torch.jit.ScriptModule)  # the given one stays as it is


@dataclass
class Wrong:
    logits: Tensor
    rejected: Tensor
    loss: Tensor | None = None


class WrongTuple(NamedTuple):
    logits: Tensor
    rejected: Tensor


@pytest.mark.parametrize(
    "make", [dict, Wrong, WrongTuple, SimpleNamespace], ids=["mapping", "dataclass", "named tuple", "attributes"]
)
@pytest.mark.parametrize("margin", [torch.ones(5), torch.ones(5, 1), torch.ones(5, dtype=torch.bool)])
def test_a_margin_of_refusal_by_a_wrong_name_is_not_overlooked(make: Any, margin: Tensor) -> None:
    z = torch.zeros(5, 3)
    with pytest.raises(
        InvalidModelOutput, match=r"answers 'rejected', a number for each image, .*: name it `reject`, if"
    ):
        as_output(make(logits=z, rejected=margin))
    assert as_output(select_output(nn.Identity(), "logits")(make(logits=z, rejected=margin)), 5).reject is None


def test_other_tensors_beside_logits_are_no_margins() -> None:
    z = torch.zeros(5, 3)
    for name, value in {"loss": torch.tensor(1.0), "features": torch.ones(5, 7), "labels": z.argmax(1)}.items():
        assert as_output({"logits": z, name: value}).reject is None
    both = as_output({"logits": z, "reject": torch.ones(5), "confidence": torch.ones(5)})
    assert both.reject is not None
