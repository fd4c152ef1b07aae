"""Linear victims with known optima, and problems whose judge remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.problem import Problem
from unmask.judging import Judge
from unmask.models.model_wrappers import Passes, batch_invariant
from unmask.randomness import make_keys
from unmask.threats import Threat, parse
from unmask.types import Model

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


@dataclass
class Trial:
    """A problem, with what passed through its view and what its judge saw."""

    problem: Problem
    judge: Judge
    passes: Passes
    asked: list[tuple[Tensor, Tensor, Tensor]]  # rows, candidates, verdicts

    def broken(self, x_adv: Tensor) -> Tensor:
        problem = self.problem
        return self.judge.is_broken(x_adv, problem.x, problem.y, problem.keys.fold_in("final"))

    def seen_broken(self) -> dict[int, Tensor]:
        return {int(r): x for rows, x_adv, yes in self.asked for r, x in zip(rows[yes], x_adv[yes], strict=True)}


def make_trial(
    defense: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    view: Model | None = None,
    answer: bool | None = None,
    index: Tensor | None = None,
) -> Trial:
    """``answer`` makes a judge that always says the same."""
    index = torch.arange(len(x)) if index is None else index
    keys, passes = make_keys(0, index, "attack"), Passes()
    judge, asked = Judge(defense, threat), list[tuple[Tensor, Tensor, Tensor]]()
    ask = make_keys(0, index, "judge")

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        verdict = judge.is_broken(x_adv, x[rows], y[rows], ask.select(rows).fold_in(when))
        verdict = verdict if answer is None else torch.full_like(verdict, answer)
        asked.append((rows.clone(), x_adv.clone(), verdict))
        return verdict

    problem = Problem(batch_invariant(view or defense, passes=passes), x, y, threat, keys, broken)
    return Trial(problem, judge, passes, asked)


class Linear(nn.Module):
    """K classes, W x + b; the change of z_j - z_y over a ball is eps ||W_j - W_y|| in the dual norm."""

    def __init__(self, classes: int, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn((classes, torch.Size(shape).numel()), generator=generator)
        self.bias = -self.weight.sum(1) / 2  # the middle of the box is undecided

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    def gain(self, y: Tensor, norm: str) -> Tensor:
        """(B, K) what z_j - z_y can gain for a radius of 1, as long as the box does not bind."""
        gain: Tensor = torch.linalg.vector_norm(self.weight[None] - self.weight[y, None], DUAL[norm], dim=2)
        return gain

    def lead(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, K) z_j - z_y, -inf for j = y."""
        z = self.forward(x)
        return (z - z.gather(1, y[:, None])).scatter(1, y[:, None], -torch.inf)

    def critical(self, x: Tensor, y: Tensor, norm: str) -> Tensor:
        """(B,) the smallest radius that reaches another class."""
        return (-self.lead(x, y) / self.gain(y, norm).clamp_min(1e-9)).amin(1)


def linear_case(
    classes: int, norm: str, n: int = 48, shape: tuple[int, ...] = (1, 8, 8)
) -> tuple[Linear, Tensor, Tensor, Threat]:
    """Rightly classified images near the middle of the box, and a ball that breaks exactly half of them."""
    model = Linear(classes, shape)
    x = 0.4 + 0.2 * torch.rand((n, *shape), generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    radii = model.critical(x, y, norm).sort().values
    return model, x, y, parse(norm, float(radii[n // 2 - 1 : n // 2 + 1].mean()))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trial() -> Callable[..., Trial]:
    return make_trial


@pytest.fixture
def linear() -> Callable[..., tuple[Linear, Tensor, Tensor, Threat]]:
    return linear_case
