from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases.post2018.test_time.test_time_training import class_and_rotation
from unmask.defenses.post2018.test_time.test_time_training import TestTimeTraining, rotations, with_group_norm
from unmask.models.model_wrappers import frozen_copy

X = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def defended(steps: int = 1, rate: float = 0.5) -> TestTimeTraining:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh())
    return TestTimeTraining(encoder, nn.Linear(6, 3), nn.Linear(6, 4), steps, rate)


def by_hand(image: Tensor, steps: int, rate: float) -> Tensor:
    """The logits of one image, by a copy of the network that has taken steps down its own gradient."""
    model = defended()
    weights = [*model.encoder.parameters()]
    for _ in range(steps):
        loss = F.cross_entropy(model.rotation(model.encoder(rotations(image))), torch.arange(4))
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.sub_(rate * gradient)
    return model.static(image)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_each_image_is_classified_by_weights_that_were_trained_on_it_alone(steps: int) -> None:
    expected = torch.cat([by_hand(image, steps, 0.5) for image in X.split(1)])
    assert torch.allclose(defended(steps)(X), expected, atol=1e-6)
    assert torch.allclose(defended(steps)(X[3:4]), expected[3:4], atol=1e-6)


def test_stored_weights_stay_and_nothing_is_remembered() -> None:
    model = defended()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first = model(X)
    assert torch.equal(model(X), first)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_step_lowers_the_loss_of_the_rotations() -> None:
    model = defended(rate=0.05)
    turns = torch.arange(4)
    for image in X.split(1):
        trained = torch.func.functional_call(model.encoder, model.adapted(image), (rotations(image),))
        losses = [F.cross_entropy(model.rotation(h), turns) for h in (model.encoder(rotations(image)), trained)]
        assert losses[1] < losses[0]


def test_it_works_without_gradients_of_its_caller_and_on_frozen_copies() -> None:
    model = defended()
    expected = model(X).detach()
    with torch.no_grad():
        assert torch.equal(model(X), expected)
        assert torch.allclose(frozen_copy(model)(X), expected)


def test_the_gradient_is_that_of_the_trained_weights_as_constants() -> None:
    model, x = defended(), X[:1].clone().requires_grad_()
    model(x).logsumexp(1).sum().backward()
    again = X[:1].clone().requires_grad_()
    features = torch.func.functional_call(model.encoder, model.adapted(again), (again,))
    model.head(features).logsumexp(1).sum().backward()
    assert x.grad is not None
    assert again.grad is not None
    assert torch.allclose(x.grad, again.grad)


def test_four_turns_are_a_full_one() -> None:
    turned = rotations(X).view(4, 5, 1, 4, 4)
    assert torch.equal(turned[0], X)
    assert torch.equal(turned[2], X.flip(2, 3))
    assert torch.equal(turned[3].rot90(1, (2, 3)), X)


def test_the_training_loss_has_both_tasks() -> None:
    model = defended()
    x, y = X[:4], torch.tensor([0, 1, 2, 0])
    loss, logits = class_and_rotation(model, x, y, 0.0)
    turned = torch.stack([x[i].rot90(i, (1, 2)) for i in range(4)])
    found = model.rotation(model.encoder(turned))
    assert torch.equal(logits, model.static(x))
    assert torch.allclose(loss, F.cross_entropy(logits, y) + F.cross_entropy(found, torch.arange(4)))


def test_all_batch_norms_become_group_norms() -> None:
    net = with_group_norm(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())), groups=4)
    assert [type(part).__name__ for part in net.modules() if not [*part.children()]] == ["Conv2d", "GroupNorm", "ReLU"]


def test_negative_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="0 steps or more"):
        defended(steps=-1)
