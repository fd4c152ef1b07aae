"""The audit on models of known truth: what it finds, and the accuracy that it leaves beside that of the bare network.

    python benchmarks/audit_zoo.py [--net plain-mnist] [--n 100] [--budget quick] [--autoattack] [NAME ...]

A model is *right* where its findings have the kinds and places that the zoo knows of. The bare network's accuracy, by
the same audit, is the truth where a defense protects from nothing. ``--autoattack`` runs torchattacks' AutoAttack,
"standard", or "rand" for random models, on the same images, and needs ``torchattacks``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.zoo import ZOO
from unmask.audit.plan import plan_audit
from unmask.cases import find_case
from unmask.evaluation.run import Local, run
from unmask.evaluation.store import Store
from unmask.evaluation.targets import DRAWS, Target, is_random
from unmask.report.audit import audit_json
from unmask.report.read import RunFolder
from unmask.report.table import table


def audited(name: str, target: Target, case: Any, n: int, budget: str, local: Local) -> dict[str, Any]:
    """report.json of an audit of a model in memory."""
    import json

    data = local.dataset(case.data, n)
    with tempfile.TemporaryDirectory() as folder:
        plan, armed = plan_audit(name, target, data, case.threat, n, 0, budget)
        local.use(name, armed)
        with Store.open(Path(folder) / "run", {"target": name}, {"cases": [plan.about]}) as store:
            run(plan.jobs, store, local, lambda record, known: None)
        found = RunFolder.read(Path(folder) / "run")
        report: dict[str, Any] = json.loads(audit_json(found, table(found)[0]))
        return report


def autoattack(model: torch.nn.Module, case: Any, local: Local, n: int, random: bool) -> float:
    import torchattacks

    x, y = local.dataset(case.data, n).batch(0, n)
    attack = torchattacks.AutoAttack(model, "Linf", case.threat.eps, "rand" if random else "standard", seed=0)
    with torch.no_grad():
        return float((model(attack(x, y)).argmax(1) == y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--net", default="plain-mnist")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--autoattack", action="store_true")
    options = parser.parse_args()
    case, local = find_case(options.net), Local()
    net = case.load()
    x = local.dataset(case.data, options.n).batch(0, 8)[0]
    print("| model | truth | found | right | clean | plain | adaptive | AutoAttack | passes | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    right = 0
    names = options.names or list(ZOO)
    for name in names:
        model = ZOO[name].build(net).eval()
        random = is_random(model, x)
        target = Target(model, draws=DRAWS if random else 1, foreign=random)
        report = audited(name, target, case, options.n, options.budget, local)
        kinds = {finding["kind"] for finding in report["findings"]}
        places = {finding["module"] for finding in report["findings"]}
        good = kinds == ZOO[name].kinds and places == ZOO[name].places and report["obfuscated"] == bool(kinds)
        right += good
        figures = [f"{100 * report['accuracy'][key]['value']:.1f}" for key in ("clean", "plain", "adaptive")]
        passes = sum(attack["forwards"] + attack["backwards"] for attack in report["attacks"])
        theirs = f"{100 * autoattack(model, case, local, options.n, random):.1f}" if options.autoattack else ""
        cells = [
            name,
            " ".join(sorted(ZOO[name].kinds)),
            " ".join(sorted(kinds)),
            "yes" if good else f"no: {sorted(places)}",
            *figures,
            theirs,
            str(passes),
            f"{report['seconds']:.0f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{right} of {len(names)} right", file=sys.stderr)


if __name__ == "__main__":
    main()
