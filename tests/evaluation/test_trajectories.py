"""What a job keeps of the way of an attack, on models whose margins are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import mifgsm, pgd
from unmask.attacks.black_box.transfer import Transfer
from unmask.cases import AttackSpec, ImageProbe
from unmask.data import load
from unmask.evaluation.execute import RECORDED, execute_job
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target
from unmask.evaluation.pictures.trajectories import REFUSED
from unmask.kinds import Role
from unmask.losses import margin
from unmask.randomness import normal
from unmask.records import Job, ThreatSpec
from unmask.threats import Linf
from unmask.types import Output

DATA = load("digits", n=40)
X, Y = DATA.batch()


class Scaled(nn.Module):
    """Distance to the mean image of each class, times ``scale``, with noise; images brighter than ``limit`` refused."""

    def __init__(self, scale: float = 1.0, noise: float = 0.0, limit: float | None = None) -> None:
        super().__init__()
        x, y = load("digits", "train").batch()
        mean = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
        self.dim = nn.Upsample(scale_factor=1)
        self.read = nn.Linear(64, 10).requires_grad_(False)
        self.read.weight.copy_(2 * mean)
        self.read.bias.copy_(-(mean**2).sum(1))
        self.scale, self.noise, self.limit = scale, noise, limit
        self.eval()

    def forward(self, x: Tensor) -> Output:
        z = self.scale * self.read(self.dim(x).flatten(1))
        z = z + self.noise * normal(z.shape, like=z)
        return Output(z, None if self.limit is None else x.flatten(1).sum(1) - self.limit)


def job(attack: str = "one", role: str = "adaptive", eps: float = 0.1, **fields: Any) -> Job:
    return replace(Job("scaled", "digits", attack, ThreatSpec("linf", eps), 0, 0, 40, Role(role)), **fields)


def way(target: Target, asked: Job | None = None, batch: int = 128) -> dict[str, Tensor]:
    tensors = execute_job(asked or job(), target, DATA, ExecutionConfig(batch)).tensors
    return {name.removeprefix("way_"): t for name, t in tensors.items() if name.startswith("way_")}


def target(model: nn.Module, attacker: AttackSpec | None = None, **fields: Any) -> Target:
    attacker = attacker or AttackSpec("", lambda _: mifgsm(8), low_precision=False)
    return Target(model, {"one": attacker}, **fields)


def test_frames_go_from_the_image_to_what_the_attack_handed_in() -> None:
    model = Scaled()
    outcome = execute_job(job(), target(model), DATA)
    told, x_adv = way(target(model)), outcome.tensors["x_adv"]
    right = (model(X).logits.argmax(1) == Y).nonzero().squeeze(1)[:RECORDED]
    assert told["index"].unique().tolist() == right.tolist()
    for index in right.tolist():
        mine = told["index"] == index
        images, steps = told["image"][mine].float(), told["step"][mine]
        assert steps.tolist() == sorted(steps.tolist())
        assert steps[0] == 0
        assert torch.equal(images[0], X[index])
        torch.testing.assert_close(images[-1], x_adv[index], atol=1e-3, rtol=0)
        answers = model(images)
        torch.testing.assert_close(told["true"][mine], margin(answers, Y[index].expand(len(images))), atol=0.05, rtol=0)
        assert told["predicted"][mine][-1] == outcome.record.examples[index].predicted


def test_margins_of_view_and_model_are_told_apart() -> None:
    """The view answers with three times the logits."""
    view = AttackSpec("", lambda _: mifgsm(8), view=lambda model: Scaled(3.0), low_precision=False)
    told = way(target(Scaled(), view))
    torch.testing.assert_close(told["view"], 3 * told["true"])
    source = AttackSpec("", lambda _: Transfer(Scaled(-1.0), pgd(4)), low_precision=False)
    told = way(target(Scaled(), source))
    assert not torch.equal(told["view"], told["true"])


def test_a_refused_image_has_no_class() -> None:
    limit = float(X.flatten(1).sum(1).median())
    told = way(target(Scaled(limit=limit)))
    refused = told["image"].float().flatten(1).sum(1) > limit
    assert 0 < int(refused.sum()) < len(refused)
    assert ((told["predicted"] == REFUSED) == refused).all()


def test_what_the_classifier_sees_is_that_of_the_answer() -> None:
    model = Scaled()
    model.dim.register_forward_hook(lambda module, given, made: made / 2)
    told = way(target(model, image_probe=ImageProbe("dim")))
    assert torch.equal(told["seen"], told["image"] / 2)
    hooks = len(model.dim._forward_hooks)
    way(target(model, image_probe=ImageProbe("dim")))
    assert len(model.dim._forward_hooks) == hooks


def test_all_frames_of_an_example_meet_one_draw() -> None:
    """An attack that cannot move: each frame is the image itself, under noise."""
    told = way(target(Scaled(noise=1.0), draws=4), job(eps=0.0))
    drawn = {int(i): told["true"][told["index"] == i].unique() for i in told["index"].unique()}
    assert all(len(values) == 1 for values in drawn.values())
    assert len({float(values) for values in drawn.values()}) == RECORDED


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_batch_size_is_nothing_to_it(noise: float) -> None:
    """Batches of five hold fewer right examples than are followed."""
    mistaken = target(Scaled(noise=noise), draws=1 + 3 * (noise > 0))
    whole = execute_job(job(eps=0.15), mistaken, DATA)
    parts = execute_job(job(eps=0.15), mistaken, DATA, ExecutionConfig(2))
    assert whole.tensors.keys() == parts.tensors.keys() >= {"way_image"}
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, parts.tensors[name]), name
    assert replace(whole.record, seconds=0) == replace(parts.record, seconds=0)


def test_only_the_first_job_of_a_plain_or_an_adaptive_attack_is_followed() -> None:
    model = target(Scaled())
    assert way(model, job(role="plain"))
    for other in (job(role="eps"), job(role="control"), job(role="clean"), job(start=20)):
        assert way(model, other) == {}


def test_passes_that_are_only_looked_at_are_not_counted() -> None:
    model = Scaled()
    record = execute_job(job(), target(model), DATA).record
    found = run_attack(mifgsm(8), model, X, Y, Linf(0.1))
    assert (record.forwards, record.backwards) == (found.passes.forwards, found.passes.backwards)
