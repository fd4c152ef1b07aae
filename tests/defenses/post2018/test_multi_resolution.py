from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.defenses.post2018.networks.multi_resolution import CrossMax, MultiResolution, ResolutionStack
from unmask.gradients.bpda import bypass
from unmask.randomness import make_keys, use_keys

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_of_members_that_agree_in_class_that_class_wins_by_any_rank() -> None:
    """Each member's largest logit is moved to 0, then each class's: the class all prefer has only zeros."""
    logits = torch.tensor([[[1.0, 5.0, 0.0], [2.0, 2.5, -9.0], [0.0, 90.0, 1.0]]])
    for rank in (1, 2, 3):
        assert CrossMax(rank)(logits)[0, 1] == 0
    assert CrossMax(3)(logits)[0].tolist() == pytest.approx([-89.5, 0.0, -84.0])


def test_one_member_alone_cannot_make_its_class_win() -> None:
    """Two members of three say class 0 by 1; the third says class 1 by 1000, and has no more weight for that."""
    logits = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1000.0, 0.0]]])
    assert logits.mean(1).argmax() == 1
    assert CrossMax(2)(logits)[0].tolist() == [0.0, -1.0, 0.0]


def test_it_is_shifted_by_nothing_that_shifts_a_member() -> None:
    logits = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    shift = torch.randn(5, 4, 1, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(CrossMax()(logits + shift), CrossMax()(logits), atol=1e-5)


def test_at_its_own_resolution_without_noise_a_grey_image_is_only_shifted_and_stretched() -> None:
    grey = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2)).expand(6, 3, 8, 8) * 0.2 + 0.4
    with use_keys(make_keys(0, range(6), "test")):
        copies = ResolutionStack((8,), jitter=3, noise=0)(grey)
    assert torch.allclose(copies[:, :1], copies[:, 1:2], atol=1e-6)
    for image, copy in zip(grey[:, 0], copies[:, 0], strict=True):
        matches = [
            torch.corrcoef(torch.stack((image.roll((down, right), (0, 1)).flatten(), copy.flatten())))[0, 1]
            for down in range(-3, 4)
            for right in range(-3, 4)
        ]
        assert max(matches) > 0.9999
        assert copy.mean().item() == pytest.approx(image.mean().item(), abs=1e-4)
        assert 0.69 < copy.std() / image.std() < 1.51


def test_noise_is_added_at_both_resolutions_and_copies_stay_in_the_range_of_images() -> None:
    with use_keys(make_keys(0, range(64), "test")):
        copies = ResolutionStack((8,), noise=0.2)(torch.zeros(64, 3, 8, 8))
    assert copies.mean().item() == pytest.approx(0.2, abs=0.01)  # 0.1 each
    with use_keys(make_keys(0, range(4), "test")):
        assert ResolutionStack((8, 2))(X).clamp(0, 1).shape == (4, 6, 8, 8)


def test_draws_do_not_depend_on_the_batch() -> None:
    stack = ResolutionStack((8, 4))
    with use_keys(make_keys(0, range(4), "test")):
        together = stack(X)
    with use_keys(make_keys(0, [3], "test")):
        alone = stack(X[3:])
    assert torch.allclose(together[3:], alone, atol=1e-6)


def model(rank: int = 2) -> MultiResolution:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 2, 3, 4), nn.Flatten(), nn.Linear(8, 5))
    return MultiResolution(ResolutionStack((8, 4)), net, ("0", "1"), (8, 8), classes=5, rank=rank).eval()


def test_members_are_the_heads_and_the_network_itself() -> None:
    ensemble = model()
    with use_keys(make_keys(0, range(4), "test")):
        logits = ensemble.logits(X)
    with use_keys(make_keys(0, range(4), "test")):
        seen = ensemble.stack(X)
    hidden = ensemble.get_submodule("classifier.1")(ensemble.get_submodule("classifier.0")(seen))
    assert logits.shape == (4, 3, 5)
    assert torch.allclose(logits[:, 2], ensemble.classifier(seen), atol=1e-6)
    assert torch.allclose(logits[:, 0], ensemble.heads[0](hidden), atol=1e-6)
    assert torch.allclose(ensemble.vote(logits), CrossMax(2)(logits))


def test_heads_do_not_train_the_network_but_pass_gradients_to_the_image() -> None:
    ensemble = model()
    for training, reached in ((True, False), (False, True)):
        ensemble.train(training).zero_grad()
        ensemble.logits(X)[:, 0].square().sum().backward()
        gradient = ensemble.get_submodule("classifier.0").get_parameter("weight").grad
        assert bool(gradient is not None and gradient.any()) == reached


def test_the_mean_of_the_logits_takes_the_place_of_the_vote() -> None:
    ensemble = model()
    with use_keys(make_keys(0, range(4), "test")):
        mean = bypass("vote", lambda logits: logits.mean(1))(ensemble)(X)
    with use_keys(make_keys(0, range(4), "test")):
        assert torch.allclose(mean, ensemble.logits(X).mean(1))


def test_a_rank_beyond_the_members_is_refused() -> None:
    with pytest.raises(ValueError, match="no 4-th largest of 3 members"):
        model(rank=4)
