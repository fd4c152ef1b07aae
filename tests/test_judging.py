from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import latent, pgd
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.problem import Problem
from unmask.gradients.bpda import bypass
from unmask.gradients.eot import EOT
from unmask.gradients.spaces import Latent
from unmask.judging import Judge, judge
from unmask.losses import margin, with_confidence
from unmask.randomness import Keys, make_keys, uniform
from unmask.statistics import accuracy
from unmask.threats import L1, L2, Linf, Threat
from unmask.types import InvalidModelOutput, Output


def keys(n: int, purpose: str = "judge") -> Keys:
    return make_keys(0, range(n), purpose)


def bright(x: Tensor) -> Tensor:
    """Class 1 where the mean is over one half."""
    mean = x.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_the_ball_is_tolerated_up_to_rounding_only() -> None:
    x = grey(0.4).repeat(5, 1, 1, 1)
    for threat, unit in ((Linf(0.2), 1.0), (L2(0.4), 0.5), (L1(0.8), 0.25)):  # shifts of 0.2 in each of 4 pixels
        shift = torch.tensor([0.0, 0.2, 0.2 * (1 + 5e-6), 0.2 + 1e-3, 0.2 * (1 + 1.5e-5)]).view(-1, 1, 1, 1)
        feasible, distance = Judge(bright, threat).feasible((x.double() + shift.double()).float(), x)
        assert feasible.tolist() == [True, True, True, False, False]
        assert distance[1].item() * unit == pytest.approx(0.2, rel=1e-6)


def test_in_a_ball_of_no_size_the_image_itself_is_feasible_and_nothing_else() -> None:
    x = torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64)
    x_adv = x + torch.tensor([0.0, 5e-10, 1.5e-9], dtype=torch.float64).view(-1, 1, 1, 1)
    assert Judge(bright, Linf(0.0)).feasible(x_adv, x)[0].tolist() == [True, True, False]


def test_the_box_is_strict_and_nothing_is_not_a_number() -> None:
    x = grey(0.0, 1.0, 1.0, 0.5, 0.5)
    x_adv = x.clone()
    x_adv[0, 0, 0, 0], x_adv[1, 0, 1, 1], x_adv[3, 0, 0, 1] = -1e-7, 1 + 2e-7, torch.nan
    judge = Judge(bright, Linf(0.5))
    assert judge.feasible(x_adv, x)[0].tolist() == [False, False, True, False, True]


def test_success_needs_a_feasible_image_a_wrong_class_and_no_rejection() -> None:
    def detecting(x: Tensor) -> Output:
        return Output(bright(x), x[:, 0, 0, 0] - 0.7)  # refuses where the first pixel is bright

    x = grey(0.4).repeat(4, 1, 1, 1)
    x_adv = grey(0.45, 0.6, 0.6, 0.9)  # right class; wrong; wrong but refused; wrong but far
    x_adv[2, 0, 0, 0] = 0.71
    y = torch.zeros(4, dtype=torch.long)
    judge = Judge(detecting, Linf(0.35))
    verdict = judge.verdict(x_adv, x, y, keys(4))
    assert verdict.predicted.tolist() == [[0, 1, 1, 0]]  # of the last one the clean image is judged
    assert verdict.refused.tolist() == [[False, False, True, False]]
    assert verdict.feasible.tolist() == [True, True, True, False]
    assert verdict.robust_fraction.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert judge.is_broken(x_adv, x, y, keys(4)).tolist() == [False, True, False, False]
    unguarded = Judge(bright, Linf(0.35))
    assert unguarded.is_broken(x_adv, x, y, keys(4)).tolist() == [False, True, True, False]
    assert unguarded.verdict(x_adv, x, y, keys(4)).robust_fraction.tolist() == [
        1.0,
        0.0,
        0.0,
        1.0,
    ]  # far proves nothing


def test_a_score_of_refusal_of_zero_accepts_the_image() -> None:
    def detecting(x: Tensor) -> Output:
        return Output(bright(x), x[:, 0, 0, 0] - 0.75)

    x, y = grey(0.5, 0.5, 0.5), torch.zeros(3, dtype=torch.long)
    x_adv = grey(0.75 - 2**-20, 0.75, 0.75 + 2**-20)
    judge = Judge(detecting, Linf(0.3))
    assert judge.verdict(x_adv, x, y, keys(3)).refused.tolist() == [[False, False, True]]
    assert judge.is_broken(x_adv, x, y, keys(3)).tolist() == [True, True, False]


def test_a_model_is_asked_without_a_graph() -> None:
    graphs: list[bool] = []

    def model(x: Tensor) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return bright(x)

    x, y, judge = grey(0.5), torch.zeros(1, dtype=torch.long), Judge(model, Linf(0.1))
    judge.verdict(x, x, y, keys(1))
    judge.is_broken(x, x, y, keys(1))
    assert graphs == [False, False]


def coin(p: float) -> Callable[[Tensor], Tensor]:
    """A random number generator: class 0 with probability ``p``, whatever the image."""

    def model(x: Tensor) -> Tensor:
        heads = (uniform((len(x), 1), x) < p).to(x.dtype)
        return torch.cat([heads, 1 - heads], 1) + 0 * x.flatten(1).sum(1, keepdim=True)

    return model


def test_several_draws_give_a_share_and_breaking_needs_all() -> None:
    n = 4000
    x, y = grey(0.5).repeat(n, 1, 1, 1), torch.zeros(n, dtype=torch.long)
    judge = Judge(coin(0.8), Linf(0.1), draws=3)
    verdict = judge.verdict(x, x, y, keys(n))
    assert verdict.robust.double().mean(1).tolist() == pytest.approx([0.8] * 3, abs=0.026)  # 4 standard errors
    shares = (3 * verdict.robust_fraction).round().long().bincount(minlength=4) / n
    assert shares.tolist() == pytest.approx([0.008, 0.096, 0.384, 0.512], abs=0.032)
    broken = judge.is_broken(x, x, y, keys(n))
    assert torch.equal(broken, ~verdict.robust.any(0))
    assert broken.double().mean().item() == pytest.approx(0.008, abs=0.006)


def test_torchs_own_randomness_is_keyed_where_asked() -> None:
    def noisy(x: Tensor) -> Tensor:
        return torch.randn(len(x), 10)

    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 10
    judge = Judge(noisy, Linf(0.1), draws=2, uses_torch_random=True, batch=7)
    first = judge.verdict(x, x, y, keys(20)).predicted
    assert torch.equal(judge.verdict(x, x, y, keys(20)).predicted, first)
    assert torch.equal(
        Judge(noisy, Linf(0.1), draws=2, uses_torch_random=True).verdict(x, x, y, keys(20)).predicted, first
    )
    assert not torch.equal(first[0], first[1])
    unkeyed = Judge(noisy, Linf(0.1))
    assert not torch.equal(unkeyed.verdict(x, x, y, keys(20)).predicted, unkeyed.verdict(x, x, y, keys(20)).predicted)


def test_an_attack_that_selects_its_draws_gains_nothing_on_fresh_ones() -> None:
    """AutoAttack's ``rand`` reports far less than p here, because it scores on the draws that it chose by."""
    n, p = 500, 0.7
    x, y = torch.rand(n, 1, 2, 2), torch.zeros(n, dtype=torch.long)
    judge = Judge(coin(p), Linf(0.1))
    chosen: list[Tensor] = []
    for attack in (pgd(50, margin), RandomSearch(50)):
        fallen = torch.zeros(n, dtype=torch.bool)

        def broken(rows: Tensor, x_adv: Tensor, when: int, fallen: Tensor = fallen) -> Tensor:
            own = keys(n, "selection").select(rows).fold_in(when)
            verdict = judge.is_broken(x_adv, x[rows], y[rows], own)
            fallen[rows[verdict]] = True
            return verdict

        chosen.append(attack(Problem(coin(p), x, y, Linf(0.1), keys(n, "attack"), broken)))
        assert fallen.double().mean() > 0.9  # on its own draws it seems to break nearly everything
    fresh = Judge(coin(p), Linf(0.1), draws=8)
    for x_adv in chosen:
        verdict = fresh.verdict(x_adv, x, y, keys(n, "final"))
        assert verdict.feasible.all()
        assert verdict.robust_fraction.mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / (8 * n)) ** 0.5)


def test_chunks_give_equal_verdicts() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    random = lambda x: net(x) + uniform((len(x), 10), x)  # noqa: E731
    x = torch.rand(33, 1, 4, 4)
    y = torch.arange(33) % 10
    whole = Judge(random, Linf(0.1), draws=2).verdict(x, x, y, keys(33))
    for batch in (1, 7, 32):
        judge = Judge(random, Linf(0.1), draws=2, batch=batch)
        part = judge.verdict(x, x, y, keys(33))
        assert torch.equal(part.predicted, whole.predicted)
        assert torch.equal(part.robust, whole.robust)
        assert torch.equal(judge.is_broken(x, x, y, keys(33)), ~whole.robust.any(0))
        assert judge.passes.backwards == 0
        assert 33 * 3 <= judge.passes.forwards <= 33 * 4
    some = torch.tensor([30, 2, 11])
    part = Judge(random, Linf(0.1), draws=2).verdict(x[some], x[some], y[some], keys(33).select(some))
    assert torch.equal(part.predicted, whole.predicted[:, some])


def test_verdicts_are_taken_in_float32() -> None:
    seen: list[torch.dtype] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.dtype)
        return bright(x)

    x = grey(0.49999)  # in bfloat16 this is 0.5
    y = torch.zeros(1, dtype=torch.long)
    for kind in (torch.float32, torch.float64):
        verdict = Judge(model, Linf(0.1)).verdict(x.to(kind), x.to(kind), y, keys(1))
        assert verdict.robust.all()
    assert set(seen) == {torch.float32}
    assert verdict.distance.dtype == verdict.robust_fraction.dtype == torch.float64


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.full((len(x), 3), torch.nan), "NaN logits (3 of 3 images)"),
        (lambda x: torch.tensor([0.0, torch.inf, 0.0]).expand(len(x), 3), "Inf logits (3 of 3 images)"),
        (lambda x: torch.where(x.flatten(1)[:, :3] > 0.9, torch.nan, 0.0), "NaN logits (1 of 3 images)"),
        (lambda x: x.flatten(1)[:, :2], "labels go up to 2, but the model has 2 classes"),
        (lambda x: x.flatten(1).sum(1), "answers a tensor of shape (16,) to 16 images"),
        (lambda x: x, "answers a tensor of shape (16, 1, 2, 2) to 16 images"),
    ],
    ids=["nan", "inf", "one nan", "too few classes", "no classes", "image"],
)
def test_what_cannot_be_judged_is_refused_in_one_line(model: Callable[[Tensor], Tensor], message: str) -> None:
    x, y = grey(0.5, 0.95, 0.5), torch.tensor([0, 1, 2])
    for ask in (Judge(model, Linf(0.1)).verdict, Judge(model, Linf(0.1)).is_broken):
        with pytest.raises(InvalidModelOutput) as error:
            ask(x, x, y, keys(3))
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert isinstance(error.value, ValueError)


def test_candidates_that_are_no_images_are_refused_by_their_own_name() -> None:
    x, y = grey(0.5, 0.5), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"^adversarial examples have shape \(2, 4\): give \(B, C, H, W\)"):
        Judge(bright, Linf(0.1)).verdict(x.flatten(1), x, y, keys(2))
    with pytest.raises(ValueError, match=r"^adversarial examples have shape \(1, 1, 2, 2\), the images \(2, 1, 2, 2\)"):
        Judge(bright, Linf(0.1)).verdict(x[:1], x, y, keys(2))


def test_a_bad_answer_in_a_later_draw_is_no_success() -> None:
    def fickle(x: Tensor) -> Tensor:
        calls.append(1)
        return torch.full((len(x), 2), torch.nan if len(calls) > 1 else 0.0)

    calls: list[int] = []
    x = grey(0.5)
    with pytest.raises(InvalidModelOutput, match="NaN"):
        Judge(fickle, Linf(0.1), draws=2).verdict(x, x, torch.tensor([1]), keys(1))


class OntoPlane(nn.Module):
    """The nearest image that a linear generator makes, without a gradient: the essence of Defense-GAN."""

    def __init__(self, generator: nn.Module, basis: Tensor) -> None:
        super().__init__()
        self.generator, self.basis = generator, basis

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = (x.flatten(1) - 0.5) @ self.basis
            image: Tensor = self.generator(z)
        return image


class Purified(nn.Module):
    def __init__(self, purify: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.purify, self.classifier = purify, classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits


def attacked(defense: nn.Module, view: Any, x: Tensor, y: Tensor, threat: Threat, attack: Any) -> float:
    judge = Judge(defense, threat)

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        return judge.is_broken(x_adv, x[rows], y[rows], keys(len(x)).select(rows).fold_in(when))

    x_adv = attack(Problem(view, x, y, threat, keys(len(x), "attack"), broken))
    verdict = judge.verdict(x_adv, x, y, keys(len(x), "final"))
    assert verdict.feasible.all()
    return verdict.robust_fraction.mean().item()


def test_a_search_on_the_manifold_breaks_what_hides_behind_a_projection() -> None:
    """Images 0.5 + basis z in 16 dimensions with z in a plane; the class is the sign of z[0].

    Off the plane an attack changes nothing. On it the boundary is |z[0]| = 0.3 away, within eps = 0.4.
    """
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 2)).Q
    up, down = nn.Linear(2, 16), nn.Linear(16, 2)
    up.weight.data, up.bias.data = basis, torch.full((16,), 0.5)
    down.weight.data = torch.stack([-basis[:, 0], basis[:, 0]])
    down.bias.data = torch.tensor([0.5, -0.5]) * basis[:, 0].sum()
    generator = nn.Sequential(up, nn.Unflatten(1, (1, 4, 4)))
    classifier = nn.Sequential(nn.Flatten(), down)
    defense = Purified(OntoPlane(generator, basis), classifier).eval()
    side = torch.tensor([-0.3, 0.3]).repeat(5)
    x = generator(torch.stack([side, torch.linspace(-0.2, 0.2, 10)], 1)).detach()
    y = (side > 0).long()
    assert (defense(x).argmax(1) == y).all()
    assert 0 < x.min() <= x.max() < 1

    plain = attacked(defense, defense, x, y, L2(0.4), pgd(20, margin))
    search = latent(Latent(generator, 2), steps=60)
    assert plain == 1.0
    assert attacked(defense, bypass("purify")(defense), x, y, L2(0.4), search) == 0.0
    assert attacked(defense, bypass("purify")(defense), x, y, L2(0.29), search) == 1.0  # out of reach for anyone


def test_what_a_random_defense_gets_wrong_in_most_draws_is_attacked_too() -> None:
    class Wavering(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 10 * bright(x) + uniform((len(x), 1), like=x) * torch.tensor([1.0, -1.0])

    model, x, y = Wavering(), grey(0.57).repeat(64, 1, 1, 1), torch.zeros(64, dtype=torch.long)
    judge = Judge(model, Linf(0.2), draws=5)
    assert 0.1 < float(judge.verdict(x, x, y, keys(64)).robust_fraction.mean()) < 0.5
    assert run_attack(pgd(10, with_confidence(margin, 2.0), EOT(2)), model, x, y, judge=judge).accuracy.value == 0


def test_examples_of_others_are_judged_inside_the_ball_alone() -> None:
    """A linear score falls below zero exactly where the mean falls below one half."""
    x = torch.stack([grey(0.55)[0], grey(0.55)[0], grey(0.7)[0], grey(0.4)[0]])
    x_adv = torch.stack([grey(0.45)[0], grey(0.3)[0], grey(0.6)[0], grey(0.4)[0]])
    y = bright(x[:1]).argmax(1).repeat(4)
    found = judge(bright, Linf(0.1), x, y, x_adv)
    assert found.robust.tolist() == [False, True, True, False]
    assert found.feasible.tolist() == [True, False, True, True]
    assert found.distance.tolist() == pytest.approx([0.1, 0.25, 0.1, 0], abs=1e-6)
    assert found.accuracy == accuracy([0, 1, 1, 0])
    with pytest.raises(ValueError, match="one adversarial example an image"):
        judge(bright, Linf(0.1), x, y, x_adv[:2])


def test_examples_of_others_on_a_random_defense_are_scored_over_its_draws() -> None:
    def coin(x: Tensor) -> Tensor:
        return torch.cat((uniform((len(x), 1), like=x), torch.full((len(x), 1), 0.25)), 1)

    x, y = grey(0.5).repeat(500, 1, 1, 1), torch.zeros(500, dtype=torch.long)
    found = judge(coin, Linf(0.1), x, y, x, draws=4)
    assert found.accuracy.value == pytest.approx(0.75, abs=0.05)
    assert float(found.robust.double().mean()) == pytest.approx(0.75**4, abs=0.08)
    assert judge(coin, Linf(0.1), x, y, x, draws=4).accuracy == found.accuracy
    assert judge(coin, Linf(0.1), x, y, x, draws=4, seed=1).accuracy != found.accuracy
