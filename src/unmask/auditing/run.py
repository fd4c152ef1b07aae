"""An audit from Python: a model in memory, a data set, a threat; a typed report comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.auditing.plan import plan_audit
from unmask.auditing.request import AuditRequest
from unmask.data import Dataset, InMemory, from_memory
from unmask.errors import UnmaskError
from unmask.evaluation.environment import environment
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.models.estimators import as_module
from unmask.evaluation.models.process_settings import own_settings
from unmask.evaluation.models.sources.registry import check_options
from unmask.evaluation.models.targets import Target, prepare_target
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.inputs import check_count, check_eps
from unmask.models.black_box_models import ArrayFunction
from unmask.models.forms import ModelForm, under_default_dtype
from unmask.report import write
from unmask.report.audit_report import AuditReport, RunFiles
from unmask.threats import Threat, check_threat

__all__ = ["audit"]

_MADE_BY = "unmask.audit"
"""Stands in the run.json of such a run, whose model no command can load again."""


def audit(
    model: nn.Module | ArrayFunction,
    data: str | Dataset | InMemory,
    threat: Threat,
    *,
    n: int = 200,
    size: int | None = None,
    budget: str = "standard",
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "cpu",
    form: ModelForm = ModelForm(),
    compile: bool = False,
) -> AuditReport:
    """Examine ``model``, attack it by what is found, and report the robust accuracy.

    As the command ``unmask audit``, which can besides be continued after an interruption.

    Args:
        model: float32 images (B, C, H, W) in [0, 1] -> logits (B, K), or an :class:`unmask.Output` with refusals;
            or any other function, of arrays, or an estimator of scikit-learn, which are attacked by their answers
            alone: see :class:`unmask.BlackBoxModel`.
        data: name of a data set, or of your own, as ``unmask list datasets`` shows; or in memory: a pair (images,
            labels) of tensors or arrays, images (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or in [0, 1]; a
            ``DataLoader`` of such pairs, from which batches are taken once, as it gives them, up to ``n`` images; a
            ``Dataset`` of torch with a length, of (image, label). A pair sorted by class is shuffled, always in the
            same way, and so is a ``Dataset`` with ``targets``.
        threat: such as ``Linf(8 / 255)``.
        n: test examples; the first n, or all there are.
        size: of the central square to which images of a named data set are resized and cropped, as ``--size``.
        budget: "quick", "standard", "thorough", or seconds for each example, such as "2s", whose results depend
            on the machine.
        seed: of all randomness.
        out: folder of the run, with report.html; None for a temporary one, which is deleted with the report, and
            which :meth:`AuditReport.save` copies.
        device: as torch names it.
        form: how the model takes images and gives logits, such as ``unmask.ModelForm(pixel_max=255)``. Where it names
            no class of refusals, a class more than the data have is one.
        compile: let ``torch.compile`` make the views that attacks optimise faster; verdicts are by the model itself.

    Returns the :class:`unmask.AuditReport`, whose fields are those of report.json, such as ``accuracy.adaptive.value``,
    ``masking``, ``warnings``, ``findings``; ``print`` shows them in a few lines.

    Raises UnmaskError with one line for a model or data that do not fit, or an ``out`` that holds another run.

    >>> from unmask.cases import find_case
    >>> from unmask.threats import Linf
    >>> report = audit(find_case("plain-digits").load(), "digits", Linf(0.15), n=16, budget="quick")
    >>> print(report)
    audit of Sequential on digits, L∞ 0.15 raw, n = 16
      masking    no masking found
      ...
      adaptive       0.0 % [0.0, 20.6]
    >>> report.accuracy.adaptive.value, report.reliable
    (0.0, True)
    """
    check_threat(threat)
    check_eps(threat.norm, threat.eps, threat.unit)
    check_count(n)
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", type(model).__name__)
    if not isinstance(form, ModelForm):
        raise UnmaskError(f"form is a {type(form).__name__}", "give unmask.ModelForm(...)")
    check_options("a model in memory", form)
    execution = ExecutionConfig(device=device, strict=False, form=form, size=size, compile=compile)
    local = LocalExecutor(execution)
    given = data
    if not isinstance(data, Dataset):
        data = local.dataset(data.rstrip("/") or "/", n) if isinstance(data, str) else _from_memory(data, n, size)
    module = as_module(model, data.classes)
    if module is None:
        raise UnmaskError(f"the model is a {name}", "give an nn.Module, a function of arrays or an estimator")
    config = {"command": "audit", "made_by": _MADE_BY, "target": name, "data": data.name, "n": n, "seed": seed}
    config |= {"options": {"budget": budget}, "form": form.stored()}
    config |= {} if isinstance(given, str) else {"data_in_memory": True}
    config |= {"compile": True} if compile else {}
    config |= {} if size is None else {"size": size}
    with torch.inference_mode(False), own_settings() as settings:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        module = under_default_dtype(module, settings.dtype) if settings.dtype != torch.float32 else module
        with in_one_line(name):
            target = prepare_target(module, data, execution)
            plan, armed = plan_audit(AuditRequest(name, target, data, threat, n, seed, budget, device))
        return _performed(name, armed, data, plan, local, config, RunFiles(None if out is None else Path(out)))


def _from_memory(data: InMemory, n: int, size: int | None) -> Dataset:
    if size is not None:
        raise UnmaskError("size is for a data set by name: resize images in memory before the audit")
    with in_one_line("the data", prefixed=False):
        return from_memory(data, n)


def _performed(
    name: str, armed: Target, data: Dataset, plan: Plan, local: LocalExecutor, config: dict[str, Any], files: RunFiles
) -> AuditReport:
    """The report of the planned jobs, done in this process."""
    local.use(name, armed, data)
    about = {**{key: config[key] for key in ("command", "n", "seed")}, "suite": None, "cases": [plan.case_info]}
    about |= {"planning_seconds": dict(plan.seconds)}
    settled = local.fingerprints(plan.jobs)
    with Store.open(files.folder, config, {**about, **environment()}, plan.jobs, settled) as store:
        run(plan.jobs, store, local, lambda record, known: None)
    write(files.folder)
    return replace(AuditReport.read(files.folder), files=files)
