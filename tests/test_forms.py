"""Models of another form compute what they did, on images (B, C, H, W) in [0, 1] and with logits (B, K)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.bpda import bpda
from unmask.models.forms import select_output, takes, two_classes, under_default_dtype, with_script_parts
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
