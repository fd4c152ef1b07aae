"""What is recorded of an example depends on nothing but the example: not on batches, not on how many were asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.runner import LocalExecutor

DETERMINISTIC = {"bpda": ["before"]}
RANDOM = {"eot": 3}


@pytest.mark.parametrize(
    ("factory", "options"),
    [("rounded", DETERMINISTIC), ("noisy", RANDOM), ("case:lwta-digits", RANDOM)],
)
def test_batch_size(plan: Any, done: Any, results: Any, factory: str, options: Any) -> None:
    asked = plan(factory, 20, **options)
    small, large = (done(asked, LocalExecutor(ExecutionConfig(batch))) for batch in (7, 64))
    assert results(small) == results(large)
    robust = [e["robust"] for r in results(small).values() if r["job"]["attack"] == "apgd" for e in r["examples"]]
    assert 0 < sum(robust) < 20  # else there was nothing to tell apart


@pytest.mark.parametrize(("factory", "options"), [("rounded", DETERMINISTIC), ("noisy", RANDOM)])
def test_the_first_n_of_a_larger_run(
    plan: Any,
    done: Any,
    results: Any,
    candidates: Any,
    factory: str,
    options: Any,
) -> None:
    """The larger run has two jobs an attack, of which the smaller one's is neither."""
    few, many = (done(plan(factory, n, steps=2, **options)) for n in (12, 132))
    assert torch.equal(candidates(few, "apgd"), candidates(many, "apgd")[:12])
    assert not results(few).keys() & results(many).keys()

    def examples(folder: Any) -> list[Any]:
        return sorted((r["job"]["attack"], e["index"], e) for r in results(folder).values() for e in r["examples"])

    assert examples(few) == [(a, i, e) for a, i, e in examples(many) if i < 12]
