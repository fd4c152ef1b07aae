"""A defense of one's own, attacked in twenty lines: grey levels are rounded, and the gradient is gone.

Run: python examples/own_defense.py (needs no data beyond scikit-learn's digits)
Or attack it from the command line:
    unmask attack examples/own_defense.py:build --data digits --eps 0.15 --attack apgd --bpda quantize=identity
"""

import torch
from torch import nn

import unmask
from unmask.cases import find_case
from unmask.data import load


class Quantize(nn.Module):
    """Eight grey levels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in [0, 1] -> the same, rounded."""
        return (x * 7).round() / 7


class Defended(nn.Module):
    """A trained network behind the rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.quantize = Quantize()
        self.network = find_case("plain-digits").load()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 8, 8) in [0, 1] -> logits (B, 10)."""
        return self.network(self.quantize(x))


def build() -> nn.Module:
    """What the command line calls."""
    return Defended().eval()


def main() -> None:
    """Accuracy without attack, under the plain attack, and under BPDA."""
    defense = build()
    x, y = load("digits", "test", n=200).batch()
    threat = unmask.Linf(0.15)
    print(f"clean: {unmask.judge(defense, threat, x, y, x_adv=x).accuracy.value:.1%}")
    for name, view in {"plain": None, "bpda": unmask.bpda("quantize"), "inline": unmask.straight_through}.items():
        left = unmask.run_attack(unmask.APGD(50), defense, x, y, threat, view=view).accuracy
        print(f"{name}: {left.value:.1%} left, 95 % interval [{left.low:.1%}, {left.high:.1%}]")


if __name__ == "__main__":
    main()
