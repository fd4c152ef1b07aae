"""Records go to JSON and back unchanged, and what was torn or changed is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from unmask.kinds import Role
from unmask.records import Example, Figure, Job, Record, ThreatSpec, digest

JOB = Job(
    "case:a", "digits", "bpda", ThreatSpec("linf", 0.1 + 0.2), 3, 0, 2, Role.ADAPTIVE, {"steps": 10, "path": None}
)
EXAMPLES = (
    Example(0, 7, 3, 0.0, False, False, 0.05, 0.3),
    Example(1, 2, 2, 19 / 20, True, False, 1.0, 1e-300, refused=True),
)
RECORD = Record(JOB, EXAMPLES, 20, 400, 200, 40, 1.25, "examples/x.safetensors", "ab" * 32)


def changed(**fields: object) -> str:
    raw = {**json.loads(RECORD.to_json()), **fields}
    raw["digest"] = digest({name: value for name, value in raw.items() if name != "digest"})
    return json.dumps(raw)


def test_json_and_back() -> None:
    line = RECORD.to_json()
    assert "\n" not in line
    assert Record.from_json(line) == RECORD
    assert json.loads(line)["key"] == JOB.key


def test_key_is_the_same_forever() -> None:
    assert Job("case:a", "digits", "clean", ThreatSpec("linf", 0.25), 0, 0, 1).key == "8087b78a159a7d20"


def test_key_knows_the_options_but_not_their_order() -> None:
    assert replace(JOB, options={"path": None, "steps": 10}).key == JOB.key
    others = [
        replace(JOB, options={"path": None, "steps": 11}),
        replace(JOB, threat=ThreatSpec("linf", 0.3)),
        replace(JOB, threat=ThreatSpec("linf", 0.1 + 0.2, "rms")),
        replace(JOB, seed=4),
        replace(JOB, stop=3),
        replace(JOB, role=Role.CONTROL),
    ]
    assert len({JOB.key, *(other.key for other in others)}) == 7


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (RECORD.to_json()[:-1], "not a record"),
        ("", "not a record"),
        ("3", "not a record"),
        ("{}", "not a record: 'schema'"),
        (changed(schema="unmask.record/0"), "record of version 'unmask.record/0', this program reads"),
        (changed(extra=1), "not a Record: it has 'extra'"),
        (changed(key="0" * 16), f"record {'0' * 16} was changed: its job hashes to {JOB.key}"),
        (changed(job={**json.loads(RECORD.to_json())["job"], "seed": 4}), f"record {JOB.key} was changed"),
    ],
)
def test_refuses_in_one_line(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        Record.from_json(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", 1.5),
        ("value", float("nan")),
        ("value", "0.5"),
        ("source", ""),
        ("url", "http://example.org/"),
        ("url", "javascript:alert(1)"),
        ("url", 'https://example.org/"><script>'),
        ("url", "https://example.org/a b"),
        ("url", "https://example.org/)"),  # it would end a link of Markdown
        ("note", None),
    ],
)
def test_a_figure_has_a_share_a_source_and_a_plain_address(field: str, value: Any) -> None:
    good: dict[str, Any] = {"value": 0.5, "source": "Somebody", "url": "https://example.org/a_b?c=d#e", "note": ""}
    assert Figure(**good).value == 0.5
    with pytest.raises(ValueError, match="not a Figure: ") as error:
        Figure(**{**good, field: value})
    assert "\n" not in str(error.value)
