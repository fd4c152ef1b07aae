"""Our searches and transformations beside the libraries that the literature uses."""

from __future__ import annotations

import pytest
import torch

from benchmarks.transforms_references import by_skimage, objective
from unmask.adapters import attackable
from unmask.attacking import run_attack, verdicts
from unmask.cases import find_case
from unmask.data import load
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation
from unmask.judging import Judge
from unmask.randomness import make_keys, use_keys

pytestmark = pytest.mark.filterwarnings("ignore")  # these libraries' own affairs


def test_total_variation_ends_no_higher_than_scikit_images() -> None:
    pytest.importorskip("skimage")
    image = torch.nn.functional.interpolate(load("digits", n=3).batch()[0], (40, 40), mode="bicubic").clamp(0, 1)
    x = image.reshape(1, 3, 40, 40)
    everything = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    with use_keys(make_keys(0, range(1), "reference")), torch.no_grad():
        ours = MinimiseTotalVariation(keep=1)(x)
    theirs = by_skimage(x[0])[None]
    assert objective(ours, x, everything) < objective(theirs, x, everything) * 1.01
    assert (ours - theirs).square().mean().sqrt() < 0.02


def test_the_ensemble_leaves_no_more_than_autoattack() -> None:
    """On an adversarially trained network, where neither leaves nothing."""
    torchattacks = pytest.importorskip("torchattacks")
    case = find_case("madry-digits")
    model = case.load()
    x, y = load("digits", n=100).batch()
    ours = run_attack(case.attacks["ensemble"].make(model), model, x, y, case.threat).verdict.robust_fraction
    auto = torchattacks.AutoAttack(attackable(model), norm="Linf", eps=case.threat.eps, seed=0)
    theirs = verdicts(Judge(model, case.threat), case.threat.project(auto(x, y), x), x, y, torch.arange(100), 0)[
        0
    ].robust_fraction
    assert 0.3 < ours.mean() <= theirs.mean() < 0.9
