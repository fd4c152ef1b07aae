from __future__ import annotations

import torch
from torch import nn

from unmask.defenses.post2018.test_time.anti_adversary import AntiAdversary, MoreCertain
from unmask.models.model_wrappers import frozen_copy


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def test_of_two_classes_each_step_follows_the_difference_of_their_weights() -> None:
    last = nn.Linear(4, 2)
    net = nn.Sequential(nn.Flatten(), last)
    x = torch.rand(8, 1, 2, 2)
    answer = net(x).argmax(1)
    toward = (last.weight[0] - last.weight[1]).sign() * (1 - 2 * answer)[:, None]
    moved = MoreCertain(net, steps=3, rate=0.1)(x) - x
    assert torch.allclose(moved.flatten(1), 0.3 * toward, atol=1e-6)


def test_the_answer_stays_and_becomes_more_certain() -> None:
    net, x = linear(), torch.rand(32, 1, 2, 2)
    before, after = net(x).softmax(1), AntiAdversary(net)(x).softmax(1)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert (after.amax(1) > before.amax(1)).all()


def test_without_steps_nothing_changes() -> None:
    net, x = linear(), torch.rand(5, 1, 2, 2)
    assert torch.equal(AntiAdversary(net, steps=0)(x), net(x))


def test_the_gradient_is_that_of_the_classifier_at_the_moved_image() -> None:
    net, x = linear(), torch.rand(5, 1, 2, 2)
    model = AntiAdversary(net)
    at = x.clone().requires_grad_()
    model(at).logsumexp(1).sum().backward()
    moved = model.layer(x).detach().requires_grad_()
    net(moved).logsumexp(1).sum().backward()
    assert at.grad is not None
    assert moved.grad is not None
    assert torch.allclose(at.grad, moved.grad)


def test_it_works_without_gradients_of_its_caller_and_on_frozen_copies() -> None:
    model, x = AntiAdversary(linear()), torch.rand(5, 1, 2, 2)
    expected = model(x)
    with torch.no_grad():
        assert torch.equal(model(x), expected)
        assert torch.equal(frozen_copy(model)(x), expected)
