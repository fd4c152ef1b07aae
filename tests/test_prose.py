"""The prose of documents and docstrings: old words and idioms do not come back, and names in it exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = sorted((ROOT / "src" / "unmask").rglob("*.py"))
PAGES = sorted((ROOT / "src" / "unmask").rglob("*.html"))
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")

OLD = {
    r"dearer": "more expensive",
    r"ways? around": "candidate view",
    r"mends?": "fix, correct",
    r"hands? in": "return",
    r"handed": "given, passed",
    r"wished": "given",
    r"Ledger": "BestTracker",
    r"guilt|guilty": "faulty",
    r"somebody|strangers": "other people, untrusted",
    r"disposes": "decides",
    r"at work": "in use, an animation of",
    r"on the way back": "in the backward pass",
    r"the way of (?:an|the) attack": "trajectory",
    r"squashed": "saturated",
    r"(?:hides?|hid|hiding) (?:its|their) gradients?": "mask",
    r"left standing|still stands": "robust",
    r"for want of": "since ... is missing",
    r"honest(?:ly)? attack": "adaptive attack",
    r"(?:a|the) film": "animation",
    r"lens": "image probe",
    r"be told apart": "be distinguished",
    r"tells? of": "claim, have",
    r"is told|are told": "gets, is",
    r"nothing hides": "no gradient masking found",
    r"luckiest of": "best by chance of",
}
"""Words that a reader who knows the field would stumble over -> what to write instead."""
BANNED = re.compile(rf"\b(?:{'|'.join(OLD)})\b", re.IGNORECASE)


def prose(path: Path) -> str:
    """The text of a document or page; of Python its docstrings, comments and other strings with spaces."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    return "\n".join(token.string for token in tokens if token.type in kinds and " " in token.string)


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_old_words_and_idioms_do_not_come_back(path: Path) -> None:
    assert [f"{found[0]!r}: see OLD for a plain word" for found in BANNED.finditer(prose(path))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_wrapped_at_120_characters(path: Path) -> None:
    assert [line for line in path.read_text("utf-8").splitlines() if len(line) > 120 and not line.startswith("|")] == []


def documented(node: ast.AST) -> set[str]:
    """The names under "Args:" in the docstring of a function or class."""
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    part = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", ast.get_docstring(node) or "", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+(?:, \w+)*):", part[1], re.MULTILINE) if part else []
    return {name for entry in entries for name in entry.split(", ")}


def parameters(node: ast.AST) -> set[str]:
    """The parameters of a function; of a class those of ``__init__``, and its fields."""
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    if isinstance(node, ast.FunctionDef):
        return {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)}
    fields = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
    made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    return fields.union(*map(parameters, made))


def unknown(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from (f"{node.name}: {name}" for name in sorted(documented(node) - parameters(node)))


def test_documented_arguments_are_parameters() -> None:
    assert [f"{path.name}: {one}" for path in SOURCES for one in unknown(path)] == []


def test_each_term_of_the_glossary_is_used_elsewhere() -> None:
    terms = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]* \|$", GLOSSARY, re.MULTILINE)
    elsewhere = "\n".join(
        path.read_text(encoding="utf-8") for path in [*DOCUMENTS, *SOURCES, *PAGES] if path.name != "glossary.md"
    )
    words = re.sub(r"[\s-]+", " ", elsewhere).lower()
    assert len(terms) > 50
    stems = {term: term.lower().removesuffix("'s test").replace("-", " ").rstrip("s") for term in terms}
    assert [term for term, stem in stems.items() if stem not in words] == []
