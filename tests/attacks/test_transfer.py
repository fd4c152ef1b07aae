from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unmask.attacks.aliases import fgsm, pgd
from unmask.attacks.black_box.transfer import Transfer
from unmask.losses import margin
from unmask.models.model_wrappers import Passes, batch_invariant


def test_gradients_of_the_source_and_verdicts_on_the_defense(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    """The source knows the left half of the weights: closed form of what a step along it gains on the defense."""
    model, x, y, threat = linear(2, "linf")
    left, _, _, _ = linear(2, "linf")
    half = (torch.arange(64) % 8 < 4).float()
    left.weight = model.weight * half
    seen, t = Passes(), trial(model, x, y, threat)
    source = batch_invariant(lambda z: left(z) + 100 * torch.eye(2)[y].sum(0), passes=seen)
    x_adv = Transfer(source, fgsm(margin))(t.problem)
    assert t.passes == Passes(0, 0)
    assert (seen.forwards, seen.backwards) == (2 * len(x), len(x))
    gain = (half * (model.weight[0] - model.weight[1])).abs().sum() * threat.eps
    torch.testing.assert_close(model.lead(x_adv, y).amax(1), model.lead(x, y).amax(1) + gain, rtol=0, atol=1e-4)


def test_fooling_the_source_ends_nothing(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """The source is wrong everywhere; a search goes on until the defense is wrong too."""
    model, x, y, threat = linear(2, "l2")
    t = trial(model, x, y, threat)

    def source(z: torch.Tensor) -> Any:
        return model(z) * 5 + 1000 * torch.eye(2)[1 - y[:1]]

    y0 = y == y[0]
    part = t.problem.subset(y0.nonzero().flatten())
    x_adv = Transfer(batch_invariant(source), pgd(20, margin, rel_step_size=0.5))(part)
    broken = model(x_adv).argmax(1) != y[0]
    assert torch.equal(broken, (model.critical(x, y, "l2") < threat.eps)[y0])
    assert broken.any()
    assert not broken.all()
