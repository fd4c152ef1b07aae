"""Finished runs, edited by somebody who knows the format, with every digest right again: what catches each kind."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from unmask.auditing.question import plans
from unmask.evaluation import plan as planning
from unmask.evaluation.environment import environment
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.evaluation.verifying.attack_again import Sample
from unmask.evaluation.verifying.recheck import recheck
from unmask.evaluation.verifying.verify import verify
from unmask.kinds import Obfuscation
from unmask.records import Record, digest
from unmask.report import write
from unmask.report.compare import differing
from unmask.run_files import read_run

KEPT = ("x_adv", "index", "label", "clean")
BALL = {"norm": "linf", "eps": 0.15, "unit": "raw"}
STEPS = {"attack": "apgd", "steps": 5, "restarts": 1, "eot": 0, "spsa": 0, "bpda": [], "straight_through": False}
QUESTIONS: dict[str, dict[str, Any]] = {
    "broken": {"command": "attack", "target": "case:plain-digits", "threat": BALL, "options": STEPS},
    "robust": {"command": "attack", "target": "case:madry-digits", "threat": BALL, "options": STEPS},
    "masked": {"command": "attack", "target": "case:thermometer-digits", "threat": BALL, "options": STEPS},
    "case": {"command": "reproduce", "cases": ["thermometer-digits"], "curves": False},
    "audit": {"command": "audit", "target": "case:thermometer-digits", "threat": BALL, "options": {"budget": "quick"}},
}


@dataclass(frozen=True)
class Honest:
    """A finished run, and what it takes to check it."""

    folder: Path
    asked: dict[str, Any]
    local: LocalExecutor
    plans: list[Plan]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Honest]:
    """A run of twelve digits in two blocks, or its repetition in another folder."""
    made: dict[str, Honest] = {}

    def make(name: str) -> Honest:
        key = name.removesuffix(" again")
        asked = {"data": "digits", "n": 12, "seed": 0, "weights": None, **QUESTIONS[key]}
        local = LocalExecutor(ExecutionConfig(strict=asked["command"] != "audit"))
        planned, folder = plans(asked, local), tmp_path_factory.mktemp("honest") / key
        about = {
            "command": asked["command"],
            "n": 12,
            "seed": 0,
            "suite": None,
            "cases": [p.case_info for p in planned],
        }
        jobs = [job for plan in planned for job in plan.jobs]
        with Store.open(folder, asked, {**about, **environment()}, jobs, local.fingerprints(jobs)) as store:
            run(jobs, store, local, lambda record, stored: None)
        write(folder)
        return Honest(folder, asked, local, planned)

    def get(name: str) -> Honest:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(planning, "SHARD", 6)
                made[name] = make(name)
        return made[name]

    return get


class Forger:
    """A copy of a run, to be edited."""

    def __init__(self, source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        self.folder = folder
        self.run: dict[str, Any] = json.loads((folder / "run.json").read_text())
        lines = (folder / "records.jsonl").read_text().splitlines()
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.tensors: list[dict[str, Tensor]] = [load_file(folder / record["file"]) for record in self.records]

    @property
    def case(self) -> dict[str, Any]:
        case: dict[str, Any] = self.run["cases"][0]
        return case

    def of(self, *roles: str) -> list[int]:
        """Numbers of the records in these roles."""
        return [i for i, record in enumerate(self.records) if record["job"]["role"] in roles]

    def keep(self, which: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the records and planned jobs that ``which`` is not true of."""
        kept = [i for i, record in enumerate(self.records) if which(record["job"])]
        self.records, self.tensors = [self.records[i] for i in kept], [self.tensors[i] for i in kept]
        self.run["jobs"] = [job for job in self.run["jobs"] if which(job)]

    def save(self) -> None:
        """All files, every digest and key right, and the reports that follow from them."""
        for record, tensors in zip(self.records, self.tensors, strict=True):
            raw = save({name: tensor.contiguous() for name, tensor in tensors.items()})
            record["key"] = digest(record["job"])
            record |= {"file": f"examples/{record['key']}.safetensors", "sha256": hashlib.sha256(raw).hexdigest()}
            (self.folder / record["file"]).write_bytes(raw)
            record.pop("digest", None)
            record["digest"] = digest(record)
        for job in self.run["jobs"]:
            job["key"] = digest({name: value for name, value in job.items() if name != "key"})
        self.run.pop("digest")
        sealed = {**self.run, "digest": digest(self.run)}
        (self.folder / "run.json").write_text(json.dumps(sealed, indent=1))
        lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in self.records)
        (self.folder / "records.jsonl").write_text(lines)
        write(self.folder)


def set_verdict(example: dict[str, Any], *, robust: bool) -> None:
    example.update(
        robust=float(robust), robust_one_draw=robust, robust_all_draws=robust, selection_robust=float(robust)
    )


def judge_anew(f: Forger, number: int, local: LocalExecutor, x_adv: Tensor) -> None:
    """Replace candidates, with the verdicts that are true of them."""
    from dataclasses import asdict

    from unmask.evaluation.execute import rejudge

    record = Record.from_json(json.dumps({k: v for k, v in f.records[number].items() if k != "digest"}))
    data = local.dataset(record.job.data, record.job.stop)
    f.tensors[number]["x_adv"] = x_adv
    verdicts = rejudge(record.job, local.target(record.job.target, data), data, x_adv, ExecutionConfig())
    f.records[number]["examples"] = [asdict(one) for one in verdicts]


def smaller_ball(f: Forger, honest: Honest) -> None:
    for i in f.of("plain"):
        f.records[i]["job"]["threat"]["eps"] = 0.0
        f.records[i]["key"] = digest(f.records[i]["job"])
        start, stop = f.records[i]["job"]["start"], f.records[i]["job"]["stop"]
        judge_anew(f, i, honest.local, honest.local.dataset("digits", 12).batch(start, stop)[0])


def smaller_ball_planned(f: Forger, honest: Honest) -> None:
    smaller_ball(f, honest)
    for job in f.run["jobs"]:
        if job["role"] == "plain":
            job["threat"]["eps"] = 0.0


def adaptive_dropped(f: Forger, honest: Honest) -> None:
    f.keep(lambda job: job["role"] in ("clean", "plain"))
    left = {job["attack"] for job in f.run["jobs"]}
    f.case["attacks"] = {name: about for name, about in f.case["attacks"].items() if name in left}


def findings_emptied(f: Forger, honest: Honest) -> None:
    f.case["audit"]["findings"] = []


def view_renamed(f: Forger, honest: Honest) -> None:
    f.case["audit"]["candidate_views"] = [one | {"robust_accuracy": 1.0} for one in f.case["audit"]["candidate_views"]]


def setup_emptied(f: Forger, honest: Honest) -> None:
    assert f.case["setup"]
    f.case["setup"] = []


def standing_only(f: Forger, honest: Honest) -> None:
    """One job for each example that the attack left standing."""
    standing = {e["index"] for i in f.of("plain") for e in f.records[i]["examples"] if e["robust"] == 1.0}
    old, f.records, tensors, f.tensors, f.run["jobs"] = f.records, [], f.tensors, [], []
    for record, held in zip(old, tensors, strict=True):
        for row, example in enumerate(record["examples"]):
            if example["index"] in standing:
                job = record["job"] | {"start": example["index"], "stop": example["index"] + 1}
                f.records.append(record | {"job": job, "examples": [example]})
                f.tensors.append({name: held[name][row : row + 1].clone() for name in KEPT})
                f.run["jobs"].append(dict(job))
    f.case["n"] = f.run["n"] = f.run["config"]["n"] = len(standing)


def block_dropped(f: Forger, honest: Honest) -> None:
    last = f.of("plain")[-1]
    del f.records[last], f.tensors[last]


def record_twice(f: Forger, honest: Honest) -> None:
    """The same job once more, with candidates that fail: of two records a report takes the later."""
    i = f.of("plain")[0]
    f.records.append(json.loads(json.dumps(f.records[i])))
    f.tensors.append(f.tensors[i])


def fewer_steps(f: Forger, honest: Honest) -> None:
    for i in f.of("plain"):
        f.records[i]["job"]["options"]["steps"] = 1


def other_seed(f: Forger, honest: Honest) -> None:
    for i in f.of("plain"):
        f.records[i]["job"]["seed"] = 7


def attack_as_control(f: Forger, honest: Honest) -> None:
    for i in f.of("adaptive"):
        f.records[i]["job"]["role"] = "control"


def candidates_of_no_effort(f: Forger, honest: Honest) -> None:
    """The clean images as candidates, with the verdicts that are true of them."""
    for i in f.of("plain", "adaptive"):
        job = f.records[i]["job"]
        judge_anew(f, i, honest.local, honest.local.dataset("digits", 12).batch(job["start"], job["stop"])[0])


def infeasible(f: Forger, honest: Honest) -> None:
    """Out of the ball, so that the clean image was judged."""
    i = f.of("plain")[0]
    judge_anew(f, i, honest.local, (f.tensors[i]["x_adv"] + 0.3).clamp(0, 1))


def helped_clean(f: Forger, honest: Honest) -> None:
    i = f.of("clean")[0]
    judge_anew(f, i, honest.local, (f.tensors[i]["x_adv"] * 0.95).clamp(0, 1))


def verdict_turned(f: Forger, honest: Honest) -> None:
    for example in f.records[f.of("plain")[0]]["examples"]:
        set_verdict(example, robust=True)


def no_fingerprint(f: Forger, honest: Honest) -> None:
    f.run["fingerprints"] = {}


def other_weights(f: Forger, honest: Honest) -> None:
    """The run was of another model."""
    f.run["fingerprints"]["case:plain-digits"]["weights"] = "0" * 16


def claim_invented(f: Forger, honest: Honest) -> None:
    f.case["claimed"] = {"value": 0.79, "source": "Author et al.", "url": "https://example.org/", "note": ""}


def called_a_control(f: Forger, honest: Honest) -> None:
    """Controls do not count in the headline."""
    f.case["obfuscation"] = [Obfuscation.NONE]


def class_renamed(f: Forger, honest: Honest) -> None:
    f.case["classes"][0] = "nine"


def pictures_swapped(f: Forger, honest: Honest) -> None:
    i = f.of("plain")[0]
    f.tensors[i]["clean"] = f.tensors[i]["clean"].flip(0)


def stopped_early(f: Forger, honest: Honest) -> None:
    """A stop rule that was not met after the first block, and the first block alone."""
    f.run["config"]["stop_when"] = "lower>0.99"
    f.keep(lambda job: bool(job["start"] == 0))


def seed_shown(f: Forger, honest: Honest) -> None:
    f.run["seed"] = 42


def command_shown(f: Forger, honest: Honest) -> None:
    f.run["command"] = "reproduce"


def n_shown(f: Forger, honest: Honest) -> None:
    f.run["n"] = 12000


def job_planned_twice(f: Forger, honest: Honest) -> None:
    f.run["jobs"].append(dict(f.run["jobs"][0]))


def case_added(f: Forger, honest: Honest) -> None:
    f.run["cases"].append(f.case | {"case": "case:madry-digits"})


def fingerprint_of_fewer(f: Forger, honest: Honest) -> None:
    f.run["fingerprints"]["case:plain-digits"]["n"] = 6


def fingerprint_of_other_data(f: Forger, honest: Honest) -> None:
    f.run["fingerprints"]["case:plain-digits"]["data"] = "mnist"


def unplanned_twice(f: Forger, honest: Honest) -> None:
    fewer_steps(f, honest)
    record_twice(f, honest)


def gone_on(f: Forger, honest: Honest) -> None:
    """A stop rule that the first block met, and the second block as well."""
    f.run["config"]["stop_when"] = "upper<0.999"


def labels_edited(f: Forger, honest: Honest) -> None:
    f.tensors[f.of("plain")[0]]["label"][0] += 1


def labels_of_another_type(f: Forger, honest: Honest) -> None:
    tensors = f.tensors[f.of("plain")[0]]
    tensors["label"] = tensors["label"].int()


def positions_edited(f: Forger, honest: Honest) -> None:
    f.tensors[f.of("plain")[0]]["index"] += 1


def pictures_edited_a_little(f: Forger, honest: Honest) -> None:
    """By less than what other hardware may round."""
    tensors = f.tensors[f.of("plain")[0]]
    tensors["clean"] = tensors["clean"] + 1e-5


def pictures_added(f: Forger, honest: Honest) -> None:
    f.tensors[f.of("plain")[0]]["seen"] = torch.zeros(6, 1, 8, 8)


def gradients_hidden(f: Forger, honest: Honest) -> None:
    """The plain attack had no gradient, which a warning says."""
    for i in f.of("plain"):
        assert f.records[i]["gradients"]["none"]
        f.records[i]["gradients"]["none"] = 0


def ball_of_the_case(f: Forger, honest: Honest) -> None:
    """The question itself says another ball than its jobs had."""
    f.run["config"]["threat"] = f.case["threat"] = BALL | {"eps": 0.3}


def seconds_lowered(f: Forger, honest: Honest) -> None:
    for record in f.records:
        record["seconds"] = 0.001


def other_machine(f: Forger, honest: Honest) -> None:
    f.run["revision"], f.run["versions"] = "0" * 40, {"torch": "9"}


Edit = Callable[[Forger, Honest], None]
FORGERIES: list[tuple[Edit, str, str]] = [  # what is done, to which run, a part of the line that catches it
    (smaller_ball, "broken", "it belongs to no planned job"),
    (smaller_ball_planned, "broken", "not asked for: case:plain-digits apgd 0-6 at linf 0 raw"),
    (ball_of_the_case, "broken", "at linf 0.3 raw"),
    (adaptive_dropped, "case", "missing: case:thermometer-digits bpda 0-6 at linf 0.15 raw"),
    (findings_emptied, "audit", "differs from what the configuration gives today: audit.findings"),
    (view_renamed, "audit", "differs from what the configuration gives today: audit.candidate_views.0.robust_accuracy"),
    (setup_emptied, "masked", "differs from what the configuration gives today: setup"),
    (standing_only, "robust", "not asked for: case:madry-digits clean 0-1"),
    (block_dropped, "broken", "missing: case:plain-digits apgd 6-12"),
    (record_twice, "broken", "more than one record: case:plain-digits apgd 0-6"),
    (fewer_steps, "broken", "it belongs to no planned job"),
    (other_seed, "broken", "it belongs to no planned job"),
    (attack_as_control, "case", "it belongs to no planned job"),
    (infeasible, "broken", "6 of 6 candidates are outside ball or box"),
    (helped_clean, "broken", "its clean verdicts are on other images"),
    (verdict_turned, "broken", "verdicts differ"),
    (no_fingerprint, "broken", "run.json has no fingerprint of it"),
    (other_weights, "broken", "the model's weights changed since the run began"),
    (claim_invented, "case", "differs from what the configuration gives today: claimed"),
    (called_a_control, "case", "differs from what the configuration gives today: obfuscation"),
    (class_renamed, "broken", "differs from what the configuration gives today: classes.0"),
    (pictures_swapped, "broken", "not what belongs to these examples: clean"),
    (stopped_early, "broken", "missing: case:plain-digits clean 6-12"),
    (gone_on, "broken", "its job comes after the block at which the stop rule was met"),
    (seed_shown, "broken", "its seed are not those of the configuration"),
    (command_shown, "broken", "its command are not those of the configuration"),
    (n_shown, "broken", "its n are not those of the configuration"),
    (job_planned_twice, "broken", "the jobs of run.json: some are there more than once"),
    (
        case_added,
        "broken",
        "they are case:plain-digits, case:madry-digits, but the configuration gives case:plain-digits",
    ),
    (fingerprint_of_fewer, "broken", "its fingerprint is of 6 images of digits, not of 12"),
    (fingerprint_of_other_data, "broken", "its fingerprint is of 12 images of mnist, not of 12"),
    (unplanned_twice, "broken", "it belongs to no planned job"),
    (labels_edited, "broken", "not what belongs to these examples: label"),
    (labels_of_another_type, "broken", "not what belongs to these examples: label"),
    (positions_edited, "broken", "not what belongs to these examples: index"),
    (pictures_edited_a_little, "broken", "not what belongs to these examples: clean"),
    (pictures_added, "broken", "not what belongs to these examples: seen"),
]
UNSEEN: list[tuple[Edit, str, str]] = [  # what only an attack anew tells
    (candidates_of_no_effort, "broken", "are broken that the run says are robust"),
    (gradients_hidden, "masked", "count under gradients.none, of the whole run only 0"),
]
NOTHING: list[tuple[Edit, str]] = [(seconds_lowered, "broken"), (other_machine, "broken")]


def name(forgery: Any) -> str | None:
    return forgery.__name__ if callable(forgery) else None


def forged(edit: Edit, source: Honest, folder: Path) -> Path:
    forger = Forger(source.folder, folder / "forged")
    edit(forger, source)
    forger.save()
    return forger.folder


def problems(folder: Path, source: Honest, monkeypatch: pytest.MonkeyPatch, sample: Sample | None = None) -> list[str]:
    monkeypatch.setattr(planning, "SHARD", 6)
    asked = read_run(folder).config
    planned = source.plans if asked == source.asked else plans(asked, source.local)
    return [f"{c.record}: {c.problem}" for c in verify(folder, source.local, planned, sample) if c.problem]


@pytest.mark.parametrize("source", QUESTIONS)
def test_an_honest_run(honest: Any, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = honest(source)
    assert problems(one.folder, one, monkeypatch, Sample(3, 1)) == []


@pytest.mark.parametrize(("edit", "source", "line"), FORGERIES, ids=name)
def test_verify_catches(
    honest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, source: str, line: str
) -> None:
    one = honest(source)
    found = problems(forged(edit, one, tmp_path), one, monkeypatch)
    assert any(line in problem for problem in found), found


@pytest.mark.parametrize(("edit", "source", "line"), UNSEEN, ids=name)
def test_only_an_attack_anew_catches(
    honest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, source: str, line: str
) -> None:
    one = honest(source)
    folder = forged(edit, one, tmp_path)
    assert problems(folder, one, monkeypatch) == []
    found = problems(folder, one, monkeypatch, Sample(12, 3))
    assert len(found) == 1
    assert line in found[0]


@pytest.mark.parametrize(("edit", "source"), NOTHING, ids=name)
def test_nothing_catches(honest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, source: str) -> None:
    """If one of these fails some day, docs/trust.md is to be changed too."""
    one = honest(source)
    assert problems(forged(edit, one, tmp_path), one, monkeypatch, Sample(12, 3)) == []


def test_without_an_examination_findings_are_trusted_and_ranges_are_not(
    honest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SHARD", 6)
    one = honest("audit")
    trusted = forged(findings_emptied, one, tmp_path / "a")
    assert [c.problem for c in verify(trusted, one.local, None) if c.problem] == []
    cut = forged(lambda f, _: f.keep(lambda job: bool(job["start"] == 0)), one, tmp_path / "b")
    found = [c.problem for c in verify(cut, one.local, None) if c.problem]
    assert found[0] is not None
    assert found[0].startswith("differs from the configuration: the jobs of clean, the jobs of plain")
    bare = forged(no_fingerprint, one, tmp_path / "c")
    assert [c.problem for c in verify(bare, one.local, None) if c.problem] == ["run.json has no fingerprint of it"]


def test_a_record_of_no_planned_job_is_not_attacked_anew(
    honest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SHARD", 6)
    one = honest("broken")
    checks = [*verify(forged(fewer_steps, one, tmp_path), one.local, one.plans, Sample(3, 1))]
    assert sum(check.problem == "it belongs to no planned job" for check in checks) == 2
    assert not any(check.attacked for check in checks)


@pytest.mark.parametrize(
    ("edit", "source", "line"),
    [
        (adaptive_dropped, "case", "the jobs of run.json: 0 are in the run alone, 2 in the rerun"),
        (smaller_ball, "broken", "the records: 2 are in the run alone, 2 in the rerun"),
        (claim_invented, "case", "the description of thermometer-digits in run.json differs in the rerun: claimed"),
        (setup_emptied, "masked", "the description of case:thermometer-digits in run.json differs in the rerun: setup"),
        (gradients_hidden, "masked", "other counts of gradients in the rerun"),
    ],
    ids=name,
)
def test_a_repetition_tells(honest: Any, tmp_path: Path, edit: Edit, source: str, line: str) -> None:
    one, again = honest(source), honest(f"{source} again")
    assert differing(one.folder, again.folder) == []
    assert any(found.startswith(line) for found in differing(forged(edit, one, tmp_path), again.folder))


def test_a_record_is_held_against_its_images(honest: Any, tmp_path: Path) -> None:
    one = honest("broken")
    folder = forged(pictures_swapped, one, tmp_path)
    records = [Record.from_json(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    found = [recheck(folder, record, one.local) for record in records]
    assert sum(problem is not None for problem in found) == 1


def test_examples_attacked_anew_are_chosen_by_the_checker() -> None:
    assert Sample(4, 0).of(range(100)) != Sample(4, 1).of(range(100))
    assert torch.tensor(Sample(4, 0).of(range(100))).unique().numel() == 4
