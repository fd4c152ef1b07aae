"""Runs made by hand, whose every number is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from unmask.kinds import Obfuscation, Role
from unmask.records import RUN_SCHEMA, Example, GradientCounts, Job, Record, ThreatSpec

CLAIMED = {"value": 0.79, "source": "Author et al. [1], Table 2", "url": "https://arxiv.org/abs/1", "note": "at 8/255"}


def figure(value: float, **more: str) -> dict[str, Any]:
    """What another paper says, as run.json holds it."""
    return {"value": value, "source": "Other et al., 2019", "url": "https://example.org/a_b", "note": "", **more}


@dataclass
class Builder:
    """A folder of a run in the making."""

    path: Path
    cases: list[dict[str, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def case(self, name: str, attacks: Sequence[str] = ("plain", "bpda"), **fields: Any) -> None:
        self.cases.append(
            {
                "case": name,
                "defense": f"the defense of {name}",
                "data": "digits",
                "note": "",
                "data_note": "",
                "obfuscation": ["shattered"],
                "threat": {"norm": "linf", "eps": 0.25, "unit": "raw"},
                "claimed": CLAIMED,
                "published": None,
                "citation": "Author et al., 2018",
                "random": False,
                "classes": ["zero", "one", "two"],
                "attacks": {attack: f"how {attack} works" for attack in attacks},
                **fields,
            }
        )

    def record(
        self,
        case: str,
        attack: str,
        robust: Sequence[float],
        *,
        role: str = "adaptive",
        screened: Sequence[float] | None = None,
        eps: float = 0.25,
        start: int = 0,
        images: bool = False,
        measured: Sequence[float] = (),
        gradients: GradientCounts | None = None,
        infeasible: int = 0,
        backwards: int = 4,
        failures: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Record:
        """Examples of label 1, predicted as 2 where they are not robust; 10 forward passes each, 4 backward.

        The candidates of the first ``infeasible`` are outside the ball.
        """
        job = Job(
            f"case:{case}",
            "digits",
            attack,
            ThreatSpec("linf", eps),
            0,
            start,
            start + len(robust),
            Role(role),
            options,
        )
        examples = tuple(
            Example(start + i, 1, 1 if r == 1 else 2, r, r > 0.5, r == 1, s, eps, feasible=i >= infeasible)
            for i, (r, s) in enumerate(zip(robust, screened or robust, strict=True))
        )
        file = f"examples/{job.key}.safetensors" if images else None
        if file:
            (self.path / "examples").mkdir(exist_ok=True)
            clean = np.full((len(robust), 1, 4, 4), 0.5, dtype=np.float32)
            index = np.arange(start, start + len(robust))
            looked: dict[str, Any] = {"seen": clean[:3] / 2, "measured": np.array(measured, np.float32)}
            looked = looked if measured else {}
            save_file({"clean": clean[:3], "x_adv": clean + 1 / 32, "index": index, **looked}, self.path / file)
        n = len(robust)
        record = Record(
            job, examples, 4, 10 * n, backwards * n, n, 1.5, file, gradients=gradients, failures=failures or {}
        )
        self.records.append(record)
        return record

    def write(self) -> Path:
        run = {
            "schema": RUN_SCHEMA,
            "config": {},
            "jobs": [],
            "fingerprints": {},
            "command": "reproduce",
            "suite": None,
            "n": None,
            "seed": 17,
            "versions": {"torch": "2.99"},
            "hardware": {"cores": 3, "gpu": None},
            "revision": None,
            "started": "2030-01-02T03:04:05+00:00",
            "cases": self.cases,
        }
        (self.path / "run.json").write_text(json.dumps(run))
        (self.path / "records.jsonl").write_text("".join(record.to_json() + "\n" for record in self.records))
        return self.path


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


@pytest.fixture
def run(builder: Builder) -> Path:
    """One of each: a masked defense, a random one, a control, an incomplete one."""
    clean = [1] * 9 + [0]
    builder.case("broken")
    builder.record("broken", "clean", clean, role="clean")
    builder.record("broken", "plain", [1] * 8 + [0, 0], role="plain")
    builder.record("broken", "bpda", [0] * 7 + [1, 1, 0], images=True)
    builder.record("broken", "noise", clean[:4], role="control")
    builder.record("broken", "bpda", [0] * 4, role="control", eps=1.0, control="unbounded")
    builder.record("broken", "plain", [1, 1, 1, 0], role="eps", eps=0.5, base="plain")
    builder.record("broken", "bpda", [0, 0, 0, 1], role="eps", eps=0.5, base="adaptive")

    builder.case("noisy", ("plain", "eot"), random=True, obfuscation=["stochastic"], published=figure(0.0))
    builder.record("noisy", "clean", [1, 1, 0.75, 0.5], role="clean")
    builder.record("noisy", "plain", [0.75, 0.5, 0.25, 0.5], role="plain", screened=[0.25, 0.5, 0.5, 0.5])
    builder.record("noisy", "eot", [1, 0.25, 0, 0.25], screened=[0.5, 0, 0.5, 0.5])

    builder.case("bare", ("plain",), obfuscation=[Obfuscation.NONE], claimed=None)
    builder.record("bare", "clean", [1, 1, 1, 1], role="clean")
    builder.record("bare", "plain", [0, 0, 0, 1], role="plain")

    builder.case("begun", note="slow")
    builder.record("begun", "clean", [1, 1, 1], role="clean")
    builder.record("begun", "plain", [1, 0], role="plain")
    return builder.write()
