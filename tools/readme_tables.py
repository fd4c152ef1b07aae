"""Write the tables of README.md between their marks from docs/figures: python tools/readme_tables.py [--from FOLDER].

``--from`` first takes the figures of a run into docs/figures; FOLDER is a run, or holds runs, as runs/demo does.
``--check`` writes nothing, and exits with 1 where README.md is not what the figures say. A table lies between
``<!-- table: NAME -->`` and ``<!-- /table -->``; docs/figures/NAME.json holds its figures, where they come from, and
no other numbers. Nobody edits either by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SOURCES", "Source", "ball", "main", "stored", "take", "written"]

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "unmask.figures/1"
MARKS = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
TERMINAL = 80  # columns
KEPT = ("value", "low", "high", "n")
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class Source:
    """The run that a table comes from, and how its figures become text.

    Args:
        config: what its run.json says of itself, by key.
        figures: (report.json, report.md) -> what docs/figures keeps.
        text: what it keeps -> Markdown.
    """

    config: Mapping[str, Any]
    figures: Callable[[Mapping[str, Any], str], dict[str, Any]]
    text: Callable[[Mapping[str, Any]], str]

    def fits(self, run: Mapping[str, Any]) -> bool:
        """Whether this run is one for the table."""
        known = {**run.get("config", {}), **{name: run.get(name) for name in ("command", "suite")}}
        return all(known.get(name) == value for name, value in self.config.items())


def _accuracy(figure: Mapping[str, Any] | None) -> dict[str, Any]:
    if figure is None:
        raise ValueError("a figure is missing: the run is incomplete")
    return {name: figure[name] for name in KEPT}


def _cases(report: Mapping[str, Any], markdown: str) -> dict[str, Any]:
    figures = ("clean", "plain", "adaptive")
    return {
        "rows": [
            {
                **{name: row[name] for name in ("case", "obfuscation", "threat")},
                **{name: _accuracy(row[name]) for name in figures},
            }
            for row in report["rows"]
            if row["complete"] or _incomplete(row["case"])
        ]
    }


def _incomplete(case: str) -> bool:
    raise ValueError(f"{case} is incomplete: finish the run")


def _case_table(kept: Mapping[str, Any]) -> str:
    lines = ["| case | obfuscation | threat | clean | plain attack | adaptive attack |", "|---|---|---|---|---|---|"]
    for row in kept["rows"]:
        cells = [row["case"], ", ".join(row["obfuscation"]), ball(row["threat"])]
        lines.append(f"| {' | '.join(cells + [_share(row[name]) for name in ('clean', 'plain', 'adaptive')])} |")
    return "\n" + "\n".join(lines) + "\n\n"


def _audit(report: Mapping[str, Any], markdown: str) -> dict[str, Any]:
    return {
        **{name: _accuracy(report["accuracy"][name]) for name in ("clean", "plain", "adaptive")},
        "masking": report["masking"],
        "verdict": [line.replace("\\", "").removeprefix("# ") for line in markdown.splitlines()[:3] if line],
        "findings": [
            {name: found[name] for name in ("kind", "module", "where", "remedy")} for found in report["findings"]
        ],
    }


def _audit_text(kept: Mapping[str, Any]) -> str:
    """As the terminal shows it."""
    lines = [f"  masking    {kept['masking']}"]
    lines += [f"  {name:8}  {_share(kept[name], 5)}" for name in ("clean", "plain", "adaptive")]
    lines += ["", *(part for line in kept["verdict"] for part in textwrap.wrap(line, TERMINAL))]
    lines += ["", "Gradient masking found."]
    for found in kept["findings"]:
        lines.append(f"  {found['kind']:10} {found['module']}: {found['where']}")
        lines += textwrap.wrap(f"remedy: {found['remedy']}", 100, initial_indent=" " * 13, subsequent_indent=" " * 13)
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def _share(figure: Mapping[str, Any], width: int = 0) -> str:
    value, low, high = (f"{100 * figure[name]:.1f}" for name in ("value", "low", "high"))
    return f"{value:>{width}} % [{low}, {high}]"


def ball(threat: Mapping[str, Any]) -> str:
    """The norm and the size; a unit that is not raw is named."""
    level = round(255 * threat["eps"])
    size = f"{level}/255" if threat["norm"] == "linf" and threat["eps"] == level / 255 else f"{threat['eps']:g}"
    return f"{NORMS[threat['norm']]} {size}{'' if threat['unit'] == 'raw' else ' ' + threat['unit']}"


SOURCES = {
    "digits": Source({"command": "reproduce", "suite": "digits"}, _cases, _case_table),
    "masked-model": Source({"command": "audit", "target": "examples/masked_model.py:build"}, _audit, _audit_text),
}


def take(folder: Path, figures: Path) -> Iterator[str]:
    """Keep the figures of the runs in a folder, and say which."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if not (place / "run.json").is_file():
            continue
        run, report = (json.loads((place / name).read_text(encoding="utf-8")) for name in ("run.json", "report.json"))
        for name, source in SOURCES.items():
            if not source.fits(run):
                continue
            kept = {
                "schema": SCHEMA,
                "report": report["schema"],
                "command": source.config["command"],
                **{key: run[key] for key in ("n", "seed", "versions", "hardware")},
                "date": run["started"][:10],
                **source.figures(report, (place / "report.md").read_text(encoding="utf-8")),
            }
            figures.mkdir(parents=True, exist_ok=True)
            (figures / f"{name}.json").write_text(
                json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            yield f"{name}: figures of {place}"


def stored(figures: Path) -> dict[str, str]:
    """The text of each table whose figures are kept."""
    texts = {}
    for path in sorted(figures.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("schema") != SCHEMA or path.stem not in SOURCES:
            raise ValueError(f"{path} holds no figures of a table ({SCHEMA})")
        texts[path.stem] = SOURCES[path.stem].text(kept)
    return texts


def written(page: str, texts: Mapping[str, str]) -> str:
    """The page with each table between its marks; ValueError where marks and kept figures are not the same."""
    marked = [name for _, name, _ in MARKS.findall(page)]
    if sorted(marked) != sorted(texts) or page.count("<!-- table:") != len(marked):
        raise ValueError(f"tables marked: {', '.join(marked) or 'none'}; figures kept: {', '.join(texts) or 'none'}")
    return MARKS.sub(lambda match: match[1] + texts[match[2]] + match[3], page)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="tools/readme_tables.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--from", dest="folder", type=Path, help="a run, or a folder of runs, whose figures to take")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where README differs")
    options = parser.parse_args(arguments)
    figures, page = root / "docs" / "figures", root / "README.md"
    try:
        if options.folder:
            taken = list(take(options.folder, figures))
            print("\n".join(taken) or f"{options.folder} holds no run of a table: {', '.join(SOURCES)}")
        before = page.read_text(encoding="utf-8")
        after = written(before, stored(figures))
    except (OSError, ValueError) as error:
        print(f"tables of README.md: {error}", file=sys.stderr)
        return 1
    if options.check and after != before:
        print("README.md differs from docs/figures: run `python tools/readme_tables.py`", file=sys.stderr)
        return 1
    if not options.check:
        page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
