"""Jobs, records and findings, as plain, versioned data that goes to JSON and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import NoneType
from typing import Any, TypeVar

from unmask.errors import UnmaskError
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
    "built",
    "check_types",
    "digest",
    "parsed",
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
    """Hold the fields of a dataclass against its annotations, as far as these are plain; UnmaskError names one.

    >>> check_types(ThreatSpec("linf", "large"))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: not a ThreatSpec: eps is 'large'
    """
    for one in fields(data):
        value, kinds = getattr(data, one.name), _KINDS.get(str(one.type))
        wrong = not isinstance(value, kinds or object) or (isinstance(value, bool) and bool not in (kinds or (bool,)))
        if wrong or (isinstance(value, int) and abs(value) >= 1 << 64):
            raise UnmaskError(f"not a {type(data).__name__}: {one.name} is {value!r:.40}")


def built(kind: type[_Made], raw: Any, **known: Any) -> _Made:
    """A dataclass of untrusted plain data, with other values for the fields ``known``; UnmaskError names what is wrong.

    >>> built(ThreatSpec, {"norm": "linf"})
    Traceback (most recent call last):
    unmask.errors.UnmaskError: not a ThreatSpec: 'eps' is missing
    """
    own: Any = kind
    if not isinstance(raw, dict):
        raise UnmaskError(f"not a {kind.__name__}: it is {raw!r:.40}")
    given, names = {**raw, **known}, {one.name for one in fields(own)}
    needed = [one.name for one in fields(own) if one.default is MISSING and one.default_factory is MISSING]
    if lacking := [name for name in needed if name not in given]:
        raise UnmaskError(f"not a {kind.__name__}: {lacking[0]!r} is missing")
    if unknown := [name for name in given if name not in names]:
        raise UnmaskError(f"not a {kind.__name__}: it has {unknown[0]!r:.40}")
    made = kind(**given)
    check_types(made)
    return made


def parsed(text: str | bytes) -> dict[str, Any]:
    """The object that untrusted JSON holds; UnmaskError where it holds none, or one that is nested too deeply.

    >>> parsed("[1]")
    Traceback (most recent call last):
    unmask.errors.UnmaskError: no object
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnmaskError(str(error)) from error
    if not isinstance(raw, dict):
        raise UnmaskError("no object")
    inner: list[Any] = [raw]
    for _ in range(_DEEPEST):
        inner = [v for one in inner for v in (one.values() if isinstance(one, dict) else one)]
        inner = [one for one in inner if isinstance(one, dict | list)]
    if inner:
        raise UnmaskError(f"nested more than {_DEEPEST} times")
    return raw


_Made = TypeVar("_Made")
_DEEPEST = 32
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
    "Mapping[str, Any]": (dict,),
    "Sequence[float]": (list, tuple),
    "tuple[str, ...]": (list, tuple),
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

    Raises UnmaskError for a value that is no share, a source without a name, or an address that is not plain https.

    >>> Figure(0.05, "Athalye et al., ICML 2018, Table 1", "https://arxiv.org/abs/1802.00420").value
    0.05
    >>> Figure(0.05, "a paper", "javascript:alert(1)")
    Traceback (most recent call last):
    unmask.errors.UnmaskError: not a Figure: the address of its source is 'javascript:alert(1)'
    """

    value: float
    source: str
    url: str
    note: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.value <= 1:
            raise UnmaskError(f"not a Figure: its value is {self.value!r}, not a share in [0, 1]")
        if not self.source:
            raise UnmaskError("not a Figure: its source has no name")
        if not _ADDRESS.fullmatch(self.url):  # it becomes a link
            raise UnmaskError(f"not a Figure: the address of its source is {self.url!r:.80}")


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
    chained: bool = False  # whether each attack gets the examples alone that those before it leave


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

    @property
    def after(self) -> tuple[str, ...]:
        """Attacks whose broken examples this one keeps: it attacks the others alone."""
        return tuple(self.options.get("after", ()))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Job:
        """The job of plain data; UnmaskError where they are not those of a job."""
        if raw.get("role") not in [*Role]:
            raise UnmaskError(f"no role {raw.get('role')!r:.40}")
        job = built(cls, raw, threat=built(ThreatSpec, raw.get("threat")), role=Role(raw["role"]))
        if not 0 <= job.start < job.stop < _MOST:
            raise UnmaskError(f"a job on examples {job.start} to {job.stop}")
        after = job.options.get("after", [])
        if not isinstance(after, list) or not all(isinstance(name, str) for name in after):
            raise UnmaskError(f"a job after {after!r:.40}")
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
    failures: Mapping[str, str] = field(default_factory=dict)  # what of the attack was left out, and why
    schema: str = RECORD_SCHEMA

    def to_json(self) -> str:
        """One line of JSON, which holds a digest of the rest of it."""
        raw = {"key": self.job.key, **asdict(self)}
        return json.dumps({**raw, "digest": digest(raw)}, sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record of a line of JSON; UnmaskError where the line is torn, changed or of another version."""
        try:
            raw = parsed(line)
        except UnmaskError as error:
            raise UnmaskError(f"not a record: {error}") from error
        if raw.get("schema", RECORD_SCHEMA) != RECORD_SCHEMA:
            raise UnmaskError(f"record of version {raw['schema']!r}, this program reads {RECORD_SCHEMA!r}")
        for name, kinds in _PARTS.items():
            if not isinstance(raw.get(name, ...), kinds):
                raise UnmaskError(f"not a record: {name!r}")
        check = raw.pop("digest", None)  # older records have none
        if check is not None and check != digest(raw):
            raise UnmaskError(f"record {raw['key']} was changed: it does not fit its own digest")
        key, gradients = raw.pop("key"), raw["gradients"]
        record = built(
            cls,
            raw,
            job=Job.of(raw["job"]),
            examples=tuple(built(Example, example) for example in raw["examples"]),
            gradients=None if gradients is None else built(GradientCounts, gradients),
        )
        if record.job.key != key:
            raise UnmaskError(f"record {key} was changed: its job hashes to {record.job.key}")
        if not all(
            0 <= e.robust <= 1 and 0 <= e.selection_robust <= 1 and 0 <= e.index < _MOST for e in record.examples
        ):
            raise UnmaskError("not a record: a share out of [0, 1], or an example without a position")
        if record.file is not None and not _FILE.fullmatch(record.file):
            raise UnmaskError(f"not a record: {record.file!r} is no file of the run's examples")
        return record


_PARTS: dict[str, type | tuple[type, ...]] = {
    "schema": str,
    "key": str,
    "job": dict,
    "examples": list,
    "gradients": (dict, NoneType),
}
