"""The first two steps of an audit: check the model, and probe its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from unmask.auditing.probe_data import PROBED, Images, correctly_classified
from unmask.auditing.request import AuditRequest
from unmask.diagnosis.behaviour.determinism import random_elsewhere
from unmask.diagnosis.faults import GradientFault
from unmask.diagnosis.findings import findings
from unmask.diagnosis.lint import lint
from unmask.diagnosis.probe import GradientProbe, numbers_kept, probe_gradients, probe_through_view
from unmask.evaluation.models.setup import rms_radius
from unmask.kinds import FindingKind
from unmask.records import Finding
from unmask.state import State

__all__ = ["Diagnosis", "ModelCheck", "check_model", "diagnose"]

_LINTED = 16
"""Images that a model is checked on, by itself and in batches."""


@dataclass(frozen=True)
class ModelCheck:
    """What is known of a model before its gradients are looked at."""

    request: AuditRequest
    loaded: State  # the model's, before anything was asked of it
    images: Images
    lint: tuple[Finding, ...]  # what was done to make the model ready, and what else is wrong with it

    @property
    def model(self) -> nn.Module:
        return self.request.target.model

    @property
    def radius(self) -> float:
        """Of the ball, per pixel, root mean square."""
        return rms_radius(self.request.threat, self.images.x)


@dataclass(frozen=True)
class Diagnosis:
    """Where, how and by how much the gradients of a model mislead."""

    check: ModelCheck
    images: Images  # on which the model is taken apart
    probe: GradientProbe
    findings: tuple[Finding, ...]
    numbers: int = 0  # that a pass of the model makes of an image

    @property
    def classes(self) -> int:
        """Of the model."""
        return self.probe.parts[-1].event.outputs[0].value.shape[1]

    def suspecting(self, hidden: list[GradientFault]) -> Diagnosis:
        """The same, with faults that noise around the images did not reach."""
        probe = replace(self.probe, faults=hidden)
        return replace(self, probe=probe, findings=(*findings(probe),))

    def through(self, view: nn.Module) -> Diagnosis:
        """Noise and flat losses measured again through a view, and what is new of it: one fault hides another."""
        images, keys = self.images, self.images.keys(self.check.request.seed, "through")
        probe = probe_through_view(self.probe, view, images.x, images.y, keys)
        known = {(one.kind, one.module, one.where) for one in self.findings}
        fresh = [one for one in findings(probe) if (one.kind, one.module, one.where) not in known]
        if self.findings:  # votes saturate by themselves
            fresh = [one for one in fresh if "saturated_logits" not in one.evidence]
        return replace(self, probe=probe, findings=(*self.findings, *fresh))

    def with_findings(self, more: Iterable[Finding]) -> Diagnosis:
        return replace(self, findings=(*self.findings, *more))

    def with_remedy(self, view: str) -> Diagnosis:
        """The same with ``view`` as what helps where gradients are missing, wrong or vanish."""
        kinds = (FindingKind.SHATTERED, FindingKind.VANISHING)
        return replace(self, findings=(*(replace(f, remedy=view) if f.kind in kinds else f for f in self.findings),))

    def with_lint(self, more: Iterable[Finding]) -> Diagnosis:
        return replace(self, check=replace(self.check, lint=(*self.check.lint, *more)))

    def plain(self) -> dict[str, Any]:
        """As run.json holds it."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "lint": [asdict(finding) for finding in self.check.lint],
            "signal": self.probe.noise.signal,
            "parts": _fidelity(self.probe),
        }


def check_model(request: AuditRequest) -> ModelCheck:
    """Which images the model gets right, and what is wrong with it before any attack.

    Raises UnmaskError for a model that gets no image right.
    """
    loaded = State(request.target.model)
    return ModelCheck(request, loaded, correctly_classified(request), _lint(request))


def diagnose(check: ModelCheck) -> Diagnosis:
    """Where gradients end, are wrong, are noise, or vanish, on a few of the images."""
    request, images = check.request, check.images.first(PROBED)
    numbers = numbers_kept(check.model, images.x, images.keys(request.seed, "memory"))
    images = images.within_memory(numbers)
    keys = images.keys(request.seed, "examine")
    probe = probe_gradients(check.model, images.x, images.y, check.radius, keys, request.target.draws)
    return Diagnosis(check, images, probe, (*findings(probe),), numbers)


def _lint(request: AuditRequest) -> tuple[Finding, ...]:
    index = torch.arange(min(len(request.data), _LINTED))
    x, y = (part.to(request.device) for part in request.data.floats(index))
    found = (*request.target.setup_findings, *lint(request.target.model, x, y, request.keys(index, "lint")))
    seen = {FindingKind.RANDOM, FindingKind.UNREPEATABLE} & {one.kind for one in found}
    return found if seen or request.target.draws == 1 else (*found, random_elsewhere())


def _fidelity(probe: GradientProbe) -> list[dict[str, Any]]:
    """Gradient health part by part: what gradients explain of changes, at an eighth of the radius and at all of it."""
    parts: dict[str, dict[str, Any]] = {}
    for one in probe.parts:
        if one.event.module:
            values = list(one.fidelity.values())[-2:]
            part = parts.setdefault(one.event.part, {"part": one.event.part, "type": one.event.name, "calls": 0})
            part["calls"] += 1
            part["fidelity"] = [round(value, 3) for value in values]
    return sorted(parts.values(), key=lambda part: [(s.isdigit(), s.zfill(6)) for s in str(part["part"]).split(".")])
