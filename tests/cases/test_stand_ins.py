"""The attacks of the ImageNet cases break small stand-ins: a classifier of mean colours behind each defense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack, verdicts
from unmask.cases import find_case
from unmask.defenses.averaged import Averaged
from unmask.defenses.distortion import RandomDistortion
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.randomization import Randomization, RandomResizePad
from unmask.defenses.transforms.bit_depth import ReduceBitDepth
from unmask.defenses.transforms.crop import CropEnsemble
from unmask.defenses.transforms.feature_distillation import FeatureDistillation
from unmask.defenses.transforms.jpeg import JPEG
from unmask.defenses.transforms.quilting import Quilt
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation
from unmask.judging import Judge
from unmask.randomness import make_keys, use_keys

SIDE, N = 24, 4
KINDS = 0.5 + 0.02 * torch.tensor([[1.0, 1, -1], [-1, -1, -1], [1, -1, 1], [-1, 1, 1]])  # a mean colour each


def pictures(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 3, 24, 24) of texture about the mean colour of their class: it alone tells the classes apart."""
    labels = torch.arange(n) % len(KINDS)
    texture = 0.15 * torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    texture = texture - texture.mean((2, 3), keepdim=True)
    return (KINDS[labels][:, :, None, None] + texture).clamp(0, 1), labels


class Nearest(nn.Module):
    """The nearest of the mean colours that ``transform`` gives to the classes; for pictures of any size."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        x, y = pictures(32, 1)
        with torch.no_grad(), use_keys(make_keys(0, range(len(x)), "test")):
            seen = transform(x).mean((2, 3))
        self.mean = torch.stack([seen[y == k].mean(0) for k in range(len(KINDS))])

    def forward(self, x: Tensor) -> Tensor:
        return 2000 * (2 * x.mean((2, 3)) @ self.mean.T - self.mean.square().sum(1))


def behind(transform: nn.Module) -> nn.Module:
    return Preprocessed(transform, Nearest(transform))


def quilt() -> nn.Module:
    colours = 0.3 + 0.4 * torch.rand(2000, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    return Quilt(colours.expand(-1, -1, 5, 5))


def averaged() -> nn.Module:
    transforms = (ReduceBitDepth(), JPEG(), MinimiseTotalVariation(), quilt())
    return Averaged([*map(behind, transforms), CropEnsemble(Nearest(nn.Identity()), 16, 8)])


STAND_INS: dict[str, Callable[[], nn.Module]] = {
    "bitdepth-imagenet": lambda: behind(ReduceBitDepth()),
    "jpeg-imagenet": lambda: behind(JPEG()),
    "tvm-imagenet": lambda: behind(MinimiseTotalVariation()),
    "quilting-imagenet": lambda: behind(quilt()),
    "crop-imagenet": lambda: CropEnsemble(Nearest(nn.Identity()), 16, 8),
    "transforms-imagenet": averaged,
    "randomization-imagenet": lambda: Randomization(Nearest(RandomResizePad(24, 28, 0.5)), 24, 28, fill=0.5),
    "feature-distillation-imagenet": lambda: behind(FeatureDistillation()),
    "fd-rdg-imagenet": lambda: behind(nn.Sequential(FeatureDistillation(), RandomDistortion())),
}
RIGHT = {"crop-imagenet", "transforms-imagenet", "randomization-imagenet"}  # whose own gradient is not hidden


def attacks(access: str) -> list[tuple[str, str]]:
    """Of all these cases: names of case and attack."""
    return [(name, key) for name in STAND_INS for key, a in find_case(name).attacks.items() if a.access == access]


def left(name: str, key: str, case: str = "") -> float:
    defense = STAND_INS[name]().eval()
    found = find_case(case or name)
    x, y = pictures(N, 0)
    judge = Judge(defense, found.threat, found.draws)
    index = torch.arange(N)
    assert verdicts(judge, x, x, y, index, 0)[0].robust_fraction.mean() >= 0.9
    attacker = found.attacks[key]
    made = run_attack(attacker.make(defense), defense, x, y, judge=judge, view=attacker.view)
    assert made.verdict.feasible.all()
    return made.accuracy.value


@pytest.mark.parametrize(("name", "key"), attacks("white box"))
def test_attacks_built_for_a_defense_break_it_and_the_plain_one_only_where_gradients_are_right(
    name: str, key: str
) -> None:
    hidden = key == "plain" and name not in RIGHT
    share = left(name, key)
    assert share >= 0.9 if hidden else share <= 0.1


@pytest.mark.parametrize(("name", "key"), [*attacks("grey box"), *attacks("scores")])
def test_feature_distillation_falls_at_lower_access_too(name: str, key: str) -> None:
    assert left(name, key) <= 0.1


def test_the_same_attacks_fit_the_ball_that_is_stated_relative_to_the_image() -> None:
    assert left("jpeg-imagenet", "plain", "jpeg-relative-imagenet") >= 0.9
    assert left("jpeg-imagenet", "bpda", "jpeg-relative-imagenet") <= 0.1
