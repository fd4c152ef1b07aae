"""Jobs, records and findings, as plain, versioned data that goes to JSON and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any

from unmask.kinds import Role

__all__ = [
    "AUDIT_SCHEMA",
    "RECORD_SCHEMA",
    "RUN_SCHEMA",
    "TABLE_SCHEMA",
    "AttackCode",
    "Example",
    "Figure",
    "Finding",
    "GradientCounts",
    "Job",
    "Record",
    "ThreatSpec",
    "check_types",
    "digest",
]

AUDIT_SCHEMA = "unmask.audit/3"
RECORD_SCHEMA = "unmask.record/3"
RUN_SCHEMA = "unmask.run/4"
TABLE_SCHEMA = "unmask.table/3"


def digest(data: Any) -> str:
    """Sixteen hexadecimal digits that identify plain data.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    True
    """
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def check_types(data: Any) -> None:
    """Hold the fields of a dataclass against its annotations, as far as these are plain; ValueError names one.

    >>> check_types(ThreatSpec("linf", "large"))
    Traceback (most recent call last):
    ValueError: not a ThreatSpec: eps is 'large'
    """
    for one in fields(data):
        value, kinds = getattr(data, one.name), _KINDS.get(str(one.type))
        if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"not a {type(data).__name__}: {one.name} is {value!r:.40}")


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, str]": (dict,),
    "Mapping[str, Any] | None": (dict, NoneType),
}
_MOST = 1 << 40
_ADDRESS = re.compile(r"https://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(/[\w./?=&%#~+-]*)?")
_FILE = re.compile(r"examples/[\w-]+\.safetensors")


@dataclass(frozen=True)
class ThreatSpec:
    """A ball: norm ("linf", "l2", "l1"), size, and the unit of the size."""

    norm: str
    eps: float
    unit: str = "raw"


@dataclass(frozen=True)
class Figure:
    """A robust accuracy that others stated, and its source.

    Args:
        value: the share, in [0, 1].
        source: paper or repository, with the table or file in it.
        url: of the source, or of the page from which one gets to it.
        note: what a reader has to know before comparing; "unverified" where nobody could look the source up.

    Raises ValueError for a value that is no share, a source without a name, or an address that is not plain https.

    >>> Figure(0.05, "Athalye et al., ICML 2018, Table 1", "https://arxiv.org/abs/1802.00420").value
    0.05
    >>> Figure(0.05, "a paper", "javascript:alert(1)")
    Traceback (most recent call last):
    ValueError: not a Figure: the address of its source is 'javascript:alert(1)'
    """

    value: float
    source: str
    url: str
    note: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.value <= 1:
            raise ValueError(f"not a Figure: its value is {self.value!r}, not a share in [0, 1]")
        if not self.source:
            raise ValueError("not a Figure: its source has no name")
        if not _ADDRESS.fullmatch(self.url):  # it becomes a link
            raise ValueError(f"not a Figure: the address of its source is {self.url!r:.80}")


@dataclass(frozen=True)
class Finding:
    """One fault of a model's gradients or setup: ``kind`` as in the paper, the place, its size, the remedy."""

    kind: str  # a FindingKind
    module: str  # path of the part; empty for code of the model's own forward
    where: str  # file, line, code
    evidence: Mapping[str, Any]
    remedy: str


@dataclass(frozen=True)
class AttackCode:
    """Attacks of an audit as Python code, and what a script needs besides to repeat them."""

    views: Mapping[str, Sequence[str]]  # variable -> the calls that make the view, innermost first
    attacks: Mapping[str, str]  # name of an attack -> the expression that makes it
    draws: int  # of the model's randomness, per verdict
    uses_torch_random: bool
    seen: int  # first images of the data that the audit looked at
    misclassified: Sequence[int]  # positions of those of them on which no surrogate is fitted
    timed: bool  # whether the result depends on the machine


@dataclass(frozen=True)
class Job:
    """One attack on a range of examples of one target: names and numbers only.

    ``start`` and ``stop`` are positions in the test order of ``data``. ``options`` holds whatever else
    changes the result, such as the attack's own settings.
    """

    target: str  # "case:thermometer-mnist", "file.py:factory", "package.module:factory"
    data: str
    attack: str
    threat: ThreatSpec
    seed: int
    start: int
    stop: int
    role: Role = Role.ADAPTIVE
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that identify everything in the job."""
        return digest(asdict(self))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Job:
        """The job of plain data; TypeError, KeyError or ValueError where they are not those of a job."""
        job = cls(**{**raw, "threat": ThreatSpec(**raw["threat"]), "role": Role(raw["role"])})
        for part in (job, job.threat):
            check_types(part)
        if not 0 <= job.start < job.stop < _MOST:
            raise ValueError(f"a job on examples {job.start} to {job.stop}")
        return job


@dataclass(frozen=True)
class Example:
    """The verdict on one example."""

    index: int
    label: int
    predicted: int  # in the first scoring draw
    robust: float  # share of fresh draws in which the example is robust; 0 or 1 without randomness
    robust_one_draw: bool  # whether it is robust in the first fresh draw
    robust_all_draws: bool  # whether it is robust in every fresh draw (any-of-k attacks)
    selection_robust: float  # the same share on the draws that attacks select by
    distance: float  # of the candidate, in the threat's unit
    refused: bool = False  # by a detector, in the first scoring draw
    feasible: bool = True  # whether the candidate lies inside ball and box; else the clean image was judged


@dataclass(frozen=True)
class GradientCounts:
    """Examples that an attack computed gradients for, and on how many of them the gradients were of no use."""

    examples: int  # for which at least one gradient was computed
    none: int  # of these: every gradient was missing or zero
    not_finite: int  # of these: some gradient had an element that was NaN or infinite

    @classmethod
    def total(cls, counts: Sequence[GradientCounts]) -> GradientCounts:
        """The sums.

        >>> GradientCounts.total([GradientCounts(2, 1, 0), GradientCounts(3, 0, 3)])
        GradientCounts(examples=5, none=1, not_finite=3)
        """
        return cls(*(sum(getattr(one, field.name) for one in counts) for field in fields(cls)))


@dataclass(frozen=True)
class Record:
    """The result of a job."""

    job: Job
    examples: tuple[Example, ...]
    draws: int  # of the defense's randomness, per verdict
    forwards: int  # examples times passes, by the attack; the judge's are apart
    backwards: int
    judge_passes: int  # forward passes by the judge
    seconds: float
    file: str | None = None  # adversarial examples, relative to the run's folder
    sha256: str | None = None  # of that file
    gradients: GradientCounts | None = None  # None where the attack computed no gradient
    schema: str = RECORD_SCHEMA

    def to_json(self) -> str:
        """One line of JSON, which holds a digest of the rest of it."""
        raw = {"key": self.job.key, **asdict(self)}
        return json.dumps({**raw, "digest": digest(raw)}, sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record of a line of JSON; ValueError where the line is torn, changed or of another version."""
        try:
            raw = json.loads(line)
            if raw["schema"] != RECORD_SCHEMA:
                raise ValueError(f"record of version {raw['schema']!r}, this program reads {RECORD_SCHEMA!r}")
            check = raw.pop("digest", None)  # older records have none
            if check is not None and check != digest(raw):
                raise ValueError(f"record {raw['key']} was changed: it does not fit its own digest")
            key = raw.pop("key")
            raw["job"] = Job.of(raw["job"])
            raw["examples"] = tuple(Example(**example) for example in raw["examples"])
            raw["gradients"] = None if raw["gradients"] is None else GradientCounts(**raw["gradients"])
            record = cls(**raw)
            counts = () if record.gradients is None else (record.gradients,)
            for part in (record, *counts, *record.examples):
                check_types(part)
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"not a record: {error}") from error
        if record.job.key != key:
            raise ValueError(f"record {key} was changed: its job hashes to {record.job.key}")
        if not all(
            0 <= e.robust <= 1 and 0 <= e.selection_robust <= 1 and 0 <= e.index < _MOST for e in record.examples
        ):
            raise ValueError("not a record: a share out of [0, 1], or an example without a position")
        if record.file is not None and not _FILE.fullmatch(record.file):
            raise ValueError(f"not a record: {record.file!r} is no file of the run's examples")
        return record
