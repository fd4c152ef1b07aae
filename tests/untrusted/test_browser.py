"""The report in a real browser, opened from the disk: names and files of strangers stay text, nothing is asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.browser import BROWSER, QUIET
from unmask.kinds import Role
from unmask.records import RUN_SCHEMA, Example, Job, Record, ThreatSpec
from unmask.report import write

LINK = "https://example.org/"
OWN = re.compile(r"https?://[\w.-]+\.(google|googleapis|gvt1)\.com/")  # what the browser asks on its own behalf
WORD = "CANARY"
HOSTILE = (
    f"</style></title><script>document.title='{WORD}'</script><img src=http://canary.test/a onerror=\"document.title="
    f"'{WORD}'\"><svg onload=document.title='{WORD}'>{{{{ 7*7 }}}}' \" & <b>"
)


def hostile(folder: Path) -> Path:
    """A run of which every name is an attempt."""
    threat = ThreatSpec("linf", 0.1, HOSTILE)
    records = []
    for attack, role, robust in (("clean", "clean", 1.0), (HOSTILE, "plain", 1.0), ("b", "adaptive", 0.0)):
        job = Job(HOSTILE, HOSTILE, attack, threat, 0, 0, 2, Role(role))
        examples = tuple(Example(i, 1, 0, robust, robust > 0, robust > 0, robust, 0.1) for i in range(2))
        file = f"examples/{job.key}.safetensors"
        records.append(Record(job, examples, 1, 1, 1, 1, 1.0, file))
        (folder / "examples").mkdir(exist_ok=True)
        x = np.full((2, 1, 4, 4), 0.5, np.float32)
        save_file({"x_adv": x, "clean": x, "index": np.arange(2), "measured": np.ones(2, np.float32)}, folder / file)
    names = dict.fromkeys(("case", "defense", "data", "citation", "note", "data_note", "measured"), HOSTILE)
    case = {
        **names,
        "obfuscation": [HOSTILE],
        "threat": {"norm": "linf", "eps": 0.1, "unit": HOSTILE},
        "claimed": {"value": 0.5, "source": HOSTILE, "url": LINK, "note": HOSTILE},
        "published": None,
        "random": True,
        "classes": [HOSTILE, HOSTILE],
        "attacks": {HOSTILE: HOSTILE, "b": HOSTILE},
    }
    run = {"schema": RUN_SCHEMA, "config": {}, "jobs": [], "fingerprints": {}, "cases": [case], "seed": 0}
    run |= dict.fromkeys(("command", "suite", "started", "revision"), HOSTILE)
    run |= {"versions": {HOSTILE: HOSTILE}, "hardware": {HOSTILE: HOSTILE, "cores": HOSTILE, "gpu": HOSTILE}}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "records.jsonl").write_text("".join(record.to_json() + "\n" for record in records))
    return write(folder)


def test_every_name_is_escaped(tmp_path: Path) -> None:
    page = hostile(tmp_path).read_text()
    assert "canary.test" in page
    assert not re.search(r"<(script|img src=http|svg onload)", page)
    asked = re.findall(
        r"""<(\w+)[^<>]*\s(?:src|href|action|xlink:href)\s*=\s*["']?\s*((?:https?:|//|javascript:)[^"']*)""", page
    )
    assert set(asked) == {("a", LINK)}  # which a browser follows only when told to


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_runs_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    kept = Path(os.environ.get("UNMASK_SHOTS", tmp_path)).resolve()
    kept.mkdir(parents=True, exist_ok=True)
    page, log, shot = hostile(folder), tmp_path / "net.json", kept / "hostile.png"
    command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--window-size=1200,2400"]
    seen = subprocess.run(
        [*command, f"--log-net-log={log}", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "Inconclusive" in seen.stdout, seen.stderr
    title = re.search("<title>(.*?)</title>", seen.stdout, re.S)
    assert title
    assert title[1] != WORD
    assert "CONSOLE" not in seen.stderr
    asked = set(re.findall(r'"url":"([^"]+)"', log.read_text()))
    assert not [url for url in asked if "canary.test" in url]
    asked = {url for url in asked if not OWN.match(url)}
    assert all(url.startswith(("file:", "data:", "chrome", "about:")) for url in asked), asked
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120)
    assert shot.stat().st_size > 1000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_browser_would_have_shown_it(tmp_path: Path) -> None:
    """The same attempts without escaping are seen by what the test looks at."""
    page = tmp_path / "page.html"
    page.write_text(f"<title>fine</title><style>{HOSTILE}")
    command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]
    seen = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert f"<title>{WORD}</title>" in seen.stdout
