"""Linear classifiers, whose robust accuracy in ball and box is known: attacks and audits come within half a point."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.problem import Attack
from unmask.auditing.run import audit
from unmask.data import Dataset
from unmask.gradients.eot import EOT
from unmask.judging import Judge
from unmask.losses import cross_entropy, margin, targeted_margin
from unmask.randomness import normal
from unmask.threats import Threat, parse
from unmask.types import Loss, Output

N = 200


class Linear(nn.Module):
    """W x + b."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(-weight.sum(1) / 2)  # the middle of the box is undecided

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def gain(slope: Tensor, x: Tensor, norm: str, eps: float) -> Tensor:
    """(B,) the most that <slope, change> can be; slopes and images are (B, d)."""
    room, steep = torch.where(slope > 0, 1 - x, x), slope.abs()
    if norm == "linf":
        change = room.clamp_max(eps)
    elif norm == "l1":  # a fractional knapsack: the steepest first, each up to its room
        order = steep.argsort(1, descending=True)
        steep, room = steep.gather(1, order), room.gather(1, order)
        change = torch.minimum((eps - (room.cumsum(1) - room)).clamp_min(0), room)
    else:  # min(room, s |slope|), with s by bisection
        low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e6, dtype=x.dtype)
        for _ in range(100):
            s = (low + high) / 2
            over = torch.minimum(room, s * steep).norm(dim=1, keepdim=True) > eps
            low, high = torch.where(over, low, s), torch.where(over, s, high)
        change = torch.minimum(room, low * steep)
    return (steep * change).sum(1)


def exact(model: Linear, x: Tensor, y: Tensor, norm: str, eps: float) -> float:
    """Share of the images that no change takes to another class."""
    weight, flat = model.weight.detach().double(), x.flatten(1).double()
    logits = flat @ weight.T + model.bias.detach().double()
    lead = [
        (logits[:, j] - logits.gather(1, y[:, None])[:, 0] + gain(weight[j] - weight[y], flat, norm, eps)).where(
            y != j, torch.tensor(-torch.inf, dtype=torch.float64)
        )
        for j in range(len(weight))
    ]
    return (torch.stack(lead).amax(0) < 0).double().mean().item()


def case(classes: int, norm: str, boxed: bool) -> tuple[Linear, Tensor, Tensor, Threat, float]:
    """A model, images in steps of 1 / 255, and a ball that breaks half of them; ``boxed``: many pixels at an edge."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, 64, generator=generator)
    draw = torch.rand(N, 1, 8, 8, generator=generator)
    x = ((1.6 * draw - 0.3).clamp(0, 1) if boxed else 0.4 + 0.2 * draw).mul(255).round() / 255
    model = Linear(weight).eval()
    y = model(x).argmax(1)
    eps = (radius(model, x, y, norm, 0.5) + radius(model, x, y, norm, 0.5 - 1 / N)) / 2  # next to no image's own radius
    return model, x, y, parse(norm, eps), exact(model, x, y, norm, eps)


def radius(model: Linear, x: Tensor, y: Tensor, norm: str, share: float) -> float:
    """The least radius that leaves no more than ``share``."""
    low, high = 0.0, 64.0
    for _ in range(50):
        eps = (low + high) / 2
        low, high = (eps, high) if exact(model, x, y, norm, eps) > share + 1e-9 else (low, eps)
    return high


@pytest.mark.parametrize("boxed", [False, True], ids=["free", "boxed"])
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_attacks_leave_the_exact_robust_accuracy(norm: str, classes: int, boxed: bool) -> None:
    model, x, y, threat, share = case(classes, norm, boxed)
    attacks: dict[str, Attack] = {
        "apgd": APGD(100, targeted_margin, targets=classes - 1),
        "pgd": pgd(100, margin, rel_step_size=0.1, restarts=3),
    }
    for name, attack in attacks.items():
        left = float(run_attack(attack, model, x, y, threat).verdict.robust_fraction.mean())
        assert left == pytest.approx(share, abs=0.005 + 1e-9), name


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_audits_leave_the_exact_robust_accuracy(norm: str) -> None:
    model, x, y, threat, share = case(3, norm, boxed=True)
    data = Dataset("linear", (x * 255).round().byte(), y, ("a", "b", "c"), "made up")
    report = audit(model, data, threat, n=N, budget="quick")
    assert report.accuracy.adaptive.value == pytest.approx(share, abs=0.005 + 1e-9)


class NoisyDetector(nn.Module):
    """Two pixels a and b: the lead of the wrong class is a - 0.55; refused where a - b, with noise of 0.04, exceeds 0.

    In the Linf ball of 0.3 around (0.5, 0.5) the two margins, a - 0.55 and b - a, are as large as each other at
    (0.675, 0.8): 0.125, three standard deviations of the noise. The largest lead is at (0.8, 0.8), refused in half of
    all draws.
    """

    def forward(self, x: Tensor) -> Output:
        a, b = x.flatten(1).unbind(1)
        logits = torch.stack([torch.zeros_like(a), a - 0.55], 1)
        return Output(logits, a - b + 0.04 * normal(a.shape, like=a.detach()))


@pytest.mark.parametrize("loss", [margin, cross_entropy])
@pytest.mark.parametrize("attack", [pgd, APGD])
def test_a_noisy_detector_accepts_what_is_found_in_nearly_all_draws(attack: Callable[..., Attack], loss: Loss) -> None:
    x, y = torch.full((64, 1, 1, 2), 0.5), torch.zeros(64, dtype=torch.long)
    detector = NoisyDetector()
    judge = Judge(detector, parse("linf", 0.3), draws=16)
    found = run_attack(attack(60, loss, EOT(8), early_stop=False), detector, x, y, judge=judge)
    assert found.verdict.robust_fraction.mean() < 0.02
