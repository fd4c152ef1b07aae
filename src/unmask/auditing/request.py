"""What an audit is asked, and the four steps that answer it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from unmask.auditing.budgets import Budget, budget_of
from unmask.data import Dataset
from unmask.evaluation.models.targets import Target
from unmask.progress import stage
from unmask.randomness import Keys, make_keys
from unmask.threats import Threat

__all__ = ["STEPS", "AuditRequest", "step"]

STEPS = ("check the model", "probe its gradients", "pilot the candidate views", "plan the attacks")


@dataclass(frozen=True)
class AuditRequest:
    """A model, the images that it is audited on, and what may be spent. Raises UnmaskError for an unknown budget."""

    name: str
    """Of the model, as its jobs and its report call it."""
    target: Target
    data: Dataset
    threat: Threat
    n: int
    """Test examples; the first n, or all there are."""
    seed: int = 0
    """Of all randomness."""
    budget: str = "standard"
    device: str = "cpu"

    def __post_init__(self) -> None:
        budget_of(self.budget)

    @property
    def limits(self) -> Budget:
        return budget_of(self.budget)

    @property
    def count(self) -> int:
        """Test examples that there are."""
        return min(self.n, len(self.data))

    @property
    def random(self) -> bool:
        """Whether the model draws random numbers, so that verdicts need several draws."""
        return self.target.draws > 1

    def keys(self, index: Tensor | Sequence[int], purpose: str) -> Keys:
        return make_keys(self.seed, index, purpose)


@contextmanager
def step(what: str, seconds: dict[str, float]) -> Iterator[None]:
    """One of the :data:`STEPS`: the watcher gets its name when it begins, ``seconds`` what it took."""
    began = time.monotonic()
    with stage(f"{what}, audit step", STEPS.index(what), len(STEPS)):
        yield
    seconds[what] = time.monotonic() - began
