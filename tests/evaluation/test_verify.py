"""A good run passes, and nothing that was changed afterwards does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.verifying.verify import verify
from unmask.records import digest
from unmask.types import InvalidModelOutput


@pytest.fixture
def asked(plan: Callable[..., Plan]) -> Plan:
    return plan("noisy", 6, steps=2)


@pytest.fixture
def folder(asked: Plan, done: Callable[..., Path]) -> Path:
    return done(asked)


def problems(folder: Path, asked: Plan) -> dict[str, str]:
    return {
        check.record: check.problem
        for check in verify(folder, LocalExecutor(ExecutionConfig(4)), [asked])
        if check.problem
    }


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> str:
    """Edit the last record's line; its key as it was."""
    path = folder / "records.jsonl"
    *before, last = path.read_text().splitlines()
    record = json.loads(last)
    key = record["key"]
    edit(record)
    del record["digest"]
    record["digest"] = digest(record)  # as somebody would who means it
    path.write_text("".join(line + "\n" for line in [*before, json.dumps(record, sort_keys=True)]))
    return str(key)


def test_a_good_run(folder: Path, asked: Plan) -> None:
    checks = list(verify(folder, LocalExecutor(), [asked]))
    assert [(check.examples, check.problem) for check in checks if check.examples] == [(6, None), (6, None)]
    assert not any(check.problem for check in checks)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "robust": (
        lambda r: r["examples"][3].update(robust=1.0 - r["examples"][3]["robust"]),
        "1 of 6 verdicts differ",
    ),
    "distance": (lambda r: r["examples"][3].update(distance=0.05), "1 of 6 verdicts differ, first at example 3"),
    "prediction": (lambda r: r["examples"][5].update(predicted=11), "1 of 6 verdicts differ, first at example 5"),
    "label": (lambda r: r["examples"][5].update(label=11), "1 of 6 verdicts differ, first at example 5"),
    "selection_robust": (
        lambda r: r["examples"][0].update(selection_robust=0.123),
        "1 of 6 verdicts differ, first at example 0",
    ),
    "fewer examples": (lambda r: r["examples"].pop(), "it has 5 examples and 16 draws, not 6 and 16"),
    "draws": (lambda r: r.update(draws=1), "it has 6 examples and 1 draws, not 6 and 16"),
    "file": (lambda r: r.update(file="examples/none.safetensors"), "its examples are missing"),
    "no file": (lambda r: r.update(file=None), "its examples are missing"),
    "hash": (lambda r: r.update(sha256="0" * 64), "its examples were changed"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record(folder: Path, asked: Plan, name: str) -> None:
    edit, problem = EDITS[name]
    key = change(folder, edit)
    ((record, found),) = problems(folder, asked).items()
    assert record.startswith(f"{key} (")
    assert record.endswith("apgd 0-6 at linf 0.1 raw)")
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda r: r["job"].update(seed=1), "was changed: its job hashes to"),
        (lambda r: r["job"]["threat"].update(eps=0.3), "was changed: its job hashes to"),
        (lambda r: r.pop("examples"), "not a record"),
        (lambda r: r.update(schema="unmask.record/0"), "record of version"),
    ],
)
def test_a_line_that_is_no_longer_a_record(
    folder: Path, asked: Plan, edit: Callable[[dict[str, Any]], None], problem: str
) -> None:
    change(folder, edit)
    found = problems(folder, asked)
    assert found.keys() == {"line 2 of records.jsonl", "the records"}
    assert problem in found["line 2 of records.jsonl"]
    assert "apgd 0-6 at linf 0.1 raw" in found["the records"]


def test_a_flipped_byte_in_the_examples(folder: Path, asked: Plan) -> None:
    key = change(folder, lambda record: None)
    path = folder / "examples" / f"{key}.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert [*problems(folder, asked).values()] == ["its examples were changed"]
    path.unlink()
    assert [*problems(folder, asked).values()] == ["its examples are missing"]


def replace_examples(folder: Path, x_adv: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Other examples, with the hash that belongs to them: only judging them again can tell."""

    def edit(record: dict[str, Any]) -> None:
        path = folder / record["file"]
        tensors = load_file(path)
        raw = save({**tensors, "x_adv": x_adv(tensors["x_adv"])})
        path.write_bytes(raw)
        record["sha256"] = hashlib.sha256(raw).hexdigest()

    change(folder, edit)


@pytest.mark.parametrize(
    ("x_adv", "problem"),
    [
        (lambda x: x.flip(0), "verdicts differ"),
        (lambda x: x + 0.2, "6 of 6 verdicts differ"),  # out of the ball
        (lambda x: x * torch.nan, "6 of 6 verdicts differ"),  # no candidates at all
        (lambda x: x[:5], "its examples have shape (5, 1, 8, 8), not that of 6 images of digits"),
        (lambda x: x[..., :7].contiguous(), "its examples have shape (6, 1, 8, 7)"),
        (lambda x: x.double(), "its examples are torch.float64, not torch.float32"),
    ],
)
def test_other_examples(folder: Path, asked: Plan, x_adv: Callable[[torch.Tensor], torch.Tensor], problem: str) -> None:
    replace_examples(folder, x_adv)
    (found,) = problems(folder, asked).values()
    assert problem in found


@pytest.mark.parametrize("raw", [b"no tensors", save({"index": torch.arange(6)})])
def test_a_file_without_candidates(folder: Path, asked: Plan, raw: bytes) -> None:
    def edit(record: dict[str, Any]) -> None:
        (folder / record["file"]).write_bytes(raw)
        record["sha256"] = hashlib.sha256(raw).hexdigest()

    change(folder, edit)
    assert [*problems(folder, asked).values()] == ["its examples cannot be read"]


def test_pictures_that_are_gone(folder: Path, asked: Plan) -> None:
    def edit(record: dict[str, Any]) -> None:
        path = folder / record["file"]
        raw = save({name: tensor for name, tensor in load_file(path).items() if name != "clean"})
        path.write_bytes(raw)
        record["sha256"] = hashlib.sha256(raw).hexdigest()

    change(folder, edit)
    assert [*problems(folder, asked).values()] == ["not what belongs to these examples: clean"]


def test_a_report_of_a_run_that_gives_none(folder: Path, asked: Plan) -> None:
    """Its question lacks what reports say of it."""
    (folder / "report.md").write_text("All is well.")
    ((where, found),) = problems(folder, asked).items()
    assert where == "the report"
    assert "cannot be shown" in found


def test_a_line_without_its_digest(folder: Path, asked: Plan) -> None:
    path = folder / "records.jsonl"
    first, last = path.read_text().splitlines()
    record = json.loads(last)
    del record["digest"]
    path.write_text(f"{first}\n{json.dumps(record, sort_keys=True)}\n")
    found = problems(folder, asked)
    assert found["line 2 of records.jsonl"] == "it has no digest, or it was written again"
    assert found["the records"].startswith("missing: ")


def test_a_torn_last_line_after_all_records(folder: Path, asked: Plan) -> None:
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"key": "12')
    assert problems(folder, asked).keys() == {"the end of records.jsonl"}


def test_answers_that_cannot_be_judged_are_a_problem_of_the_record(
    folder: Path, asked: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise InvalidModelOutput("logits of no use")

    monkeypatch.setattr("unmask.evaluation.verifying.recheck.rejudge", refuse)
    assert [*problems(folder, asked).values()] == ["logits of no use"] * 2


def test_no_records(folder: Path, asked: Plan) -> None:
    (folder / "records.jsonl").unlink()
    with pytest.raises(ValueError, match="holds no records: there is nothing to verify"):
        problems(folder, asked)
