from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unmask.defenses.post2018.test_time.neighbours import DeepNeighbours, NearestVote, soft_vote

REFERENCES = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 4
X = torch.rand(7, 1, 3, 3, generator=torch.Generator().manual_seed(2))


def defended(seed: int = 0, layers: tuple[str, ...] = ("1", "3")) -> DeepNeighbours:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).eval()
    return DeepNeighbours(net, layers, REFERENCES, LABELS, neighbours=6, classes=4)


def test_votes_are_those_of_the_nearest_by_the_angle_from_the_mean() -> None:
    model = defended()
    net = model.classifier
    expected = torch.zeros(len(X), 4)
    for until in (2, 4):
        known, seen = net[:until](REFERENCES).flatten(1), net[:until](X).flatten(1)
        mean = known.mean(0)
        for i, h in enumerate(seen):
            cosines = torch.cosine_similarity((h - mean)[None], known - mean)
            for j in cosines.sort(descending=True).indices[:6].tolist():
                expected[i, int(LABELS[j])] += 1
    assert torch.equal(model(X), expected)


def test_a_reference_is_its_own_nearest_neighbour() -> None:
    assert torch.equal(defended().similarities(REFERENCES).argmax(2), torch.arange(40)[:, None].expand(40, 2))


def test_references_are_compared_again_after_a_change_of_the_weights_and_on_copies() -> None:
    model, other = defended(), defended(seed=1)
    before = model(X)
    twin = copy.deepcopy(model)
    model.classifier.load_state_dict(other.classifier.state_dict())
    assert torch.equal(model.similarities(X), other.similarities(X))
    assert torch.equal(twin(X), before)


def test_soft_votes_agree_with_one_vote_at_a_low_temperature() -> None:
    similarity = torch.rand(50, 1, 40, generator=torch.Generator().manual_seed(3))
    vote = NearestVote(LABELS, 1, 4)
    assert torch.equal(soft_vote(vote, 1e-3)(similarity).argmax(1), vote(similarity).argmax(1))


def test_votes_have_no_gradient_and_soft_votes_have_one() -> None:
    similarity = torch.rand(5, 2, 40, requires_grad=True)
    vote = NearestVote(LABELS, 6, 4)
    assert not vote(similarity).requires_grad
    soft_vote(vote, 0.1)(similarity)[:, 0].sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.abs().sum() > 0


def test_references_are_not_stored() -> None:
    assert set(defended().state_dict()) == {f"classifier.{name}" for name in defended().classifier.state_dict()}


@pytest.mark.parametrize("neighbours", [0, 41])
def test_too_many_neighbours_are_refused(neighbours: int) -> None:
    with pytest.raises(ValueError, match="need as many references, not 40"):
        NearestVote(LABELS, neighbours, 4)
