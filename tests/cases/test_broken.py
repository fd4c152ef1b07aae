"""Defenses known to be broken fall, and the control stands, with the weights that ship."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.needs import need
from unmask.attacking import run_attack, verdicts
from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.cases import find_case
from unmask.data import load
from unmask.judging import Judge
from unmask.losses import margin

N = 48


@cache
def left(name: str, attacker: str, n: int = N) -> float:
    case = find_case(name)
    need(case.data)
    x, y = load(case.data, n=n).batch()
    model = case.load()
    judge = Judge(model, case.threat, case.draws)
    if attacker == "clean":
        return float(verdicts(judge, x, x, y, torch.arange(n), 0)[0].robust_fraction.mean())
    chosen = case.attacks[attacker]
    found = run_attack(
        chosen.make(model), model, x, y, judge=judge, view=chosen.view, low_precision=chosen.low_precision
    )
    assert found.verdict.feasible.all()
    return found.accuracy.value


@pytest.mark.parametrize(
    "name", ["plain-digits", "madry-digits", "thermometer-digits", "pixeldefend-digits", "lwta-digits"]
)
def test_clean_accuracy(name: str) -> None:
    assert left(name, "clean") >= 0.9


def test_no_defense() -> None:
    assert left("plain-digits", "apgd") <= 0.05


def test_thermometer_hides_its_gradient_from_the_plain_attack_alone() -> None:
    assert left("thermometer-digits", "plain") - left("thermometer-digits", "bpda") >= 0.6
    assert left("thermometer-digits", "bpda") <= 0.01


def test_pixeldefend_has_no_gradient_and_falls_to_bpda() -> None:
    assert left("pixeldefend-digits", "plain") >= 0.85
    assert left("pixeldefend-digits", "bpda") <= 0.1


def test_local_winners_fall_to_bpda_through_their_mean_and_not_to_the_gradients_of_draws() -> None:
    assert left("lwta-digits", "plain") >= 0.5
    assert left("lwta-digits", "bpda") <= 0.15


def test_randomization_falls_to_eot() -> None:
    assert left("randomization-mnist", "clean", 16) >= 0.9
    assert left("randomization-mnist", "eot", 16) <= 0.15


def test_defense_gan_falls_to_a_search_of_its_manifold() -> None:
    assert left("defense-gan-mnist", "clean", 4) >= 0.75
    assert left("defense-gan-mnist", "overpowered", 4) <= 0.25


def test_adversarial_training_stands() -> None:
    plain = left("madry-digits", "plain")
    assert plain >= 0.5
    assert plain - left("madry-digits", "ensemble") <= 0.1


@pytest.mark.parametrize(
    ("name", "attacker"), [("plain-cifar10", "apgd"), ("sap-cifar10", "bpda"), ("lid-cifar10", "joint")]
)
def test_photographs(name: str, attacker: str) -> None:
    assert left(name, "clean", 12) >= 0.75
    assert left(name, attacker, 12) == 0.0


@pytest.mark.parametrize(
    ("name", "attacker", "hidden"),
    [
        ("output-codes-mnist", "logits", 0.2),  # by how much depends on how the processor rounds tanh: 0.66 or 0.37
        ("mixed-precision-mnist", "mean", 0.6),
        ("deep-neighbours-mnist", "soft", 0.6),
    ],
)
def test_later_defenses_hide_their_gradient_from_the_plain_attack_alone(
    name: str, attacker: str, hidden: float
) -> None:
    assert left(name, "clean", 32) >= 0.95
    assert left(name, attacker) <= 0.04
    assert left(name, "plain") >= left(name, attacker) + hidden


def test_winners_hide_from_the_plain_attack_what_a_narrow_surrogate_finds() -> None:
    need("mnist")
    case = find_case("k-winners-mnist")
    x, y = load("mnist", n=N).batch()
    found = run_attack(APGD(60, margin), case.load(), x, y, case.threat, view=case.attacks["soft"].view)
    assert left("k-winners-mnist", "clean") >= 0.95
    assert left("k-winners-mnist", "plain") - found.accuracy.value >= 0.15


def test_an_anti_adversary_falls_with_its_classifier() -> None:
    assert left("anti-adversary-cifar10", "clean", 16) >= 0.75
    assert left("anti-adversary-cifar10", "classifier", 16) <= 0.07


def test_a_diverse_ensemble_falls_to_enough_steps() -> None:
    assert left("diversity-mnist", "clean", 24) >= 0.95
    assert left("diversity-mnist", "apgd", 24) <= 0.09


def test_diffusion_keeps_the_class_of_most_images() -> None:
    assert left("diffpure-cifar10", "clean", 32) >= 0.65


def test_a_score_network_purifies_what_a_static_attack_made_of_images() -> None:
    case = find_case("score-purification-cifar10")
    need(case.data)
    x, y = load(case.data, n=32).batch()
    model = case.load()
    static = run_attack(pgd(10, margin), model.get_submodule("classifier"), x, y, case.threat)
    assert static.accuracy.value <= 0.1
    purified = verdicts(Judge(model, case.threat, case.draws), x, static.x_adv, y, torch.arange(32), 0)[0]
    assert float(purified.robust_fraction.mean()) >= 0.35
    assert left(case.name, "clean", 32) >= 0.6
