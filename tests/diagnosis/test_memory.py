"""Answers that depend on what was asked before, on the time, or on similar images in the batch."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import ZOO
from unmask.cases import find_case
from unmask.data import load
from unmask.diagnosis.behaviour.clock import at, by_the_clock
from unmask.diagnosis.behaviour.memory import aged, counts_calls, remembers
from unmask.diagnosis.lint import lint
from unmask.evaluation.models.targets import prepare_target
from unmask.models.forms import forgetting
from unmask.randomness import make_keys
from unmask.state import State
from unmask.types import Output

NET = find_case("plain-digits").load()
X, Y = load("digits", n=16).batch()
KEYS = make_keys(0, range(16), "memory")


class Caches(nn.Module):
    """Answers what it answered to an image at most ``size`` away; the memory is an attribute."""

    def __init__(self, size: float = 0.2) -> None:
        super().__init__()
        self.size, self.memory = size, list[tuple[Tensor, Tensor]]()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.recalled(*one) for one in zip(x, NET(x), strict=True)])

    def recalled(self, image: Tensor, answer: Tensor) -> Tensor:
        for seen, said in self.memory:
            if float((seen - image).abs().max()) < self.size:
                return said
        self.memory.append((image.detach().clone(), answer.detach()))
        return answer


class InBuffer(nn.Module):
    """Subtracts a running mean of all images, which is a buffer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        answer: Tensor = NET(x - self.mean)
        return answer


class InClass(Caches):
    """All objects of the class have one memory, so that copies remember too."""

    memory: list[tuple[Tensor, Tensor]] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(0.2)
        del self.memory  # that of the object


_seen: list[Tensor] = []


class RefusesTheSimilar(nn.Module):
    """Refuses an image that is like one of an earlier call; the memory is a global variable."""

    def forward(self, x: Tensor) -> Output:
        like = [any(float((image - one).abs().max()) < 0.05 for one in _seen) for image in x]
        _seen.extend(x.detach().clone())
        return Output(NET(x), torch.tensor(like).float() - 0.5)


def in_closure() -> nn.Module:
    seen: dict[str, Tensor] = {}

    def answer(part: nn.Module, args: tuple[Tensor], made: Tensor) -> Tensor:
        shift = seen["last"].mean() if "last" in seen else 0.0
        seen["last"] = args[0].detach()
        return made + shift * torch.arange(10)

    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(64, 10))
    model[2].register_forward_hook(answer)
    return model


class Counts(nn.Module):
    """Answers otherwise from its hundredth call on."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        answer: Tensor = NET(x)
        return answer if self.calls < 100 else answer.roll(1, 1)


@pytest.mark.parametrize("build", [Caches, InBuffer, InClass, RefusesTheSimilar, in_closure])
def test_answers_that_depend_on_earlier_ones_are_found_and_leave_no_trace(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    found = remembers(model, X, KEYS)
    assert found is not None
    assert found.kind == "memory"
    assert "depends on earlier ones" in found.where
    assert remembers(model, X, KEYS) == found


@pytest.mark.parametrize("name", ["Itself", "Blur", "Dropout", "Standardised", "Pooled", "Jpeg", "WeakNoise"])
def test_a_model_that_keeps_nothing_has_no_finding(name: str) -> None:
    model = ZOO[name].build(NET).eval()
    assert remembers(model, X, KEYS) is None
    assert aged(model, State(model), X, KEYS) is None
    assert list(by_the_clock(model, X, KEYS)) == []


def test_what_is_kept_and_not_used_is_no_memory() -> None:
    class Features(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = NET(x)
            self.features, self.last = x.detach(), {"answer": answer}
            return answer

    assert remembers(Features().eval(), X, KEYS) is None


def test_a_generator_of_its_own_is_no_memory() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.draw, self.calls = np.random.default_rng(0), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            answer: Tensor = NET(x + 0.3 * torch.from_numpy(self.draw.normal(size=x.shape)).float())
            return answer

    assert remembers(Noisy().eval(), X, KEYS) is None
    assert [one.kind for one in lint(Noisy().eval(), X, Y, KEYS)] == ["unrepeatable"]


class TakesTurns(nn.Module):
    """Two nets in turn, of which the second takes images of noise, whose mean is far from that of digits, for zeros."""

    def __init__(self, *, alike: bool = False) -> None:
        super().__init__()
        self.calls, self.alike = 0, alike

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        label = NET(x).argmax(1)
        noise = x.flatten(1).mean(1) > 0.42
        label = label.where(~noise | (self.calls % 2 == 1) | self.alike, (label + 1) % 10)
        return 2.0 * nn.functional.one_hot(label, 10)


def test_networks_that_take_turns_are_found_and_come_out_as_they_were() -> None:
    model = TakesTurns()
    assert torch.equal(model(X), model(X)), "on clean images the two agree"
    assert remembers(model, X, KEYS) is None
    found = counts_calls(model, X, KEYS)
    assert found is not None
    assert found.kind == "memory"
    assert found.evidence == {"images of noise": 1.0}
    assert model.calls == 2


def test_a_count_of_calls_that_changes_no_answer_is_no_finding() -> None:
    assert counts_calls(TakesTurns(alike=True), X, KEYS) is None
    assert counts_calls(NET, X, KEYS) is None


def test_a_model_that_takes_turns_is_judged_as_it_was_loaded() -> None:
    target = prepare_target(TakesTurns().eval(), load("digits", n=16))
    assert [one.where for one in target.setup_findings if one.kind == "memory"] == [
        "the model's answer depends on the number of earlier calls"
    ]
    noise = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target.model(noise), target.model(noise))


def test_a_model_that_forgets_answers_as_it_was_loaded_whatever_was_asked() -> None:
    model = Caches(0.32).eval()
    model(X[:4])
    twin = forgetting(model)
    for shift in (0.1, -0.1):
        twin((X + shift).clamp(0, 1))
    other = (X[4:] + 0.2).clamp(0, 1)
    assert torch.allclose(twin(other), NET(other), atol=1e-5)
    assert torch.allclose(twin((X[:4] + 0.1).clamp(0, 1)), NET(X[:4]), atol=1e-5)  # what it had seen by then
    assert len(model.memory) == 4
    copied = forgetting(twin)
    copied(other)
    assert torch.allclose(twin(other), NET(other), atol=1e-5)


def test_a_model_that_has_changed_since_it_was_loaded() -> None:
    model = Counts().eval()
    loaded = State(model)
    model.calls = 200
    found = aged(model, loaded, X, KEYS)
    assert found is not None
    assert found.kind == "memory"
    assert found.evidence == {"images": 1.0}
    assert model.calls == 0


def clocked(answer: Callable[[Tensor], Tensor]) -> nn.Module:
    class Clocked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return answer(x)

    return Clocked().eval()


def waits(x: Tensor) -> Tensor:
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    answer: Tensor = NET(x)
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: NET(x) * (1 if int(time.time()) % 2 else -1),
        lambda x: NET(x + 0.5 * (datetime.datetime.now().hour % 2)),
        lambda x: NET(x).roll(int(time.perf_counter_ns() // 10**9) % 10, 1),
        lambda x: NET(x).roll(time.localtime().tm_yday % 10, 1),
    ],
)
def test_answers_that_depend_on_the_time_are_found(answer: Callable[[Tensor], Tensor]) -> None:
    (found,) = by_the_clock(clocked(answer), X, KEYS)
    assert found.kind == "clock"
    assert "the time" in found.where


def test_a_clock_that_is_read_for_nothing_is_no_finding_and_all_clocks_are_put_back() -> None:
    before = [{**vars(time)}, {**vars(datetime)}]
    assert list(by_the_clock(clocked(waits), X, KEYS)) == []
    assert before == [{**vars(time)}, {**vars(datetime)}]


def test_names_that_were_imported_from_time_are_replaced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "now_by_another_name", time.time)
    with at(1000.0):
        assert 1000 < globals()["now_by_another_name"]() < 1001
    assert globals()["now_by_another_name"] is time.time


def test_answers_that_depend_on_similar_images_in_the_batch() -> None:
    """Each image for itself, all copies of one, and any order: only images that are almost the same tell."""

    def crowd(x: Tensor) -> Tensor:
        far = torch.cdist(x.flatten(1), x.flatten(1), p=torch.inf)
        like = ((far > 0) & (far < 0.02)).any(1)
        return torch.where(like[:, None], NET(x.mean(0, keepdim=True)), NET(x))

    (found,) = lint(clocked(crowd), X, Y, KEYS)
    assert found.kind == "batch"
    assert found.where == "the output for an image depends on similar images in the batch"


def test_weights_without_numbers_are_left_as_they_are() -> None:
    """The skeleton of an ensemble by ``torch.func.vmap`` is on the device "meta"."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, device="meta"))
    State(model).restore()
    assert model[1].weight.is_meta
