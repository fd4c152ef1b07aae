"""One job against what is known of a linear model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.cases import AttackSpec, ImageProbe, StrengthSweep
from unmask.data import load
from unmask.evaluation.execute import execute_job, rejudge
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target
from unmask.kinds import Role
from unmask.randomness import uniform
from unmask.records import Job, ThreatSpec
from unmask.types import InvalidModelOutput, Output

DATA = load("digits", n=40)


class Halves(nn.Module):
    """Two classes: whether the lower half of the image is brighter; the label is what the parity makes it."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Output | Tensor] = lambda x, logits: logits) -> None:
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, x: Tensor) -> Output | Tensor:
        half = (x[:, :, 4:] - x[:, :, :4]).flatten(1).sum(1)
        return self.answer(x, torch.stack([-half, half, *[half * 0 - 1e3] * 8], 1))


def job(attack: str = "pgd", role: str = "plain", eps: float = 0.05, **options: Any) -> Job:
    named = {"attack": attack, "steps": 3, "restarts": 1, **options} if role != "clean" else {}
    return Job("halves", "digits", attack, ThreatSpec("linf", eps), 0, 0, 40, Role(role), named)


def test_verdicts_are_those_of_the_closed_form() -> None:
    """Bounded by eps in each of 64 pixels, the difference of the halves falls by 64 eps, but for the box."""
    x, y = DATA.batch()
    half = (x[:, :, 4:] - x[:, :, :4]).flatten(1).sum(1)
    right = (half > 0).long() == y
    toward = torch.where((y == 1)[:, None, None, None], 1.0, -1.0)
    sign = torch.cat([torch.full((4, 8), 1.0), torch.full((4, 8), -1.0)]) * toward
    worst = (x + 0.05 * sign).clamp(0, 1)
    fallen = ((worst[:, :, 4:] - worst[:, :, :4]).flatten(1).sum(1) > 0).long() != y
    outcome = execute_job(job(), Target(Halves()), DATA)
    assert [e.robust == 1 for e in outcome.record.examples] == (right & ~fallen).tolist()
    assert 0 < int((right & fallen).sum()) < int(right.sum())
    assert [e.label for e in outcome.record.examples] == y.tolist()


def test_examples_that_are_wrong_are_left_as_they_are() -> None:
    clean = execute_job(job("clean", "clean"), Target(Halves()), DATA)
    assert torch.equal(clean.tensors["x_adv"], DATA.batch()[0])
    assert (clean.record.forwards, clean.record.backwards, clean.record.judge_passes) == (0, 0, 40)
    attacked = execute_job(job(eps=1.0), Target(Halves()), DATA)
    wrong = [e.index for e in clean.record.examples if e.robust == 0]
    assert wrong
    assert torch.equal(attacked.tensors["x_adv"][wrong], DATA.batch()[0][wrong])
    assert {e.distance for e in attacked.record.examples if e.index in wrong} == {0.0}
    assert not any(e.robust for e in attacked.record.examples)


class Dim(nn.Module):
    """Halves of images at half their brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = nn.Upsample(scale_factor=1)
        self.dim.register_forward_hook(lambda _, args, output: output / 2)
        self.halves = Halves()
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.halves(self.dim(x))


def test_what_the_lens_shows_of_the_first_examples() -> None:
    target = Target(Dim(), image_probe=ImageProbe("dim", "mean", lambda model, x: x.flatten(1).mean(1)))
    for asked in (job("clean", "clean"), job()):
        tensors = execute_job(asked, target, DATA).tensors
        assert torch.equal(tensors["seen"], tensors["x_adv"][:8] / 2)
        assert torch.equal(tensors["measured"], tensors["x_adv"][:32].flatten(1).mean(1))
    assert "seen" not in execute_job(job(role="eps"), target, DATA).tensors


def test_the_strength_that_a_job_asks_for_is_attacked_and_judged() -> None:
    """At a strength of 0 the model says 0 to everything; the target itself stays as it is."""

    def turn(model: nn.Module, value: float) -> nn.Module:
        return Halves(lambda x, logits: value * logits + (1 - value) * (torch.arange(10) == 0))

    target = Target(
        Halves(),
        {"pgd": AttackSpec("", lambda _: pgd(3))},
        strength_sweep=StrengthSweep("share", 1.0, (0.0, 1.0), turn, "pgd"),
    )
    plain = Job("halves", "digits", "pgd", ThreatSpec("linf", 0.05), 0, 0, 40)
    for attack, base, like in (("clean", "clean", job("clean", "clean")), ("pgd", "adaptive", plain)):
        whole, none = (
            execute_job(
                replace(like, attack=attack, role=Role.STRENGTH, options={"base": base, "strength": value}),
                target,
                DATA,
            )
            for value in (1.0, 0.0)
        )
        assert [e.robust for e in none.record.examples] == (DATA.labels[:40] == 0).double().tolist()
        assert whole.record.examples == execute_job(like, target, DATA).record.examples
        assert (
            rejudge(none.record.job, target, DATA, none.tensors["x_adv"], ExecutionConfig(40)) == none.record.examples
        )


def test_a_strength_is_asked_only_of_what_has_one() -> None:
    with pytest.raises(ValueError, match="no strength of halves is varied"):
        execute_job(job(strength=1.0), Target(Halves()), DATA)


def test_what_is_stored() -> None:
    some = replace(job(), start=10, stop=30)
    tensors = execute_job(some, Target(Halves()), DATA, ExecutionConfig(7)).tensors
    assert tensors["index"].tolist() == list(range(10, 30))
    assert torch.equal(tensors["label"], DATA.labels[10:30])
    assert torch.equal(tensors["clean"], DATA.batch(10, 18)[0])
    whole = execute_job(job(), Target(Halves()), DATA)
    assert torch.equal(tensors["x_adv"], whole.tensors["x_adv"][10:30])
    again = rejudge(some, Target(Halves()), DATA, tensors["x_adv"], ExecutionConfig(9))
    assert again == whole.record.examples[10:30]


def test_passes_are_counted() -> None:
    """Early stopping off the table: nothing falls at eps = 0, so each step of each right example is one pass."""
    record = execute_job(job(eps=0.0), Target(Halves()), DATA, ExecutionConfig(16)).record
    right = sum(e.robust == 1 for e in record.examples)
    assert record.backwards == 3 * right
    assert record.forwards >= record.backwards


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("attack", ["pgd", "apgd", "square", "random"])
def test_bad_logits_under_attack_are_no_robustness(attack: str, bad: float) -> None:
    """Fine on clean images, which are multiples of 1/16; a search would pass over what is not."""
    hidden = Halves(lambda x, z: torch.where((x * 16 == (x * 16).round()).flatten(1).all(1)[:, None], z, bad))
    assert execute_job(job("clean", "clean"), Target(hidden), DATA).record.examples
    with pytest.raises(InvalidModelOutput, match="finite logits"):
        execute_job(job(attack), Target(hidden), DATA)


def test_probes_outside_the_box_need_no_answer() -> None:
    """SPSA takes differences over the edge of the box, where a model may have none."""
    inside = Halves(lambda x, z: torch.where((x < 0).flatten(1).any(1)[:, None], torch.nan, z))
    assert execute_job(job(spsa=4), Target(inside), DATA).record.examples


def test_an_attack_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no attack 'nope' on it; attacks: noise"):
        execute_job(Job("halves", "digits", "nope", ThreatSpec("linf", 0.1), 0, 0, 4), Target(Halves()), DATA)


def test_a_refusal_fails_a_clean_image_and_defeats_an_attack() -> None:
    """A ball without extent: the images, the classes and the refusals are the same in both roles."""
    x, y = DATA.batch()
    refused = x.flatten(1).sum(1) > x.flatten(1).sum(1).median()
    right = Halves()(x).argmax(1) == y
    assert {*zip(refused.tolist(), right.tolist(), strict=True)} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    limit = x.flatten(1).sum(1).median()
    target = Target(Halves(lambda x, z: Output(z, x.flatten(1).sum(1) - limit)))
    for asked, expected in ((job("clean", "clean"), right & ~refused), (job(eps=0.0), right | refused)):
        outcome = execute_job(asked, target, DATA, ExecutionConfig(16))
        examples = outcome.record.examples
        assert [e.robust for e in examples] == expected.double().tolist()
        assert [e.selection_robust for e in examples] == expected.double().tolist()
        assert [e.robust_one_draw for e in examples] == [e.robust_all_draws for e in examples] == expected.tolist()
        assert [e.refused for e in examples] == refused.tolist()
        assert rejudge(asked, target, DATA, outcome.tensors["x_adv"], ExecutionConfig(9)) == examples


def test_a_refusal_now_and_then_counts_by_its_share() -> None:
    """Each draw refuses a share of the images, so that they are worth what is left of it, or all."""
    rejecting = Target(Halves(lambda x, z: Output(z, uniform((len(x),), x) - 0.75)), draws=64)
    right = Halves()(DATA.batch()[0]).argmax(1) == DATA.labels
    clean = execute_job(job("clean", "clean"), rejecting, DATA).record.examples
    attacked = execute_job(job(eps=0.0), rejecting, DATA).record.examples
    for example, sure, other in zip(clean, right.tolist(), attacked, strict=True):
        assert example.robust == pytest.approx(0.75 if sure else 0, abs=0.2)
        assert other.robust == pytest.approx(1 if sure else 0.25, abs=0.2)
        assert not example.robust_all_draws
        assert other.robust_all_draws == sure
