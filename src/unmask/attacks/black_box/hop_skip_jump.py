"""HopSkipJump: a search along the decision boundary, from predicted labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks.problem import BestTracker, Problem
from unmask.errors import UnmaskError
from unmask.losses import margin
from unmask.progress import track
from unmask.randomness import Keys, normal, uniform, use_keys

__all__ = ["HopSkipJump"]

_HALVINGS = 10  # of the way to the boundary: to a thousandth of it
_JUMPS = 8  # halvings of a step that leads back into the true class


@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump (Chen, Jordan & Wainwright, S&P 2020) for Linf and L2: only labels, and refusals, are looked at.

    From a random image of another class go straight towards the image up to the boundary; estimate its
    normal there from the labels of random probes; jump along it, go to the boundary again, and so on. The
    distance shrinks; an example whose distance is within the ball is shown to the judge.

    The probes are a share of the distance in size, where the paper's shrink with the dimension, so that they
    can be distinguished behind a defense that rounds.

    Args:
        queries: labels per example, at most.
        probes: of the first estimate; the k-th has ``probes * sqrt(k)``.
        tries: random images in search of another class.
        size: of the probes, as a share of the distance.

    Raises UnmaskError for balls other than Linf and L2, and for settings below 1, or a size that
    is not positive.

    >>> from unmask.randomness import make_keys
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> broken = lambda rows, x_adv, when: view(x_adv).argmax(1) != y[rows]
    >>> problem = Problem(view, x, y, Linf(0.2), make_keys(0, [0], "attack"), broken)
    >>> view(HopSkipJump(queries=500)(problem)).argmax(1)
    tensor([1])
    """

    queries: int = 2000
    probes: int = 100
    tries: int = 100
    size: float = 0.05

    def __post_init__(self) -> None:
        if min(self.queries, self.probes, self.tries) < 1 or not self.size > 0:
            raise UnmaskError(f"HopSkipJump needs settings of 1 at least, and a size above 0, not {self}")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Tensor:
        problem, threat = problem.black_box(), problem.threat
        if threat.norm not in ("linf", "l2"):
            raise UnmaskError(f"HopSkipJump knows no {threat.norm} ball", "use linf or l2, or another attack")
        tracker = BestTracker(problem, margin)
        at, spent = self._start(problem)
        spent += _HALVINGS
        rows = (spent <= self.queries).nonzero().squeeze(1)
        at = _boundary(problem, rows, at[rows], problem.keys.select(rows).fold_in("first boundary"))
        for hop in track(range(self.queries), "hop"):
            rows, at = _shown(problem, tracker, rows, at)
            count = int(self.probes * math.sqrt(hop + 1))
            left = spent[rows] + count + _JUMPS + _HALVINGS <= self.queries
            rows, at = rows[left], at[left]
            if not len(rows):
                break
            keys = problem.keys.select(rows).fold_in(hop)
            normals = _normals(problem, rows, at, (count, self.size), keys.fold_in("probe"))
            at = _jump(problem, rows, at, normals, hop, keys.fold_in("jump"))
            at = _boundary(problem, rows, at, keys.fold_in("boundary"))
            spent[rows] += count + _JUMPS + _HALVINGS
        return tracker.best

    def _start(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """An image of another class for each example (B, C, H, W), and the queries that it took; many for none."""
        at, rows = problem.x.clone(), torch.arange(len(problem.x), device=problem.x.device)
        spent = torch.zeros_like(problem.y)
        for one in range(min(self.tries, self.queries)):
            if not len(rows):
                break
            keys = problem.keys.select(rows).fold_in("start").fold_in(one)
            with use_keys(keys):
                image = uniform(problem.x[rows].shape, like=at)
            other = _other(problem, rows, image, keys.fold_in("label"))
            at[rows[other]] = image[other]
            spent[rows] += 1
            rows = rows[~other]
        spent[rows] = self.queries + 1
        return at, spent


def _other(problem: Problem, rows: Tensor, x: Tensor, keys: Keys) -> Tensor:
    """Whether (M,) images are of another class than the examples ``rows``, and not refused."""
    if not len(rows):
        return rows < 0
    with use_keys(keys):
        answer = problem.answer(x, rows)
    other: Tensor = answer.logits.argmax(1) != problem.y[rows]
    return other if answer.reject is None else other & (answer.reject <= 0)


def _shown(problem: Problem, tracker: BestTracker, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Show the judge what has come into the ball; who stays in the search, and where."""
    x = problem.x[rows]
    near = problem.threat.project(at, x)
    away = (near - at).flatten(1).norm(dim=1)
    keep = tracker.update(rows, near, torch.where(away == 0, 1.0, -away))
    return (rows, at) if keep is None else (rows[keep], at[keep])


def _boundary(problem: Problem, rows: Tensor, at: Tensor, keys: Keys) -> Tensor:
    """From ``at`` straight towards the image, as far as the class stays another one."""
    x = problem.x[rows]
    high, low = at.new_ones(len(at)), at.new_zeros(len(at))
    for halving in range(_HALVINGS):
        middle = (high + low) / 2
        other = _other(problem, rows, _between(problem, x, at, middle), keys.fold_in(halving))
        high, low = torch.where(other, middle, high), torch.where(other, low, middle)
    return _between(problem, x, at, high)


def _between(problem: Problem, x: Tensor, at: Tensor, share: Tensor) -> Tensor:
    """The nearest point to ``at`` whose distance from ``x`` is a share of its own."""
    share = share.view(-1, 1, 1, 1)
    if problem.threat.norm == "l2":
        return torch.lerp(x, at, share)
    most = share * _distance(problem, x, at)
    return x + (at - x).clamp(-most, most)


def _distance(problem: Problem, x: Tensor, at: Tensor) -> Tensor:
    order = 2 if problem.threat.norm == "l2" else torch.inf
    distance: Tensor = (at - x).flatten(1).norm(p=order, dim=1)
    return distance.view(-1, 1, 1, 1)


def _normals(problem: Problem, rows: Tensor, at: Tensor, probes: tuple[int, float], keys: Keys) -> Tensor:
    """Estimates (M, C, H, W) of the boundary's normals, towards the other class, by so many probes of such a size."""
    count, size = probes
    length = size * (at - problem.x[rows]).square().flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
    agreed, total = torch.zeros_like(at), torch.zeros_like(at)
    mean = at.new_zeros(len(at), 1, 1, 1)
    for probe in range(count):
        with use_keys(keys.fold_in(probe)):
            aside = normal(at.shape, like=at) if problem.threat.norm == "l2" else 2 * uniform(at.shape, like=at) - 1
        moved = (at + length * aside).clamp(0, 1)
        sign = 2.0 * _other(problem, rows, moved, keys.fold_in(probe).fold_in("label")).view(-1, 1, 1, 1) - 1
        agreed += sign * (moved - at)
        total += moved - at
        mean += sign / count
    return torch.where(mean.abs() < 1 - 0.5 / count, agreed - mean * total, agreed)


def _jump(problem: Problem, rows: Tensor, at: Tensor, normals: Tensor, hop: int, keys: Keys) -> Tensor:
    """Along the normals by distance / sqrt(hop + 1), half as far until the class is another one."""
    if problem.threat.norm == "l2":
        direction = normals / normals.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    else:
        direction = normals.sign()
    length = _distance(problem, problem.x[rows], at) / math.sqrt(hop + 1)
    result, waiting = at.clone(), torch.arange(len(at), device=at.device)
    for halving in range(_JUMPS):
        further = (at[waiting] + length[waiting] / 2**halving * direction[waiting]).clamp(0, 1)
        other = _other(problem, rows[waiting], further, keys.select(waiting).fold_in(halving))
        result[waiting[other]] = further[other]
        waiting = waiting[~other]
        if not len(waiting):
            break
    return result
