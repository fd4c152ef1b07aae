"""The forms in which people read a report: terminal, Markdown, HTML."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.report.conftest import figure
from unmask.report import summary, write
from unmask.report.formatting import count, duration
from unmask.report.plots.histograms import histogram
from unmask.report.plots.pictures import Picture, gallery
from unmask.report.run_folder import RunFolder
from unmask.report.table import table
from unmask.report.verdict.sentences import headline, others, sentence

EVIL = "<script>alert(1)</script>"


def printed(run: Path, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(summary(run))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


class Page(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.links: list[str] = []  # of which nothing is loaded until a reader follows one
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if tag == "a" and k == "href"]
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_headline_counts_defenses_that_are_done(run: Path) -> None:
    rows = table(RunFolder.read(run))
    assert headline(rows) == "Gradients are masked in 1 of 2 defenses"
    inconclusive = "noisy (unreliable figure), bare (control) (unreliable figure)"
    assert others(rows) == f"Masked: broken. Inconclusive: {inconclusive}. Incomplete: begun."
    assert headline(rows[:1]) == "broken keeps 10 % [0.3, 44.5] of 90 % under L∞ 0.25"
    assert headline([rows[0], rows[0]]) == "Gradients are masked in 2 of 2 defenses"
    assert headline(rows[1:2]) == "Inconclusive: the model is not shown to classify these images"
    assert headline(rows[2:3]) == "bare keeps 25 % [0.6, 80.6] of 100 % under L∞ 0.25"
    assert headline([rows[1], rows[1]]) == "Inconclusive for 2 of 2 defenses"
    assert headline(rows[3:]) == "Incomplete: the run is not finished"
    assert headline([rows[3], rows[3]]) == "Incomplete: 0 of 2 defenses are finished"


def test_sentences_hold_the_numbers(run: Path) -> None:
    broken, noisy, bare, begun = map(sentence, table(RunFolder.read(run)))
    assert broken.startswith("The plain attack leaves 80.0 %, the adaptive attacks 10.0 % [0.3, 44.5] (p = 0.035): ")
    assert noisy.startswith("The plain attack leaves 50.0 %, the adaptive attacks 31.2 % [")
    assert bare.startswith("The robust accuracy under plain is 25.0 % [0.6, 80.6], the clean accuracy 100.0 %. ")
    assert begun.startswith("Incomplete: ")


def test_small_words() -> None:
    assert [duration(s) for s in (0, 59.94, 60, 3599, 3600)] == ["0.0 s", "59.9 s", "1.0 min", "60.0 min", "1.0 h"]
    assert [count(k) for k in (0, 999, 1000, 999_499, 999_500)] == ["0", "999", "1k", "999k", "1M"]


@pytest.mark.parametrize("width", [200, 80, 40])
def test_terminal_shows_every_figure_at_any_width(run: Path, width: int) -> None:
    text = printed(run, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in ("broken", "stochastic", "L∞ 0.25 raw"))
    for number in ("90.0 % [55.5, 99.7]", "80.0 % [44.4, 97.5]", "10.0 % [0.3, 44.5]", "79.0 %"):
        assert number in " ".join(text.split())


def test_markdown(run: Path) -> None:
    write(run)
    lines = (run / "report.md").read_text().splitlines()
    assert lines[0] == "# Gradients are masked in 1 of 2 defenses"
    (row,) = [line for line in lines if line.startswith("| broken |")]
    assert row == (
        "| broken | shattered | digits | L∞ 0.25 raw | 10 | 90.0 % [55.5, 99.7] | 80.0 % [44.4, 97.5] "
        "| 10.0 % [0.3, 44.5] | [79.0 %](https://arxiv.org/abs/1) | — | masked | 200 / 80 | 10.5 s |"
    )
    assert "- claimed 79.0 %: [Author et al. \\[1\\], Table 2](https://arxiv.org/abs/1); at 8/255" in lines
    assert "| plain | 80.0 % [44.4, 97.5] | 10 | 4 | 1.5 s |" in lines
    assert "| eot | 37.5 % [2.8, 87.7] | 25.0 % | 25.0 % | 10 | 4 | 1.5 s |" in lines


def test_page_shows_the_figures(run: Path) -> None:
    assert write(run) == run / "report.html"
    page = Page(run / "report.html")
    for words in (
        "Gradients are masked in 1 of 2 defenses.",
        "10.0 % [0.3, 44.5]",
        "how bpda works",
        "seed 17",
        "2.99",
        "one → two",
        "3 to 10 examples a case",
    ):
        assert words in page.text
    assert page.tags.count("article") == 4
    assert (
        page.tags.count("svg") == 6
    )  # the brand, the one curve, and how near the adversarial examples of each case are


def test_page_asks_for_nothing(run: Path) -> None:
    write(run)
    text, page = (run / "report.html").read_text(), Page(run / "report.html")
    local = [a for a in page.addresses if a.startswith(("data:image/png;base64,", "data:image/webp;base64,", "#"))]
    assert local
    assert {*page.addresses} - {*local} == {"https://arxiv.org/abs/1", "https://example.org/a_b"}  # sources of figures
    assert all(address in page.links for address in {*page.addresses} - {*local})
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", text))


def test_names_are_text(builder: Any) -> None:
    names = {
        "defense": EVIL,
        "citation": EVIL,
        "note": EVIL,
        "data_note": EVIL,
        "obfuscation": [EVIL],
        "classes": ["0", EVIL, EVIL],
    }
    builder.case(EVIL, (EVIL, "plain"), **names, threat={"norm": "$x^$" + EVIL, "eps": 0.25, "unit": EVIL})
    builder.record(EVIL, "clean", [1, 1], role="clean")
    builder.record(EVIL, "plain", [1, 1], role="plain")
    builder.record(EVIL, EVIL, [0, 0], images=True)
    builder.record(EVIL, "plain", [1, 1], role="control", control=EVIL + "[bold]")
    builder.record(EVIL, "plain", [1, 1], role="eps", eps=0.5, base="plain")
    run = builder.write()
    write(run)
    assert "<script" not in (run / "report.html").read_text()
    assert Page(run / "report.html").text.count(EVIL) > 10
    assert "<script" not in (run / "report.md").read_text().replace("\\<", "")
    assert EVIL in printed(run, 300)


def test_pictures_are_of_examples_that_fell(run: Path) -> None:
    folder = RunFolder.read(run)
    found = gallery(folder, folder.cases[0])
    assert found is not None
    assert [(p.index, p.label, p.predicted) for p in found.pictures] == [(i, "one", "two") for i in range(3)]
    assert found.pixelated
    assert grey(found.pictures[0]) == {"clean": 128, "adversarial": 135, "change / (2 eps)": 143}


def grey(picture: Picture) -> dict[str, int]:
    """The one level of each image."""
    levels = {}
    for name, address in picture.images.items():
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
        (levels[name],) = np.unique(pixels).tolist()
    return levels


def test_what_a_classifier_sees_is_shown_beside_what_the_defense_was_given(builder: Any) -> None:
    builder.case("a", measured="bits per dimension")
    builder.record("a", "clean", [1, 1, 0], role="clean", images=True, measured=[3, 3.5])
    builder.record("a", "bpda", [0, 0, 1], images=True, measured=[4, 4.5])
    folder = RunFolder.read(builder.write())
    found = gallery(folder, folder.cases[0])
    assert found is not None
    seen = {"clean, as the classifier sees it": 64, "adversarial, as the classifier sees it": 64}
    assert grey(found.pictures[0]) == {"clean": 128, "adversarial": 135, "change / (2 eps)": 143, **seen}
    write(folder.path)
    page = (folder.path / "report.html").read_text()
    for text in ("bits per dimension", "clean, n = 2", "adversarial, n = 2", "as the classifier sees it"):
        assert text in page


def test_no_histogram_of_what_was_not_measured(run: Path, builder: Any) -> None:
    folder = RunFolder.read(run)
    assert [histogram(folder, case) for case in folder.cases] == [""] * 4
    builder.case("half", measured="error")
    builder.record("half", "clean", [1, 1], role="clean", images=True, measured=[1, 2])
    folder = RunFolder.read(builder.write())
    assert histogram(folder, folder.cases[-1]) == ""


def test_no_picture_of_what_was_wrong_or_stands(builder: Any) -> None:
    builder.case("a")
    builder.record("a", "clean", [0, 1, 1], role="clean")
    builder.record("a", "bpda", [0, 1, 0.5], images=True)
    folder = RunFolder.read(builder.write())
    assert gallery(folder, folder.cases[0]) is None


def test_pictures_that_are_gone_are_left_out_and_broken_ones_named(run: Path) -> None:
    folder = RunFolder.read(run)
    (file,) = (run / "examples").iterdir()
    file.write_bytes(b"torn")
    with pytest.raises(ValueError, match=f"{file.name} is broken .*delete it to report without it"):
        gallery(folder, folder.cases[0])
    file.unlink()
    assert gallery(folder, folder.cases[0]) is None


def test_nothing_but_the_reports_is_left_behind(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    write(run)
    once = (run / "report.html").read_bytes()
    write(run)
    assert {path.name for path in run.iterdir()} - before == {"report.json", "report.md", "report.html"}
    assert (run / "report.html").read_bytes() == once


def test_import_is_light() -> None:
    heavy = ["torch", "matplotlib", "jinja2", "rich", "numpy"]
    code = f"import sys, unmask.report; sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_form_tells_replicated_figures_access_and_general_categories_where_there_are_any(builder: Any) -> None:
    access = {"plain": "white box", "square": "scores"}
    builder.case(
        "known", ("plain", "square"), replicated=figure(0.123, note="at *4/255*"), access=access, groups=[0, 1, 1]
    )
    builder.record("known", "clean", [1, 1, 1, 1], role="clean")
    builder.record("known", "plain", [1, 1, 1, 0], role="plain")
    builder.record("known", "square", [0, 0, 0, 0])
    path = write(builder.write())
    html, markdown = Page(path).text, path.with_suffix(".md").read_text()
    for text in (html, markdown, printed(path.parent, 200), printed(path.parent, 60)):
        assert "replicated" in text.lower()
        assert "12.3 %" in text
    assert "replicated 12.3 %: Other et al., 2019 ; at *4/255*" in html
    assert "- replicated 12.3 %: [Other et al., 2019](https://example.org/a_b); at \\*4/255\\*" in markdown
    kept = "Accuracy of the general category (the class may be wrong): clean 100.0 %"
    for text in (html, markdown):
        assert kept in " ".join(text.split())
        assert "scores" in text
        assert "eneral category" in text


def test_no_form_has_empty_columns_for_what_is_not_known(run: Path) -> None:
    path = write(run)
    for text in (Page(path).text, path.with_suffix(".md").read_text(), printed(run, 200)):
        assert not re.search(r"earlier|access|general category", text, re.IGNORECASE)


def test_what_strength_costs_is_told_where_it_was_varied(builder: Any) -> None:
    builder.case("a", strength_sweep={"varied": "step in levels", "own": 30.0})
    for value in (30.0, 60.0):
        builder.record("a", "clean", [1, 1, 0], role="strength", base="clean", strength=value)
        builder.record("a", "plain", [1, 0, 0], role="strength", base="plain", strength=value)
        builder.record("a", "bpda", [0, 0, 0], role="strength", base="adaptive", strength=value)
    path = write(builder.write())
    page = Page(path)
    assert page.tags.count("svg") == 2  # the brand, and the plot
    assert "accuracy against the step in levels, n = 3" in " ".join(page.text.split())
    lines = [line.split(" | ") for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("| ")]
    shares = [[cell.split(" %")[0].strip("| ") for cell in line] for line in lines if line[0] in ("| 30", "| 60")]
    assert shares == [["30", "66.7", "33.3", "0.0"], ["60", "66.7", "33.3", "0.0"]]
