"""An audit from Python: a model in memory, a data set, a threat; what comes back is what report.json holds."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from unmask.auditing.plan import plan_audit
from unmask.data import Dataset, load
from unmask.evaluation.environment import environment
from unmask.evaluation.run import Local, run
from unmask.evaluation.store import Store
from unmask.evaluation.targets import DRAWS, PROBED, Target, check_model, is_random
from unmask.report import write
from unmask.threats import Threat

__all__ = ["audit"]


def audit(
    model: nn.Module,
    data: str | Dataset,
    threat: Threat,
    *,
    n: int = 200,
    budget: str = "standard",
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Examine ``model``, attack it by what is found, and tell what accuracy is left.

    As the command ``unmask audit``, which can besides be continued after an interruption.

    Args:
        model: in evaluation mode, float32 images (B, C, H, W) in [0, 1] -> logits (B, K).
        data: name of a data set, or test images of one.
        threat: such as ``Linf(8 / 255)``.
        n: test examples; the first n.
        budget: "quick", "standard" or "thorough".
        seed: of all randomness.
        out: folder of the run, with report.html; None keeps nothing.
        device: as torch names it.

    Returns what report.json holds: "accuracy" ("clean", "plain", "adaptive", each with "value", "low", "high", "n"),
    "obfuscated", "findings" ("kind", "module", "where", "evidence", "remedy"), "distrust", "script" ...

    Raises ValueError with one line for a model or data that do not fit, or an ``out`` that holds another run.

    >>> from unmask.cases import find_case
    >>> from unmask.threats import Linf
    >>> report = audit(find_case("plain-digits").load(), "digits", Linf(0.15), n=16, budget="quick")
    >>> report["obfuscated"], report["accuracy"]["adaptive"]["value"]
    (False, 0.0)
    """
    if not isinstance(data, Dataset):
        data = load(data, "test", n=n)
    local, name = Local(device=device), type(model).__name__
    x = data.batch(0, PROBED)[0].to(device)
    check_model(model.to(device), x, data.labels, strict=False)
    random = is_random(model, x)
    target = Target(model, draws=DRAWS if random else 1, foreign=random)
    plan, armed = plan_audit(name, target, data, threat, n, seed, budget, device)
    local.use(name, armed, data)
    asked = {"command": "audit", "target": name, "data": data.name, "n": n, "seed": seed, "budget": budget}
    about = {**{key: asked[key] for key in ("command", "n", "seed")}, "suite": None, "cases": [plan.about]}
    with TemporaryDirectory() as spare:
        folder = out or Path(spare) / "run"
        settled = local.fingerprints({name: (data.name, plan.about["n"])})
        with Store.open(folder, asked, {**about, **environment()}, settled) as store:
            run(plan.jobs, store, local, lambda record, known: None)
        write(folder)
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return report
