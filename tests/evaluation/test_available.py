from __future__ import annotations

from pathlib import Path

import pytest

from unmask.cases import SUITES, find_case
from unmask.data import DataError, Dataset, load
from unmask.evaluation.available import available
from unmask.evaluation.plan import plan_case

DIGITS = load("digits", n=2)
CASES = [find_case(name) for name in ("plain-digits", "jpeg-imagenet", "plain-mnist", "crop-imagenet")]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path


def only_digits(name: str) -> Dataset:
    if name != "digits":
        raise DataError(f"{name} is missing: put it there")
    return DIGITS


def test_cases_without_their_data_or_weights_are_skipped_and_told_by_what_they_lack(home: Path) -> None:
    found = available(CASES, only_digits)
    assert [case.name for case in found.cases] == ["plain-digits"]
    both = ("imagenet-sample", "weights mobilenet_v2")
    assert found.skipped == {"jpeg-imagenet": both, "plain-mnist": ("mnist",), "crop-imagenet": both}
    first, images, weights, mnist = str(found).splitlines()
    told = "jpeg-imagenet, crop-imagenet (imagenet-sample, weights mobilenet_v2); plain-mnist (mnist)"
    assert first == f"3 of 4 cases are skipped, since something is missing: {told}"
    assert (images, mnist) == ("imagenet-sample is missing: put it there", "mnist is missing: put it there")
    assert f"{home}/weights/mobilenet_v2.safetensors are missing: get them by `unmask fetch mobilenet_v2`" in weights


def test_weights_alone_may_be_missing(home: Path) -> None:
    assert available(CASES, lambda name: DIGITS).skipped.keys() == {"jpeg-imagenet", "crop-imagenet"}
    (home / "weights" / "mobilenet_v2.safetensors").touch()
    found = available(CASES, lambda name: DIGITS)
    assert (list(found.cases), found.skipped, str(found)) == (CASES, {}, "")


def test_a_data_set_is_looked_for_once() -> None:
    asked = []
    available(map(find_case, SUITES["iclr2018"]), lambda name: asked.append(name) or DIGITS)  # type: ignore[func-returns-value]
    assert sorted(asked) == ["cifar10", "imagenet-sample", "mnist"]


def test_a_plan_tells_what_the_file_says_of_its_weights(home: Path) -> None:
    from safetensors.torch import save

    path = home / "weights" / "mobilenet_v2.safetensors"
    path.write_bytes(save({}, metadata={"source": "somewhere,\nint8"}))
    about = plan_case(find_case("jpeg-imagenet"), DIGITS, 2, 0).case_info
    assert about["note"].startswith("quality 75; ")
    assert about["note"].endswith("; weights: somewhere, int8")
    published = find_case("jpeg-imagenet").published
    assert published is not None
    assert about["published"] == {
        "value": 0.0,
        "source": "Athalye, Carlini & Wagner, ICML 2018, Table 1",
        "url": "https://github.com/anishathalye/obfuscated-gradients",
        "note": published.note,
    }
