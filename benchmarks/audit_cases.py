"""The rows of the 2018 table, audited as if nothing were known of them, beside the attack made by hand for each.

    python -m benchmarks.audit_cases [--n 32] [--budget quick] [--out runs/audit_cases] [CASE ...]

Both are the commands ``unmask audit`` and ``unmask reproduce`` on the same images, ball and judge; both can be
continued. *Near* is an audit that leaves at most 5 points more than the attack made by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from unmask.cases import find_case

CASES = (
    "thermometer-cifar10",
    "thermometer-adv-cifar10",
    "lid-cifar10",
    "sap-cifar10",
    "jpeg-imagenet",
    "randomization-imagenet",
    "pixeldefend-cifar10",
    "madry-cifar10",
    "cascade-cifar10",
)
NEAR = 0.05


def unmask(out: Path, *args: str) -> dict[str, Any]:
    """The report of a command."""
    code = "from unmask.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *args, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def percent(accuracy: dict[str, float]) -> str:
    return f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--n", default="32")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--out", type=Path, default=Path("runs/audit_cases"))
    options = parser.parse_args()
    print("| case | truth | found | clean | plain | by hand | audit | near | seconds |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    near = 0
    names = options.cases or CASES
    for name in names:
        case, size = find_case(name), ("--n", options.n, "--batch-size", "32")
        threat = case.threat
        ball = ("--eps", str(threat.eps), "--norm", threat.norm, "--eps-unit", threat.unit)
        by_hand = unmask(options.out / f"{name}-hand", "reproduce", "--case", name, *size, "--no-curves")["rows"][0]
        target = (f"case:{name}", "--data", case.data, "--budget", options.budget)
        report = unmask(options.out / f"{name}-audit", "audit", *target, *ball, *size)
        left, wanted = report["accuracy"]["adaptive"], by_hand["adaptive"]
        good = left["value"] <= wanted["value"] + NEAR
        near += good
        cells = [
            name,
            ", ".join(case.obfuscation),
            " ".join(sorted({finding["kind"] for finding in report["findings"]})) or "none",
            percent(report["accuracy"]["clean"]),
            percent(report["accuracy"]["plain"]),
            percent(wanted),
            percent(left),
            "yes" if good else "no",
            f"{report['seconds']:.0f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{near} of {len(names)} near", file=sys.stderr)


if __name__ == "__main__":
    main()
