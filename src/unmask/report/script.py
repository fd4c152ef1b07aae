"""Python code that repeats the attack of an audit, to the digit, and the command that repeats all of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from unmask.kinds import MAIN_ROLES
from unmask.records import AttackCode
from unmask.report.run_folder import CaseInfo, RunFolder

__all__ = ["script"]

_BALLS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_BLOCK = 128
_FORM = {"channels_last": False, "pixel_max": 1.0, "mean": [], "std": []}
"""What models take unless the user says otherwise; the other fields of their form are None."""


def script(run: RunFolder, case: CaseInfo) -> str:
    """Code that makes the adaptive attack of an audit again, and the plain one where the adaptive one attacks what that
    leaves, and prints the robust accuracy that the report gives them.

    Of a model that answers scores or labels only: the attacks by queries. Empty for the run of an earlier version.
    """
    assert case.audit is not None
    if "code" not in case.audit:
        return ""
    code, config = AttackCode(**case.audit["code"]), run.config.get("config", {})
    n = max((record.job.stop for record in run.of(case, *MAIN_ROLES)), default=case.n or 1)
    lines = [*_heading(code, config), *_loading(run, config, case, n), *_views(code), *_attacks(code)]
    return "\n".join([*lines, *_running(code, config)])


def _heading(code: AttackCode, config: Mapping[str, Any]) -> Iterator[str]:
    named = _bare(" and ".join(code.attacks))
    yield f"# The audit's attacks, {named}, with the same random numbers: the same accuracy."
    yield "# The whole audit again; its figure is the worst case over this attack and others:"
    yield f"#   {_bare(_python_call(config) if 'made_by' in config else _command(config))}"
    if code.timed:
        yield "# The budget is time: how many turns fit into it, and with it the result, depends on the machine."
    if config.get("compile"):
        yield "# The audit compiled its views, whose sums round differently: single examples may differ."


def _command(config: Mapping[str, Any]) -> str:
    threat, form = config["threat"], {**_FORM, **config.get("form", {})}
    options: dict[str, Any] = {"data": config["data"], "eps": threat["eps"]}
    options |= {} if threat["norm"] == "linf" else {"norm": threat["norm"]}
    options |= {} if threat["unit"] == "raw" else {"eps-unit": threat["unit"]}
    options |= {name: config[name] for name in ("n", "seed", "size") if config.get(name) is not None}
    options |= config["options"]
    options |= {"layout": "nhwc"} if form["channels_last"] else {}
    options |= {"range": form["pixel_max"]} if form["pixel_max"] != 1 else {}
    options |= {name: ",".join(map(repr, form[name])) for name in ("mean", "std") if form[name]}
    named = ("output", "reject_class", "checkpoint", "num_classes", "rate_limit")
    options |= {name.replace("_", "-"): form[name] for name in named if form.get(name) is not None}
    options |= {name.replace("_", "-"): config[name] for name in ("weights", "stop_when") if config.get(name)}
    options |= {"out": "runs/again"}
    said = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return shlex.join(["unmask", "audit", config["target"], *said, *(["--compile"] if config.get("compile") else [])])


def _python_call(config: Mapping[str, Any]) -> str:
    options = {name: config[name] for name in ("n", "seed", "size") if config.get(name) is not None}
    return f"unmask.audit(given, data, threat{_keywords({**options, **config['options']})}{_form_code(config)})"


def _loading(run: RunFolder, config: Mapping[str, Any], case: CaseInfo, n: int) -> Iterator[str]:
    threads = (run.config.get("hardware") or {}).get("threads")
    yield from ["import torch", "", "import unmask", "from unmask.data import load", ""]
    if threads:
        yield f"torch.set_num_threads({int(threads)})  # as in the run, since sums round differently on others"
    if config.get("data_in_memory"):
        yield f"data = ...  # PUT HERE the data {_bare(case.data)} that unmask.audit got, as an unmask.data.Dataset"
    else:
        size = f", size={config['size']}" if config.get("size") else ""
        yield f"data = load({_quoted(case.data)}, n={case.n}{size})"
    named = _quoted(config["target"])
    if "made_by" in config:
        yield f"given = ...  # PUT HERE the model {_bare(case.case)} that was given to unmask.audit"
        named = "given"
    weights = _keywords({"weights": config["weights"]} if config.get("weights") else {})
    yield f"model = unmask.load_model({named}, data{weights}{_form_code(config)})"
    yield f"images, labels = data.batch(0, {n})"
    unit = "" if case.threat.unit == "raw" else f", {_quoted(case.threat.unit)}"
    yield f"threat = unmask.{_BALLS[case.threat.norm]}({case.threat.eps!r}{unit})"


def _views(code: AttackCode) -> Iterator[str]:
    """Each as a variable; calls name the model ``model``, and the images that surrogates are fitted on ``x``."""
    if any("unmask.fit_" in call for calls in code.views.values() for call in calls):
        wrong = f"({''.join(f'{int(place)}, ' for place in code.misclassified)})"
        yield f"x, _ = data.floats([i for i in range({code.seen}) if i not in {wrong}])  # which the model gets right"
    for name, calls in code.views.items():
        made = [f"unmask.{call}" for call in calls]
        yield ""
        if len(made) == 1:
            yield f"{name} = {made[0]}"
            continue
        yield f"parts_of_{name} = ("
        yield from (f"    {part}," for part in made)
        yield from [")", "", "", f"def {name}(model):", f"    for part in parts_of_{name}:"]
        yield from ["        model = part(model)", "    return model", ""]


def _attacks(code: AttackCode) -> Iterator[str]:
    yield ""
    yield "attacks = {"
    for name, made in code.attacks.items():
        yield f"    {_quoted(name)}: {made},".replace("\n", "\n    ")
    yield "}"


def _running(code: AttackCode, config: Mapping[str, Any]) -> Iterator[str]:
    drawn: dict[str, Any] = {"seed": config["seed"]}
    drawn |= {"draws": code.draws} if code.draws > 1 else {}
    drawn |= {"uses_torch_random": True} if code.uses_torch_random else {}
    yield "left = torch.ones(len(images), dtype=torch.float64)"
    if code.chained:
        yield "broken = torch.zeros(len(images), dtype=torch.bool)  # in all draws, by the attacks before"
    yield "for name, attack in attacks.items():"
    rows = f"torch.arange(len(images)){'[~broken]' if code.chained else ''}.split({_BLOCK})"
    yield f"    for rows in {rows}:  # fewer need less memory, for the same result"
    yield "        found = unmask.run_attack("
    yield f"            attack, model, images[rows], labels[rows], threat, index=rows{_keywords(drawn)}"
    yield "        )"
    yield "        left[rows] = found.verdict.robust_fraction"
    if code.chained:
        yield "        broken[rows] = found.selection.robust_fraction == 0"
    yield '    print(f"robust accuracy under {name}: {sum(left.tolist()) / len(left)}")'
    for name in code.views:
        yield f"# unmask.attackable(model, {name}) lets AutoAttack, Foolbox or ART use this view"


def _form_code(config: Mapping[str, Any]) -> str:
    """What of the model's form is not the usual, as an argument."""
    given = {name: value for name, value in config.get("form", {}).items() if value != _FORM.get(name)}
    return f", form=unmask.ModelForm({_keywords(given)[2:]})" if given else ""


def _keywords(options: Mapping[str, Any]) -> str:
    values = {name: _quoted(value) if isinstance(value, str) else repr(value) for name, value in options.items()}
    return "".join(f", {name}={value}" for name, value in values.items())


def _quoted(text: str) -> str:
    """As a Python literal, whatever is in it."""
    return json.dumps(text) if text.isascii() else repr(text)


def _bare(name: str) -> str:
    """Without what would end a comment."""
    return " ".join(name.split())
