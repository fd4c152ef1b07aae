from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.bpda import bpda
from unmask.gradients.functions import bpda_function
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.gradients.straight_through import straight_through

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(1))


class Weigh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ WEIGHT
        return torch.stack([score, -score], 1)


class ByNumpy(nn.Module):
    """Rounds outside of torch, and answers with a hard label outside of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Weigh()

    def forward(self, x: Tensor) -> Tensor:
        coarse = torch.from_numpy((4 * x.detach().numpy()).round() / 4)
        logits = self.net(coarse)
        return torch.from_numpy(logits.detach().numpy() > 0).float() if logits.requires_grad else logits


def slope(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    answer = model(x)
    (gradient,) = torch.autograd.grad(answer[:, 0].sum(), x)
    return gradient


def test_a_graft_leaves_the_gradients_that_the_model_takes_itself() -> None:
    class Tuned(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            z = x.detach().clone().requires_grad_()
            with torch.enable_grad():
                (own,) = torch.autograd.grad(self.net(z)[:, 0].sum(), z)
            answer: Tensor = self.net((z + 0.1 * own).detach())
            return answer

    model = Tuned()
    assert torch.equal(skip_to("net")(model)(X.clone().requires_grad_()), model(X))
    assert torch.allclose(slope(skip_to("net")(model)).flatten(1), WEIGHT.expand(3, 16))


def test_a_graft_joins_the_input_to_the_part_and_leaves_the_answer() -> None:
    class Rounded(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.net(torch.from_numpy((4 * x.detach().numpy()).round() / 4))
            return answer

    model = Rounded()
    assert torch.equal(skip_to("net")(model)(X.clone().requires_grad_()), model(X))
    assert torch.allclose(slope(skip_to("net")(model)).flatten(1), WEIGHT.expand(3, 16))
    doubled = slope(skip_to("net", lambda x: 2 * x)(model))
    assert torch.allclose(doubled.flatten(1), 2 * WEIGHT.expand(3, 16))


def test_a_part_that_is_called_for_an_image_at_a_time_is_joined_to_that_image() -> None:
    class OneByOne(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            coarse = torch.from_numpy((4 * x.detach().numpy()).round() / 4)
            return torch.cat([(1 + i) * self.net(image[None]) for i, image in enumerate(coarse)])

    assert torch.allclose(slope(skip_to("net")(OneByOne())).flatten(1), torch.tensor([[1.0], [2], [3]]) * WEIGHT)


def test_gradients_skip_from_the_last_features_that_they_reach() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Conv2d(1, 2, 1, bias=False), Weigh()
            self.features.weight.data.copy_(torch.tensor([2.0, 5.0]).view(2, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            kept = self.features(x).detach().numpy()[:, :1]
            answer: Tensor = self.head(torch.from_numpy(kept))
            return answer

    def first(h: Tensor) -> Tensor:
        return h[:, :1]

    model = Between()
    view = skip_to("head", first, source="features")(model)
    assert torch.equal(view(X.clone().requires_grad_()), model(X))
    assert torch.allclose(slope(view).flatten(1), 2 * WEIGHT.expand(3, 16))
    with pytest.raises(ValueError, match="no part 'nowhere'"):
        skip_to("head", source="nowhere")(model)


def test_reading_out_gives_the_mean_of_all_calls() -> None:
    class Thrice(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            votes = [self.net(x + shift).argmax(1) for shift in (-0.3, 0.0, 0.3)]
            return nn.functional.one_hot(torch.stack(votes).mode(0).values, 2).float()

    assert torch.allclose(submodule_output("net")(Thrice())(X), Weigh()(X), atol=1e-5)


def test_reading_out_joins_calls_on_an_image_each() -> None:
    class OneByOne(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.net(image[None]) for image in x]).sign()

    assert torch.allclose(submodule_output("net")(OneByOne())(X), Weigh()(X), atol=1e-5)


def test_reading_out_what_is_never_called_is_refused() -> None:
    class Unused(ByNumpy):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    with pytest.raises(ValueError, match="'net' is not called"):
        submodule_output("net")(Unused())(X)


@pytest.mark.parametrize("view", [skip_to("nowhere"), submodule_output("nowhere")])
def test_a_path_that_is_not_there_is_refused(view: object) -> None:
    with pytest.raises(ValueError, match="no part 'nowhere'"):
        view(ByNumpy())  # type: ignore[operator]


class Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.net = nn.Identity(), Weigh()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(Blocked.apply(self.first(x)))
        return answer


def test_a_custom_function_gets_another_backward_pass_and_keeps_its_answer() -> None:
    model = Custom()
    assert not slope(model).any()
    view = bpda_function("Blocked")(model)
    assert torch.equal(view(X.clone().requires_grad_()), model(X))
    assert torch.allclose(slope(view).flatten(1), WEIGHT.expand(3, 16))
    assert not slope(bpda_function("Other")(model)).any()


def test_views_find_the_models_own_parts_through_other_views() -> None:
    model = Custom()
    stacked = submodule_output("net")(straight_through(bpda("first")(bpda_function("Blocked")(model))))
    assert torch.allclose(slope(stacked).flatten(1), WEIGHT.expand(3, 16))


class Answer(NamedTuple):
    logits: Tensor
    features: tuple[Tensor, ...]


class Named(Weigh):
    def forward(self, x: Tensor) -> Answer:  # type: ignore[override]
        return Answer(super().forward(x), (x, x))


class Votes(nn.Module):
    """Calls its part by keyword, and looks at the logits of what that answers outside of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Named()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x=torch.from_numpy(x.detach().numpy().copy())).logits
        return torch.from_numpy(logits.detach().numpy()).argmax(1, keepdim=True).eq(torch.arange(2)).float()


def test_of_an_answer_with_logits_those_are_read_and_a_part_may_be_called_by_keyword() -> None:
    model = Votes()
    assert torch.equal(submodule_output("net")(model)(X), Weigh()(X))
    both = submodule_output("net")(skip_to("net")(model))
    assert torch.allclose(slope(both).flatten(1), WEIGHT.expand(3, 16))


class Pairs(Votes):
    def __init__(self) -> None:
        super().__init__()
        self.pair = TwoOf()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.pair(x)[0]
        return answer


class TwoOf(Weigh):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


def test_a_part_that_answers_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="part 'pair' gives a tuple, not a tensor: choose a part inside it"):
        submodule_output("pair")(Pairs())(X)


class Once(ByNumpy):
    """Computes each image of a batch once."""

    def forward(self, x: Tensor) -> Tensor:
        known: dict[bytes, Tensor] = {}
        keys = [one.detach().numpy().tobytes() for one in x]
        for key, one in zip(keys, x, strict=True):
            known[key] = known[key] if key in known else self.net(one[None])[0]
        return torch.stack([known[key] for key in keys]).detach()


def test_equal_images_share_the_row_that_a_part_computes_once() -> None:
    x = X[[1, 0, 1, 2, 2, 2]]
    assert torch.allclose(submodule_output("net")(Once())(x), Weigh()(x))
    with pytest.raises(ValueError, match="5 rows are no whole number of copies of 6 images"):
        submodule_output("net")(Halves())(x)


class Halves(ByNumpy):
    """Computes no row for the last image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*[self.net(one[None]) for one in x[:-1]], x.new_zeros(1, 2)])


class Mapped(ByNumpy):
    """Goes through the images by vmap, and compares each with a threshold."""

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.func.vmap(lambda one: self.net((one > one.mean()).float()[None])[0])(x)
        return answer


def test_under_vmap_each_image_has_its_own_gradient() -> None:
    model, scale = Mapped(), torch.arange(1.0, 4.0)
    x = X.clone().requires_grad_()
    answer = skip_to("net")(model)(x)
    assert torch.equal(answer, model(X))
    (gradient,) = torch.autograd.grad((scale * answer[:, 0]).sum(), x)
    assert torch.allclose(gradient.flatten(1), scale[:, None] * WEIGHT)
    assert torch.equal(submodule_output("net")(model)(X), model(X))


class OneAtATime(nn.Module):
    """An energy of each class, asked class by class; the answer is the class of the least."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Linear(4 + 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        kinds = torch.eye(3)
        energies = [self.energy(torch.cat((x, kind.expand(len(x), -1)), 1)) for kind in kinds]
        return nn.functional.one_hot(torch.cat(energies, 1).argmin(1), 3).float()


def test_numbers_of_several_calls_are_columns() -> None:
    model, x = OneAtATime(), torch.rand(5, 4)
    energies = submodule_output("energy")(model)(x)
    assert energies.shape == (5, 3)
    assert torch.equal(energies.argmin(1), model(x).argmax(1))
