"""What holds of every case, whatever its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.cases import _MODULES, CASES, SUITES, Case, find_case
from unmask.data import DataError, names
from unmask.evaluation.models.model_checks import is_random
from unmask.kinds import Obfuscation
from unmask.randomness import make_keys, use_keys
from unmask.types import as_output
from unmask.weights import save_weights

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "imagenet-sample": (3, 224, 224)}
SMALL = [name for name, case in CASES.items() if case.data == "digits"]


def images(case: Case, n: int = 3) -> Tensor:
    return torch.rand(n, *SHAPES[case.data], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_named_after_defense_and_data(name: str) -> None:
    case = find_case(name)
    assert case.name == name
    assert case.data in names()
    assert name.endswith(f"-{case.data.removesuffix('-sample')}")
    assert case.obfuscation
    assert (Obfuscation.NONE not in case.obfuscation) or len(case.obfuscation) == 1
    assert case.citation


@pytest.mark.parametrize("name", CASES)
def test_one_plain_attack_comes_first_and_adaptive_ones_follow(name: str) -> None:
    case = find_case(name)
    attackers = case.attacks
    assert [key for key, attacker in attackers.items() if attacker.plain] == ["plain"]
    assert next(iter(attackers)) == "plain"
    assert len(attackers) > 1
    assert (
        attackers["plain"].view is None or Obfuscation.DETECTOR in case.obfuscation
    )  # which a plain attack does not look at
    assert not attackers.keys() & {"clean", "noise", "unbounded"}  # names that roles and controls have
    assert all(attacker.description and "\n" not in attacker.description for attacker in attackers.values())


@pytest.mark.parametrize("name", CASES)
def test_figures_are_shares(name: str) -> None:
    case = find_case(name)
    assert case.max_examples is None or case.max_examples >= 1
    assert case.draws > 1 or Obfuscation.STOCHASTIC not in case.obfuscation


THREATS = {  # the sizes of the paper, as a plain norm on one image
    ("digits", "linf"): (0.15, 0.175),
    ("mnist", "linf"): (0.3, 0.15),
    ("mnist", "l2"): (0.005 * 784,),
    ("cifar10", "linf"): (8 / 255, 4 / 255, 0.015),
    ("imagenet-sample", "linf"): (8 / 255,),
    ("imagenet-sample", "l2"): (0.05 * 224,),
}


@pytest.mark.parametrize("name", CASES)
def test_the_ball_has_the_size_that_is_meant(name: str) -> None:
    case = find_case(name)
    (radius,) = case.threat.radius(images(case, 1)).tolist()
    known = THREATS.get((case.data, case.threat.norm))
    assert radius > 0
    if known is not None and case.threat.unit in ("raw", "per_dim", "rms_pixel"):
        assert any(radius == pytest.approx(size) for size in known)


@pytest.mark.parametrize("name", CASES)
def test_every_case_builds_a_classifier_that_its_attacks_fit(name: str) -> None:
    case = find_case(name)
    try:
        model = case.build().eval()
    except DataError:
        pytest.skip("the defense keeps reference images, which are not here")
    for attacker in case.attacks.values():
        attacker.make(model)
        viewed = model if attacker.view is None else attacker.view(model)
        assert isinstance(viewed, torch.nn.Module)


@pytest.mark.parametrize("name", SMALL)
def test_logits_and_randomness_are_as_declared(name: str) -> None:
    case = find_case(name)
    model = case.build().eval()
    x = images(case)
    with torch.no_grad(), use_keys(make_keys(0, range(3), "test")):
        logits = as_output(model(x)).logits
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()
    assert is_random(model, x) == (case.draws > 1)


@pytest.mark.parametrize("name", SMALL)
def test_views_do_not_change_the_forward_pass(name: str) -> None:
    """BPDA attacks the defense itself; a bypass and a shorter projection are other models, and say so."""
    case = find_case(name)
    model = case.build().eval()
    x = images(case)
    for attacker in case.attacks.values():
        if attacker.view is None or any(w in attacker.description for w in ("alone", "bare", "shorter")):
            continue
        answers = []
        for module in (model, attacker.view(model)):
            with use_keys(make_keys(0, range(3), "test")):
                answers.append(as_output(module(x.clone().requires_grad_())).logits.detach())
        assert torch.equal(*answers)


def test_suites_are_the_cases_of_a_data_set() -> None:
    for suite in SUITES.keys() - {"iclr2018", "post2018", "selfstudy"}:
        members = (name for name, case in CASES.items() if case.data.startswith(suite))
        assert SUITES[suite] == tuple(members)
        assert SUITES[suite]


def test_one_suite_is_the_table_of_2018() -> None:
    assert set(SUITES["iclr2018"]) <= {*SUITES["cifar10"], *SUITES["mnist"], *SUITES["imagenet"]}
    assert len(SUITES["iclr2018"]) == len(set(SUITES["iclr2018"])) == 15


def test_one_suite_has_later_defenses_and_the_controls_of_their_data() -> None:
    later = {case.name for module in _MODULES if "post2018" in module.__name__ for case in module.CASES}
    data = {find_case(name).data for name in later}
    controls = {f"{control}-{name}" for name in data for control in ("plain", "madry")}
    assert set(SUITES["post2018"]) == later | controls
    assert len(SUITES["post2018"]) == len(set(SUITES["post2018"]))


def test_one_suite_has_the_defenses_of_the_self_study_course() -> None:
    course = {case.name for module in _MODULES if "selfstudy" in module.__name__ for case in module.CASES}
    assert set(SUITES["selfstudy"]) == course
    assert len(SUITES["selfstudy"]) == len(course) == 13


def test_all_weights_ship_but_those_of_the_cases_on_imagenet() -> None:
    assert {name for name, case in CASES.items() if not case.has_weights} == set(SUITES["imagenet"])


def test_the_published_figures_of_the_table_of_2018() -> None:
    """The README of obfuscated-gradients; SAP's is that of the erratum, and nobody attacked the ensemble."""
    table = "thermometer-cifar10 0 lid-cifar10 5 sap-athalye-cifar10 0 randomization-imagenet 0 pixeldefend-cifar10 9"
    table += " defense-gan-mnist 55 cascade-cifar10 15 bitdepth-imagenet 0 jpeg-imagenet 0 tvm-imagenet 0"
    names, shares = f"{table} quilting-imagenet 0 crop-imagenet 0".split()[::2], table.split()[1::2]
    assert {n: f.value for n in names if (f := CASES[n].published)} == {
        n: int(share) / 100 for n, share in zip(names, [*shares, "0", "0"], strict=True)
    }
    alone = {n for n, case in CASES.items() if case.published and "the defense alone" in case.published.note}
    transformed = {f"{n}-imagenet" for n in ("bitdepth", "jpeg", "tvm", "quilting", "crop")}
    assert alone == {"thermometer-cifar10", "randomization-imagenet", "pixeldefend-cifar10"} | transformed
    sap = CASES["sap-cifar10"]
    assert sap.published is not None
    assert (sap.published.value, sap.published.url, sap.replicated) == (0.001, "https://arxiv.org/abs/2010.00071", None)
    ensemble = CASES["transforms-imagenet"]
    assert (ensemble.claimed, ensemble.published, ensemble.replicated) == (None, None, None)


def test_an_earlier_run_published_a_line_for_each_defense() -> None:
    earlier = {name: case.replicated for name, case in CASES.items() if case.replicated}
    assert {figure.url for figure in earlier.values()} == {
        "https://github.com/Shruti2301/Feature-Distillation-as-a-Defense-Mechanism"
    }
    shares = {"thermometer-cifar10": 2, "lid-cifar10": 5, "sap-athalye-cifar10": 0, "randomization-imagenet": 3}
    shares |= {"pixeldefend-cifar10": 12, "defense-gan-mnist": 55}
    shares |= {f"{name}-imagenet": 0 for name in ("bitdepth", "jpeg", "tvm", "quilting", "crop")}
    assert {name: figure.value for name, figure in earlier.items()} == {n: s / 100 for n, s in shares.items()}


def test_claims_are_for_the_case_s_own_defense_and_threat() -> None:
    claims = {name: case.claimed.value for name, case in CASES.items() if case.claimed}
    assert claims == {
        "madry-mnist": 0.8962,
        "madry-cifar10": 0.46,
        "thermometer-adv-cifar10": 0.79,
        "sap-eps4-cifar10": 0.51,
        "pixeldefend-cifar10": 0.46,
    }
    assert "10/255" in CASES["randomization-imagenet"].note


def test_the_detector_is_not_evaluated_on_what_it_was_fitted_to() -> None:
    assert CASES["lid-cifar10"].max_examples == 1000


def test_weights_of_others_are_looked_for_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    case = find_case("jpeg-imagenet")
    with pytest.raises(
        ValueError, match=r"jpeg-imagenet: the weights .*mobilenet_v2.safetensors are missing: get"
    ) as error:
        case.load()
    assert str(error.value) == f"jpeg-imagenet: {case.missing_weights}"
    assert case.provenance == ""
    (tmp_path / "weights").mkdir()
    classifier = case.build().get_submodule("classifier")
    save_weights(classifier, tmp_path / "weights" / "mobilenet_v2.safetensors")
    assert case.missing_weights == ""
    loaded = case.load().get_submodule("classifier").state_dict()
    assert all(torch.equal(t.half().float(), loaded[name]) for name, t in classifier.state_dict().items())


def test_an_unknown_case_is_told_with_those_that_are_like_it_or_all() -> None:
    with pytest.raises(ValueError, match=r"no case 'thermometer'; did you mean thermometer-\w+"):
        find_case("thermometer")
    with pytest.raises(ValueError, match=r"no case 'nope'; cases: plain-digits, .*thermometer-mnist"):
        find_case("nope")


class TestWeights:
    case: Any = CASES["plain-digits"]

    def test_from_a_folder(self, tmp_path: Path) -> None:
        torch.manual_seed(5)
        made = self.case.build().eval()
        save_weights(made, tmp_path / "plain-digits.safetensors")
        loaded = self.case.load(tmp_path)
        assert not any(part.training for part in loaded.modules())
        torch.testing.assert_close(loaded(images(self.case)), made(images(self.case)), rtol=1e-2, atol=1e-3)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"no weights at .*: train them with `unmask train plain-digits`"):
            self.case.load(tmp_path)

    def test_truncated(self, tmp_path: Path) -> None:
        path = tmp_path / "plain-digits.safetensors"
        save_weights(self.case.build(), path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="is not a readable safetensors file"):
            self.case.load(tmp_path)

    def test_of_another_model(self, tmp_path: Path) -> None:
        save_weights(CASES["thermometer-digits"].build(), tmp_path / "plain-digits.safetensors")
        with pytest.raises(ValueError, match="holds weights of another model") as caught:
            self.case.load(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.strength_sweep])
def test_a_dial_changes_a_copy_and_leaves_the_case_alone(name: str) -> None:
    case = find_case(name)
    sweep = case.strength_sweep
    assert sweep is not None
    assert sweep.own in sweep.values
    assert not case.attacks[sweep.attack].plain
    model = case.build().eval()
    part = model.get_submodule("transform")
    x = images(case)
    before = part(x)
    assert torch.allclose(sweep.turn(model, sweep.own).get_submodule("transform")(x), before, atol=1e-5)
    lost = [float((sweep.turn(model, v).get_submodule("transform")(x) - x).square().mean()) for v in sweep.values]
    assert lost == sorted(lost)
    assert lost[0] < 0.2 * lost[-1]
    assert torch.equal(part(x), before)
