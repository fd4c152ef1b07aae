from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.attacks.aliases import cw, fgsm, latent, mifgsm, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Adam, Steepest
from unmask.attacks.problem import Attack
from unmask.gradients.eot import EOT
from unmask.gradients.spaces import Latent, Tanh
from unmask.gradients.spsa import SPSA
from unmask.losses import margin
from unmask.randomness import normal
from unmask.threats import L2, Linf

NORMS = ["linf", "l2", "l1"]
GRADIENT_ATTACKS: dict[str, Attack] = {
    "pgd": pgd(10, margin, rel_step_size=0.5),
    "mifgsm": mifgsm(10, margin),
    "cw": cw(15, restarts=2),
    "adam": GradientAttack(15, margin, Adam(0.05)),
    "apgd": APGD(15, margin),
    "eot": pgd(5, margin, EOT(3)),
    "spsa": pgd(3, margin, SPSA(8)),
}


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_the_optimum_of_two_linear_classes(
    trial: Callable[..., Any], linear: Callable[..., Any], norm: str
) -> None:
    model, x, y, threat = linear(2, norm)
    t = trial(model, x, y, threat)
    x_adv = replace(fgsm(), early_stop=False)(t.problem)
    other = 1 - y
    toward = (model.weight[other] - model.weight[y]).view_as(x)
    torch.testing.assert_close(x_adv, x + threat.eps * threat.ascent(toward), rtol=0, atol=1e-6)
    best = model.lead(x, y).amax(1) + threat.eps * model.gain(y, norm).amax(1)
    torch.testing.assert_close(model.lead(x_adv, y).amax(1), best, rtol=0, atol=1e-5)
    assert t.passes.forwards == 2 * len(x)
    assert t.passes.backwards == len(x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("attack", "classes", "share"),
    [
        (pgd(20, rel_step_size=0.5), 2, 0.9999),
        (pgd(40, margin, rel_step_size=0.5), 5, 0.999),
        (mifgsm(10), 2, 0.9999),
        (APGD(20), 2, 0.9999),
        (APGD(40, margin), 5, 0.99),
    ],
    ids=["pgd", "pgd-5", "mifgsm", "apgd", "apgd-5"],
)
def test_linear_classes_fall_exactly_below_their_critical_radius(
    trial: Callable[..., Any], linear: Callable[..., Any], norm: str, attack: Attack, classes: int, share: float
) -> None:
    """Of five classes, a search may end at the second best; it must get there, and break what can be broken."""
    model, x, y, threat = linear(classes, norm)
    t = trial(model, x, y, threat)
    x_adv = attack(t.problem)
    assert torch.equal(t.broken(x_adv), model.critical(x, y, norm) < threat.eps)
    clean, gain = model.lead(x, y), threat.eps * model.gain(y, norm)
    unlimited = replace(attack, early_stop=False)(t.problem)  # type: ignore[type-var]
    z = model(unlimited)
    ends = z.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
    reached = (model.lead(unlimited, y) - clean).gather(1, ends) / gain.gather(1, ends)
    assert reached.min() > share


def test_carlini_wagner_in_a_box(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """Adam moves all coordinates alike where the gradient is constant: the optimum of Linf, some 80 % of that of L2."""
    for norm, share in (("linf", 0.98), ("l2", 0.7)):
        model, x, y, threat = linear(2, norm, 8)
        t = trial(model, x, y, threat, answer=False)
        x_adv = cw(60, lr=0.02, restarts=3)(t.problem)
        assert t.judge.feasible(x_adv, x)[0].all()
        gained = (model.lead(x_adv, y).amax(1) - model.lead(x, y).amax(1)) / (threat.eps * model.gain(y, norm)).amax(1)
        assert share < gained.min()
        assert gained.max() <= 1 + 1e-5


@pytest.mark.parametrize(
    "attack",
    [pgd(100, margin, rel_step_size=0.03), APGD(60, margin), GradientAttack(150, margin, Adam(0.01), space=Tanh())],
    ids=["pgd", "apgd", "adam"],
)
def test_an_optimum_inside_the_ball_is_found(trial: Callable[..., Any], attack: Attack) -> None:
    """Two pixels; the margin is -1 - |(x - centre) / width|^2, largest at the centre, and never positive."""
    centre, width = torch.tensor([0.6, 0.35]), torch.tensor([1.0, 0.4])

    def model(x: Tensor) -> Tensor:
        bowl = -(((x.flatten(1) - centre) / width) ** 2).sum(1) - 1
        return torch.stack((torch.zeros_like(bowl), bowl), 1)

    x = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.62, 0.36]]).view(3, 1, 1, 2)
    for threat in (Linf(0.2), L2(0.25)):
        t = trial(model, x, torch.zeros(3, dtype=torch.long), threat)
        x_adv = attack(t.problem)
        torch.testing.assert_close(x_adv.flatten(1), centre.expand(3, 2), rtol=0, atol=0.02)
        assert not t.asked  # values below 0 cannot be successes


def test_latent_search_stays_on_the_generator_and_reaches_its_optimum(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    """Images x = 1/2 + A z on a plane: the best direction inside the plane is A^T w."""
    model, _, _, _ = linear(2, "l2")
    basis = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(5))).Q

    def generator(z: Tensor):
        return (0.5 + 0.05 * z @ basis.T).view(-1, 1, 8, 8)

    x = generator(torch.randn(6, 3, generator=torch.Generator().manual_seed(6)))
    y, threat = model(x).argmax(1), L2(0.1)
    t = trial(model, x, y, threat, answer=False)
    space = Latent(generator, size=3, tries=2, steps=40, learning_rate=0.3)
    x_adv = latent(space, 50, restarts=2)(t.problem)
    assert t.judge.feasible(x_adv, x)[0].all()
    moved = (x_adv - x).flatten(1)
    torch.testing.assert_close(moved @ basis @ basis.T, moved, rtol=0, atol=2e-3)
    toward = (model.weight[1 - y] - model.weight[y]) @ basis
    gained = model.lead(x_adv, y).amax(1) - model.lead(x, y).amax(1)
    assert (gained / (threat.eps * toward.norm(dim=1))).min() > 0.95


def test_expectation_over_transformation_sees_through_noise(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    """The view adds a random linear term, ten times as large as the true one; the judge sees none of it."""
    model, x, y, threat = linear(2, "l2", 8)

    def noisy(z: Tensor):
        noise = 3 * normal(z.shape, z).flatten(1)
        return model(z) + torch.stack((torch.zeros(len(z)), (noise * z.flatten(1)).sum(1)), 1)

    def gained(attack: Attack):
        x_adv = attack(trial(model, x, y, threat, view=noisy).problem)
        gain = model.lead(x_adv, y).amax(1) - model.lead(x, y).amax(1)
        return (gain / (threat.eps * model.gain(y, "l2")).amax(1)).mean()

    averaged = GradientAttack(5, margin, Steepest(1.0), EOT(200), random_start=False, early_stop=False)
    assert gained(averaged) > 0.97
    assert gained(replace(averaged, estimator=EOT(1))) < 0.7


def test_the_last_point_of_a_search_of_a_noisy_model_beats_an_early_lucky_one(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    """Noise ten times what the attack can gain: by single values the best of 21 points is any of them."""
    model, x, y, threat = linear(2, "l2", 64)
    spread = 10 * threat.eps * model.gain(y, "l2").amax(1).mean()

    def noisy(z: Tensor):
        return model(z) + torch.stack((torch.zeros(len(z)), spread * normal((len(z),), z)), 1)

    def gained(random: bool):
        problem = replace(trial(model, x, y, threat, view=noisy).problem, random=random)
        x_adv = replace(pgd(20, margin, EOT(2), rel_step_size=0.1), early_stop=False)(problem)
        gain = model.lead(x_adv, y).amax(1) - model.lead(x, y).amax(1)
        return (gain / (threat.eps * model.gain(y, "l2")).amax(1)).mean()

    assert gained(True) > gained(False) + 0.02


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_only_the_judge_lets_examples_leave(trial: Callable[..., Any], linear: Callable[..., Any], name: str) -> None:
    """A view that claims success at once keeps all while the judge says no; a judge that says yes lets all go."""
    model, x, y, threat = linear(3, "linf", 6)
    attack = GRADIENT_ATTACKS[name]

    def boast(z: Tensor):
        return model(z).scatter_add(1, y[:1].expand(len(z), 1), torch.full((len(z), 1), -1e3))

    same = torch.full_like(y, int(y[0]))
    no = trial(model, x, same, threat, view=boast, answer=False)
    attack(no.problem)
    assert len(no.asked) > 3
    asked = [rows.tolist() for rows, _, _ in no.asked]
    if name == "cw":  # its values hold a penalty: the judge is asked about those that are better than before
        assert asked[0] == list(range(6))
        assert all(any(row in rows for rows in asked[1:]) for row in range(6))
    else:
        assert all(rows == list(range(6)) for rows in asked)
    yes = trial(model, x, same, threat, view=boast, answer=True)
    x_adv = attack(yes.problem)
    assert len(yes.asked) == 1
    assert torch.equal(x_adv, yes.asked[0][1])


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_the_broken_leave_with_what_the_judge_saw_and_the_others_notice_nothing(
    trial: Callable[..., Any], linear: Callable[..., Any], name: str
) -> None:
    model, x, y, threat = linear(3, "linf", 24)
    attack = GRADIENT_ATTACKS[name]
    t = trial(model, x, y, threat)
    x_adv = attack(t.problem)
    broken = t.broken(x_adv)
    assert 0 < broken.sum() < len(x)
    seen = t.seen_broken()
    assert sorted(seen) == broken.nonzero().flatten().tolist()
    assert all(torch.equal(x_adv[row], candidate) for row, candidate in seen.items())
    whole = replace(attack, early_stop=False)(t.problem)  # type: ignore[type-var]
    assert torch.equal(x_adv[~broken], whole[~broken])


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_no_radius_no_change(trial: Callable[..., Any], linear: Callable[..., Any], name: str) -> None:
    model, x, y, threat = linear(3, "l2", 6)
    t = trial(model, x, y, replace(threat, eps=0.0))
    assert torch.equal(GRADIENT_ATTACKS[name](t.problem), x)


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_values_that_are_no_numbers_harm_nobody_else(
    trial: Callable[..., Any], linear: Callable[..., Any], name: str
) -> None:
    model, x, y, threat = linear(3, "linf", 8)
    x[2] = 0.95

    def view(z: Tensor):
        return model(z) / (z.flatten(1).mean(1, keepdim=True) < 0.9)  # 0 / 0 and 1 / 0 for the third

    attack = GRADIENT_ATTACKS[name]
    poisoned = attack(trial(model, x, y, threat, view=view).problem)
    sound = attack(trial(model, x, y, threat).problem)
    others = torch.arange(8) != 2
    assert torch.equal(poisoned[others], sound[others])
    assert poisoned.isfinite().all()
