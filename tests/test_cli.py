"""What scripts may rely on: options, exit codes, one line for each mistake, nothing that was computed lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from tests.commands import unmask
from tests.models import MEANS
from unmask.cases import CASES, SUITES
from unmask.cli import app
from unmask.cli.commands import SUITE_NAMES
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.transforms.jpeg import JPEG
from unmask.evaluation.attack_registry import ATTACKS
from unmask.nets import mobilenet_v2
from unmask.records import digest

MODELS = (
    MEANS
    + """

class Answer(Means):
    def __init__(self, answer=lambda x, logits: logits):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x, super().forward(x))


class Rounded(Means):
    def forward(self, x):
        return super().forward((x * 16).round() / 16)


def means():
    return Answer().eval()


def nan():
    return Answer(lambda x, z: z * torch.nan).eval()


def rounded():
    return Rounded().eval()


def probabilities():
    return Answer(lambda x, z: z.softmax(1)).eval()


def training():
    return Answer()


def nan_under_attack():
    exact = lambda x: (x * 16 == (x * 16).round()).flatten(1).all(1)[:, None]
    return Answer(lambda x, z: torch.where(exact(x), z, torch.nan)).eval()


def fails_under_attack():
    def answer(x, z):
        if x.requires_grad and len(x.unique(dim=0)) < len(x):
            raise LookupError("no gradient here\\nsecond line")
        return z
    return Answer(answer).eval()
"""
)


RAISED = MODELS[: MODELS.index("raise LookupError")].count("\n") + 1


class End(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., End]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command line in this process, in an empty folder that holds models.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)

    def cli(*arguments: str) -> End:
        return End(unmask(*arguments), *capsys.readouterr())

    return cli


def attack(factory: str = "means", *more: str, n: int = 12) -> list[str]:
    target = factory if ":" in factory else f"models.py:{factory}"
    return ["attack", target, "--data", "digits", "--eps", "0.2", "--steps", "5", "--n", str(n), "--out", "run", *more]


def one_line(end: End, message: str) -> None:
    """Exit code 2, nothing but one line, which begins with the program and holds the message."""
    assert end.code == 2, end
    lines = end.err.splitlines()
    assert len(lines) == 1, end.err
    assert lines[0].startswith("unmask: ")
    assert message in lines[0]
    assert end.out == ""


COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_shows_an_example(self, cli: Cli, command: str) -> None:
        end = cli(command, "--help")
        assert end.code == 0
        assert f"Example: unmask {command} " in " ".join(end.out.split())

    def test_without_arguments_it_helps(self, cli: Cli) -> None:
        assert cli() == cli("--help") == cli("-h")
        assert "Example: unmask reproduce --suite digits" in cli().out

    def test_it_does_not_wait_for_torch(self) -> None:
        code = "import sys; from unmask.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
        assert run.stdout.endswith("False\n")


class TestList:
    def test_cases_and_attacks(self, cli: Cli) -> None:
        lines = cli("list").out.splitlines()
        assert [line.split()[0] for line in lines] == list(CASES)
        assert sum(line.endswith("; its weights do not ship") for line in lines) == len(SUITES["imagenet"])
        assert [line.split()[0] for line in cli("list", "attacks").out.splitlines()] == list(ATTACKS)

    def test_an_entry_is_a_line_however_narrow_the_terminal(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        monkeypatch.setenv("UNMASK_HOME", "/nowhere/at/all")
        datasets = cli("list", "datasets").out.splitlines()
        own = ["FILE.parquet", "FOLDER", "FILE.csv", "FILE.npz", "FILE.pt", "FILE.safetensors", "hf:NAME"]
        assert [line.split()[0] for line in datasets] == ["digits", "mnist", "cifar10", "imagenet-sample", *own]
        assert all(re.search(r" for example --data \S+$", line) for line in datasets[4:])
        assert "missing from /nowhere/at/all" in datasets[1]
        assert any(line.startswith("thermometer encoding ") for line in cli("list", "defenses").out.splitlines())
        assert any(line.startswith("case:madry-mnist ") for line in cli("list", "models").out.splitlines())

    def test_a_reader_that_has_enough(self) -> None:
        run = subprocess.Popen(
            [sys.executable, "-m", "unmask.cli", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert run.stdout is not None
        run.stdout.close()
        assert run.stderr is not None
        assert run.stderr.read() == b""
        run.stderr.close()
        assert run.wait() == 0

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
    def test_output_that_goes_nowhere(self) -> None:
        with open("/dev/full", "w") as full:
            run = subprocess.run(
                [sys.executable, "-m", "unmask.cli", "list"], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert run.returncode == 2
        assert run.stderr == "unmask: No space left on device: free space, then the same command continues the run\n"


WRONG_SIZES = ("-1", "nan", "inf", "much", "8/0", "1_0", "8/", "1e999", " .3", "0x8")

MISTAKES: list[tuple[list[str], str]] = [
    (["nope"], "No such command 'nope'; see `unmask --help`"),
    (["list", "nope"], "nothing to list under 'nope'; there are: cases, defenses, attacks, datasets, models"),
    (["list", "--nope"], "No such option: --nope; see `unmask list --help`"),
    (["reproduce", "--n"], "Option '--n' requires an argument"),
    (["reproduce", "--n", "0"], "Invalid value for '--n'"),
    (["reproduce", "--n", "many"], "Invalid value for '--n'"),
    (["reproduce", "--suite", "nope"], "no suite 'nope'; suites: digits, mnist"),
    (["reproduce", "--case", "nope"], "no case 'nope'; cases: plain-digits"),
    (["reproduce", "--fail-under", "50"], "Invalid value for '--fail-under'"),
    (
        ["reproduce", "--case", "plain-digits", "--weights", "."],
        "no weights at plain-digits.safetensors: train them with",
    ),
    (["train", "plain-digit"], "no case 'plain-digit'; did you mean plain-digits"),
    (["attack"], "Missing argument 'MODEL'; see `unmask attack --help`"),
    (["verify", "."], ". holds no run: no run.json in it"),
    (["report", "models.py"], "models.py holds no run"),
    (attack("case:nope"), "no case 'nope'"),
    (attack("nowhere.py:build"), "no file nowhere.py"),
    (attack("missing"), "models.py has no function 'missing'"),
    (attack("models.py:"), "models.py names no function: give models.py:FUNCTION, one of those it has: means, nan"),
    (
        attack(":means"),
        "':means' is no name of a model; models: path/to/file.py:factory, package.module:factory, case:",
    ),
    (attack("means", "--data", "nope"), "there is no data set, folder or file 'nope'"),
    (attack("means", "--attack", "nope"), "no attack 'nope'; attacks: fgsm"),
    (attack("means", "--norm", "l7"), "unknown norm 'l7': use one of linf, l2, l1"),
    (attack("means", "--eps-unit", "inch"), "unknown unit 'inch': use one of raw, rms"),
    *(
        (attack("means", "--eps", eps), f"{eps!r} is no positive decimal number and no fraction of two")
        for eps in WRONG_SIZES
    ),
    (attack("means", "--eps", "1_0"), "did you mean 10?"),
    (attack("means", "--eps", "\uff18/\uff12\uff15\uff15"), "did you mean 8/255?"),
    (attack("means", "--eps", "0"), "eps is 0: give a size above 0, such as 8/255"),
    (attack("means", "--eps", "8"), "eps 8 is more than the whole range [0, 1] of a pixel: did you mean 8/255?"),
    (["audit", *attack("means", "--eps", "8")[1:4], "--eps", "8"], "did you mean 8/255?"),
    (attack("means", "--fail-on", "lower"), "--fail-on lower is for --fail-under"),
    (attack("means", "--bpda", "nope"), "the model has no part 'nope'; its parts: read"),
    (attack("means", "--bpda", "read=magic"), "no surrogate 'magic' for part 'read'"),
    (attack("means", "--device", "cuda:99"), "device 'cuda:99' is not usable"),
    (attack("means", "--out", "models.py"), "models.py is no folder: choose another --out"),
    (attack("means", "--out", "/proc/nowhere"), "/proc/nowhere"),
    (attack("nan"), "the model gives NaN logits on clean images: return finite logits"),
    (attack("probabilities"), "the model returns probabilities: return the logits before the softmax"),
    (attack("training"), "the model is in training mode (all of it): call model.eval() in the factory"),
    (attack("case:plain-mnist"), "the model fails on images of shape (8, 1, 8, 8)"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_begun(cli: Cli, arguments: list[str], message: str) -> None:
    one_line(cli(*arguments), message)
    assert not os.path.exists("run/run.json")


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"PAR1 no parquet"])
def test_damaged_data_is_one_line(cli: Cli, damage: Callable[[bytes], bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pa.parquet.write_table(pa.table({"image": [{"bytes": b"", "path": ""}], "label": [0]}), "test.parquet")
    Path("test.parquet").write_bytes(damage(Path("test.parquet").read_bytes()))
    one_line(cli(*attack("means", "--data", "test.parquet")), "test.parquet")


class TestAttack:
    def test_a_run_leaves_its_folder_and_verifies(self, cli: Cli) -> None:
        end = cli(*attack())
        assert end.code == 0
        table = json.loads(Path("run/report.json").read_text())
        (row,) = table["rows"]
        assert table["schema"] == "unmask.table/3"
        assert (row["clean"]["n"], row["plain"]["n"], row["plain"]["attack"]) == (12, 12, "apgd")
        assert row["clean"]["value"] > 0.8 > row["plain"]["value"] + 0.2
        assert row["adaptive"] is None
        assert row["data_note"] == "digits"
        assert f"Report: {Path('run/report.html').resolve()}" in end.out.splitlines()
        end = cli("verify", "run")
        assert end == (0, "2 records, 24 adversarial examples judged again: all 9 checks passed.\n", "")

    def test_elsewhere_than_on_a_terminal_progress_is_a_line_an_attack(self, cli: Cli) -> None:
        lines = cli(*attack(n=140)).err.splitlines()
        clean, attacked = lines
        assert clean.startswith("models.py:means clean ")
        assert clean.endswith(" % (140 examples; 140 of 280 verdicts of the run)")
        assert attacked.startswith("models.py:means apgd ")
        assert attacked.endswith(" % (140 examples; 280 of 280 verdicts of the run)")
        assert cli(*attack(n=140)).err == ""  # all of it was there

    def test_another_question_in_the_same_folder(self, cli: Cli) -> None:
        assert cli(*attack()).code == 0
        one_line(cli(*attack(n=13)), "run holds another run (n 12, now 13): choose another --out")
        one_line(cli(*attack("means", "--seed", "1")), "(seed 0, now 1)")
        assert cli(*attack()).code == 0

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            ("nan_under_attack", "models.py:nan_under_attack under apgd: the model gives NaN or Inf logits"),
            ("fails_under_attack", f"under apgd fails with LookupError at models.py:{RAISED}: no gradient here"),
        ],
    )
    def test_what_fails_in_the_middle_keeps_what_was_done(self, cli: Cli, factory: str, message: str) -> None:
        end = cli(*attack(factory))
        assert end.code == 2
        *progress, last = end.err.splitlines()
        assert message in last
        assert len(progress) == 1
        (record,) = Path("run/records.jsonl").read_text().splitlines()
        assert json.loads(record)["job"]["role"] == "clean"
        assert cli("report", "run").code == 0
        again = cli(*attack(factory))
        assert again.code == 2
        assert again.err.splitlines() == [last]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["0"], ""),
            (["0.99"], "models.py:means: robust accuracy {value:.4g} is under 0.99"),
            (["{value}"], ""),
            (
                ["{value}", "--fail-on", "lower"],
                "models.py:means: the lower end of the interval is {low:.4g}, under {value:g}",
            ),
            (["{low}", "--fail-on", "lower"], ""),
        ],
    )
    def test_fail_under(self, cli: Cli, options: list[str], message: str) -> None:
        assert cli(*attack(n=100)).code == 0
        found = json.loads(Path("run/report.json").read_text())["rows"][0]["plain"]
        assert 0.1 < found["low"] < found["value"] < 0.9
        end = cli(*attack("means", "--fail-under", *(option.format(**found) for option in options), n=100))
        assert end.code == (1 if message else 0)
        said = [line for line in end.err.splitlines() if line.startswith("unmask: ")]
        assert said == ([f"unmask: {message.format(**found)}"] if message else [])

    def test_an_unreliable_figure_fails_at_any_threshold(self, cli: Cli) -> None:
        """No gradient, so that all of the clean accuracy is left."""
        end = cli(*attack("rounded", "--fail-under", "0", n=40))
        assert end.code == 1
        assert end.err.splitlines()[-1].startswith(
            "unmask: models.py:rounded: unreliable: the attack had no gradient on 100.0 % of the images"
        )
        assert "inconclusive, upper bound only" in end.out
        assert cli(*attack("rounded", n=40)).code == 0, "without a threshold it is no failure"


class TestDamage:
    """Of a folder that holds a finished run."""

    @pytest.fixture(autouse=True)
    def run(self, cli: Cli) -> None:
        assert cli(*attack()).code == 0

    def test_run_json(self, cli: Cli) -> None:
        Path("run/run.json").write_text('{"schema"')
        for arguments in (attack(), ["verify", "run"], ["report", "run"]):
            one_line(cli(*arguments), "run/run.json is damaged")

    def test_records(self, cli: Cli) -> None:
        path = Path("run/records.jsonl")
        clean, attacked = path.read_text().splitlines(keepends=True)
        path.write_text(clean[20:] + attacked)
        for arguments in (attack(), ["report", "run"]):
            one_line(cli(*arguments), "run/records.jsonl, line 1: not a record")
        end = cli("verify", "run")
        assert end.code == 1
        assert end.out.startswith("FAILED line 1 of records.jsonl: not a record")
        path.write_text(attacked)
        assert cli(*attack()).code == 0
        assert sorted(path.read_text().splitlines())  # the job whose line was deleted was done again
        assert path.read_text().count("\n") == 2

    def test_examples(self, cli: Cli) -> None:
        record = json.loads(Path("run/records.jsonl").read_text().splitlines()[1])
        path = Path("run") / record["file"]
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 4
        path.write_bytes(raw)
        end = cli("verify", "run")
        assert end.code == 1
        assert end.out.splitlines() == [
            f"FAILED {record['key']} (models.py:means apgd 0-12 at linf 0.2 raw): its examples were changed",
            "2 records, 24 adversarial examples judged again: 1 of 9 checks failed.",
        ]


class TestForged:
    """Of a run of which somebody made a better one."""

    @pytest.fixture(autouse=True)
    def run(self, cli: Cli) -> None:
        assert cli(*attack()).code == 0

    def no_effort(self) -> None:
        """The clean images as candidates, with the verdicts that are true of them."""
        clean, attacked = (json.loads(line) for line in Path("run/records.jsonl").read_text().splitlines())
        raw = Path("run", clean["file"]).read_bytes()
        Path("run", attacked["file"]).write_bytes(raw)
        attacked |= {"examples": clean["examples"], "sha256": hashlib.sha256(raw).hexdigest()}
        for record in (clean, attacked):
            record.pop("digest")
            record["digest"] = digest(record)
        lines = [json.dumps(record, sort_keys=True) + "\n" for record in (clean, attacked)]
        Path("run/records.jsonl").write_text("".join(lines))

    def test_examples_attacked_anew(self, cli: Cli) -> None:
        honest = cli("verify", "run", "--attack", "5", "--attack-seed", "3")
        assert honest.code == 0
        assert honest.out.splitlines()[-1] == "5 examples attacked again, chosen by --attack-seed 3."
        self.no_effort()
        assert cli("report", "run").code == 0
        assert cli("verify", "run").code == 0, "every verdict is true"
        end = cli("verify", "run", "--attack", "12")
        assert end.code == 1
        failed, *_, last = end.out.splitlines()
        assert failed.startswith("FAILED models.py:means apgd 0-12 at linf 0.2 raw, attacked again on 0, 1, 2, ")
        assert re.search(r": \d+ of 12 are broken that the run says are robust, first example \d+$", failed)
        assert re.fullmatch(r"12 examples attacked again, chosen by --attack-seed \d+\.", last)

    def test_a_repetition_tells(self, cli: Cli) -> None:
        self.no_effort()
        end = cli("rerun", "run", "--out", "again")
        assert end.code == 1
        assert "1 of 2 records are the same to the bit." in end.out.splitlines()

    def test_jobs_that_are_gone(self, cli: Cli) -> None:
        path = Path("run/records.jsonl")
        path.write_text(path.read_text().splitlines()[0] + "\n")
        end = cli("verify", "run")
        assert end.code == 1
        assert end.out.startswith("FAILED the records: missing: models.py:means apgd 0-12 at linf 0.2 raw\n")
        end = cli("rerun", "run", "--out", "again")
        assert end.code == 1
        assert "FAILED the records: 0 are in the run alone, 1 in the rerun" in end.out.splitlines()

    def test_attacks_of_an_audit_need_its_examination(self, cli: Cli) -> None:
        path = Path("run/run.json")
        told = json.loads(path.read_text())
        told["config"]["command"] = "audit"
        del told["digest"]
        path.write_text(json.dumps(told))
        one_line(cli("verify", "run", "--attack", "1", "--no-examine"), "leave out --attack or --no-examine")


class TestSuites:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("UNMASK_HOME", str(tmp_path / "home"))
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # nothing is downloaded
        return tmp_path / "home"

    def test_help_lists_them_all(self, cli: Cli) -> None:
        assert tuple(SUITES) == SUITE_NAMES
        assert ", ".join(SUITES) in " ".join(cli("reproduce", "--help").out.replace("│", " ").split())

    def test_without_any_data_it_says_what_is_missing_and_ends_with_1(self, cli: Cli, home: Path) -> None:
        end = cli("reproduce", "--suite", "iclr2018", "--n", "1", "--out", "run")
        assert (end.code, end.out) == (1, "")
        skipped, *missing = end.err.splitlines()
        assert skipped.startswith("15 of 15 cases are skipped, since something is missing: thermometer-cifar10, ")
        assert all(name in skipped for name in SUITES["iclr2018"])
        names = [line.split(" is missing: ")[0].split(" are missing: ")[0] for line in missing]
        weights = f"the weights {home}/weights/mobilenet_v2.safetensors"
        assert sorted(names) == ["cifar10 (test)", "imagenet-sample (test)", "mnist (test)", weights]
        assert not home.exists()
        assert not Path("run").exists()

    def test_what_can_run_runs_and_the_rest_is_told_before_and_after(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(SUITES, "iclr2018", ("jpeg-imagenet", "plain-digits"))
        command = ["reproduce", "--suite", "iclr2018", "--n", "3", "--no-curves", "--out", "run"]
        end = cli(*command)
        assert end.code == 1
        lines = end.err.splitlines()
        assert lines[0].startswith("1 of 2 cases are skipped, since something is missing: jpeg-imagenet (")
        assert lines[3].startswith("plain-digits clean")  # after a line on the images and one on the weights
        assert lines[-1] == "unmask: skipped, since data or weights are missing: jpeg-imagenet"
        rows = json.loads(Path("run/report.json").read_text())["rows"]
        assert [(row["case"], row["complete"]) for row in rows] == [("plain-digits", True)]
        assert cli(*command).code == 1  # continues
        assert cli("rerun", "run", "--out", "again").code == 0

    def test_a_case_asked_for_by_name_is_not_skipped(self, cli: Cli) -> None:
        one_line(cli("reproduce", "--case", "jpeg-imagenet", "--n", "1"), "imagenet-sample (test) is missing: ")

    def test_nor_one_whose_weights_are_missing(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        case = replace(
            CASES["plain-digits"], pretrained="mobilenet_v2", build=lambda: Preprocessed(JPEG(), mobilenet_v2())
        )
        monkeypatch.setitem(CASES, "plain-digits", case)
        end = cli("reproduce", "--case", "plain-digits", "--n", "1")
        one_line(end, "mobilenet_v2.safetensors are missing: get them by `unmask fetch mobilenet_v2`")


class TestReproduce:
    def run(self, cli: Cli, *more: str) -> End:
        cases = ["--case", "plain-digits", "--case", "thermometer-digits", "--case", "plain-digits"]
        return cli("reproduce", *cases, "--n", "10", "--no-curves", "--out", "run", *more)

    def test_rows_in_the_order_asked_for(self, cli: Cli) -> None:
        assert self.run(cli).code == 0
        rows: list[dict[str, Any]] = json.loads(Path("run/report.json").read_text())["rows"]
        assert [row["case"] for row in rows] == ["plain-digits", "thermometer-digits"]
        assert all(row["complete"] for row in rows)
        assert rows[1]["plain"]["value"] - rows[1]["adaptive"]["value"] > 0.5  # what the project is about

    def test_fail_under_names_each_case(self, cli: Cli) -> None:
        end = self.run(cli, "--fail-under", "0.9")
        assert end.code == 1
        last = end.err.splitlines()[-1]
        assert last.startswith("unmask: plain-digits: ")
        assert "; thermometer-digits: " in last


def test_the_version_and_the_traceback_of_an_error_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert unmask("--version") == 0
    assert capsys.readouterr().out == f"unmask {metadata.version('unmask')}\n"
    assert unmask("report", "nowhere") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert unmask("--debug", "report", "nowhere") == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("unmask: nowhere holds no run")
