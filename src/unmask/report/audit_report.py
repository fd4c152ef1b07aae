"""What an audit from Python returns: the content of report.json, typed, and the folder of the run behind it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self
from weakref import finalize

from unmask.errors import UnmaskError
from unmask.records import AUDIT_SCHEMA, Finding, ThreatSpec, built, parsed
from unmask.report.formatting import interval, percent, place
from unmask.report.formatting import threat as ball
from unmask.report.verdict.indicators import Indicator
from unmask.report.verdict.masking import Masking
from unmask.statistics import Accuracy

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["AuditAccuracy", "AuditAttack", "AuditReport", "RunFiles"]


class RunFiles:
    """The folder of a run: one that is given, or a temporary one, which is deleted with the last report of it.

    A pickled report does not keep a temporary folder: save it first.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or Path(mkdtemp(prefix="unmask-"))).absolute()
        if folder is None:
            finalize(self, _remove, self.folder, os.getpid())

    def __deepcopy__(self, memo: object) -> RunFiles:
        return self  # a copy of a report keeps the folder too


@dataclass(frozen=True)
class AuditAccuracy:
    """Accuracies with their 95 % intervals."""

    clean: Accuracy  # without an attack
    plain: Accuracy | None  # under attacks through the model's own gradient; None where it has none
    adaptive: Accuracy  # the worst case over all attacks: the robust accuracy


@dataclass(frozen=True)
class AuditAttack:
    """What one attack leaves, and what it costs."""

    name: str
    description: str
    accuracy: float
    other_threats: tuple[ThreatSpec, ...]  # of its jobs, where they are not the audit's
    forwards: int  # images
    backwards: int
    seconds: float


@dataclass(frozen=True, repr=False)
class AuditReport:
    """What an audit found. The fields are those of report.json, in its order; ``print`` shows the main ones."""

    schema: str
    target: str
    data: str
    n: int
    seed: int
    threat: ThreatSpec
    accuracy: AuditAccuracy
    refused: Mapping[str, float | None]  # share of the images that a detector refuses: "clean", "plain", "adaptive"
    masking: Masking  # whether the gradient is masked; equal to its text, such as "no masking found"
    reason: str  # why that is inconclusive
    warnings: tuple[str, ...]  # reasons why the robust accuracy is unreliable, the gravest first
    reliable: bool  # whether there are none
    upper_bound: bool  # whether the robust accuracy is an upper bound and nothing more
    not_diagnosed_reason: str  # why nothing is said about gradients; empty where something is
    findings: tuple[Finding, ...]  # missing or wrong gradients
    lint: tuple[Finding, ...]  # mistakes in the model's setup
    attacks: tuple[AuditAttack, ...]
    controls: Mapping[str, Accuracy]
    indicators: tuple[Indicator, ...]  # of failed attacks
    complete: bool
    intervals: str  # of which kind
    stop_when: str | None
    diagnosis: Mapping[str, Any]  # parts, candidate views, draws ...
    script: str  # Python code that repeats the attack
    seconds: float  # of the attacks
    environment: Mapping[str, Any]  # versions, hardware, revision
    planning_seconds: Mapping[str, float] = field(default_factory=dict)  # by step, before the attacks
    files: RunFiles | None = field(default=None, compare=False)  # not in report.json

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], files: RunFiles | None = None) -> Self:
        """The report that a report.json holds; UnmaskError where it is not that of a finished audit."""
        if not isinstance(raw, dict) or raw.get("schema") != AUDIT_SCHEMA:
            version = raw.get("schema") if isinstance(raw, dict) else None
            raise UnmaskError(
                f"not the report of an audit: it is of version {version!r}, this program reads {AUDIT_SCHEMA!r}"
            )
        try:
            return built(cls, raw, **_typed(raw), files=files)
        except UnmaskError as error:
            raise UnmaskError(f"not the report of an audit: {error.problem}", error.remedy) from error

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """The report of a finished audit, by Python or by the command, in the folder that ``out`` named.

        Raises UnmaskError where the folder holds no such report.

        >>> AuditReport.read("/nowhere")
        Traceback (most recent call last):
        unmask.errors.UnmaskError: /nowhere holds no report.json: give the folder that out named
        """
        try:
            raw = parsed((Path(folder) / "report.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnmaskError(f"{folder} holds no report.json", "give the folder that out named") from error
        except UnmaskError as error:
            raise UnmaskError(f"{folder}/report.json is damaged", f"`unmask report {folder}` writes it anew") from error
        return cls.from_dict(raw, RunFiles(Path(folder)))

    def to_dict(self) -> dict[str, Any]:
        """Exactly what report.json holds, as plain data."""
        plain = asdict(replace(self, files=None))
        del plain["files"]
        return dict(json.loads(json.dumps(plain)))

    def save(self, folder: Path | str) -> Path:
        """Copy the files of the run into a new folder: report.html, .md and .json, run.json, records and examples.

        Returns the path of report.html. Raises UnmaskError where the folder holds anything, and for a report without a
        run, such as one of :meth:`from_dict`.
        """
        if self.files is None or not self.files.folder.is_dir():
            raise UnmaskError("the files of this run are gone", "give unmask.audit a folder by out=...")
        to = Path(folder)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise UnmaskError(f"{to} exists and is not an empty folder", "choose another one")
        shutil.copytree(self.files.folder, to, dirs_exist_ok=True)
        return to / "report.html"

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {name:10} {text}" for name, text in self._rows())])

    def __rich__(self) -> Text:
        """In colour, by rich.print."""
        from rich.text import Text

        lines = [Text(self._title(), style="bold")]
        lines += [Text(f"  {name:10} {text}", style=_STYLES.get(name, "")) for name, text in self._rows()]
        return Text("\n").join(lines)

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._rows())
        return f"<table><caption>{escape(self._title())}</caption>{rows}</table>"

    def _title(self) -> str:
        return f"audit of {self.target} on {self.data}, {ball(self.threat)}, n = {self.n}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "masking", f"{self.masking}{f': {self.reason}' if self.reason else ''}"
        for one in fields(self.accuracy):
            a: Accuracy | None = getattr(self.accuracy, one.name)
            yield one.name, "—" if a is None else f"{percent(a.value):>7} {interval(a)}"
        for finding in self.findings:
            yield finding.kind, f"{place(asdict(finding))}; remedy: {finding.remedy}"
        for mistake in self.lint:
            yield "lint", f"{mistake.kind}: {mistake.remedy}"
        for text in self.warnings:
            yield "warning", text


_STYLES = {"lint": "yellow", "warning": "yellow"}


def _remove(folder: Path, process: int) -> None:
    """By the process that made the folder, and by no fork of it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _typed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that are more than plain data."""
    for name, kind in _PARTS.items():
        if not isinstance(raw.get(name), kind):
            raise UnmaskError(f"{name} is {raw.get(name)!r:.40}")
    clean, plain, adaptive = (_accuracy(raw["accuracy"].get(name)) for name in ("clean", "plain", "adaptive"))
    if clean is None or adaptive is None:
        raise UnmaskError("the run is not finished", "give its command again")
    if raw["masking"] not in [*Masking]:
        raise UnmaskError(f"masking is {raw['masking']!r:.40}")
    return {
        "threat": built(ThreatSpec, raw["threat"]),
        "accuracy": AuditAccuracy(clean, plain, adaptive),
        "masking": Masking(raw["masking"]),
        "warnings": tuple(raw["warnings"]),
        "findings": tuple(built(Finding, one) for one in raw["findings"]),
        "lint": tuple(built(Finding, one) for one in raw["lint"]),
        "attacks": tuple(map(_attack, raw["attacks"])),
        "controls": {name: built(Accuracy, one) for name, one in raw["controls"].items()},
        "indicators": tuple(built(Indicator, one) for one in raw["indicators"]),
    }


def _accuracy(raw: Mapping[str, Any] | None) -> Accuracy | None:
    return None if raw is None else built(Accuracy, raw)


def _attack(raw: Any) -> AuditAttack:
    threats = raw.get("other_threats") if isinstance(raw, dict) else None
    if not isinstance(threats, list):
        raise UnmaskError(f"an attack is {raw!r:.40}")
    return built(AuditAttack, raw, other_threats=tuple(built(ThreatSpec, one) for one in threats))


_PARTS = {"accuracy": dict, "masking": str, "warnings": list, "findings": list, "lint": list, "attacks": list}
_PARTS |= {"controls": dict, "indicators": list}
