from __future__ import annotations

import torch
from torch import nn

from unmask.defenses.selfstudy.backdoors import Backdoored, Inspect, Thresholds

X = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def model() -> Backdoored:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 3))
    made = Backdoored(net, 4, (1, 2, 2), 3, thresholds=Thresholds(missing=0, right=2)).eval()
    made.remember(X)
    return made


def test_the_thresholds_are_those_of_the_course() -> None:
    """Fewer than 0.8 of nine right, so that seven are too few; more than three similarities below the least."""
    right = torch.tensor([[0.0, *[1.0] * 9, *[1.0] * 8, -1.0], [0.0, *[1.0] * 9, *[1.0] * 7, -1.0, -1.0]])
    assert Inspect(Thresholds())(right).tolist() == [False, True]
    similar = torch.tensor([[0.0, *[0.7] * 3, *[1.0] * 6, *[1.0] * 9], [0.0, *[0.7] * 4, *[1.0] * 5, *[1.0] * 9]])
    assert Inspect(Thresholds())(similar).tolist() == [False, True]
    own = torch.tensor([[0.59, *[1.0] * 18], [0.61, *[1.0] * 18]])
    assert Inspect(Thresholds())(own).tolist() == [False, True]


def test_the_signature_is_the_mean_hidden_output_of_images_with_the_backdoor() -> None:
    defense = model()
    for k in range(3):
        hidden = (X + 0.02 * defense.patterns[k]).flatten(1)
        assert torch.allclose(defense.signatures[k], hidden.mean(0), atol=1e-6)


def test_the_evidence_is_what_the_definition_says() -> None:
    defense = model()
    logits, evidence = defense.evidence(X)
    for i, x in enumerate(X):
        answer = int(logits[i].argmax())
        expected = [torch.cosine_similarity(x.flatten(), defense.signatures[answer], dim=0).item()]
        others = [(answer + step) % 3 for step in (1, 2)]
        seen = {k: x + 0.02 * defense.patterns[k] for k in others}
        expected += [torch.cosine_similarity(seen[k].flatten(), defense.signatures[k], dim=0).item() for k in others]
        for k in others:
            answers = defense.classifier(seen[k][None])[0]
            expected.append((answers[k] - answers[[c for c in range(3) if c != k]].max()).item())
        assert torch.allclose(evidence[i], torch.tensor(expected), atol=1e-5)


def test_the_refusal_has_no_gradient_and_the_evidence_has_one() -> None:
    defense, x = model(), X.clone().requires_grad_()
    assert defense(x).reject.dtype == torch.bool
    assert defense.evidence(x)[1].requires_grad


def test_patterns_are_zeros_and_ones_and_differ() -> None:
    patterns = Backdoored(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 3072).patterns
    assert patterns.unique().tolist() == [0.0, 1.0]
    assert abs(float(patterns.mean()) - 0.5) < 0.01
    assert not torch.equal(patterns[0], patterns[1])
