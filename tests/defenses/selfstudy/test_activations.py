from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from unmask.cases.selfstudy.ordinary import growing_jump
from unmask.defenses.selfstudy.activations import HighTemperature, Jump, JumpNet, RandomNeurons, smooth_jump
from unmask.nets import conv_net


def test_the_jump_is_five_above_a_leaky_relu_and_has_its_gradient() -> None:
    h = torch.tensor([-2.0, -1e-6, 1e-6, 3.0], requires_grad=True)
    out = Jump()(h)
    assert torch.allclose(out, torch.tensor([-0.4, 0.0, 5.0, 8.0]), atol=1e-5)
    (slope,) = torch.autograd.grad(out.sum(), h)
    assert torch.allclose(slope, torch.tensor([0.2, 0.2, 1.0, 1.0]))


def test_the_surrogate_is_the_jump_far_from_zero_and_rises_at_it() -> None:
    h = torch.tensor([-4.0, 4.0])
    assert torch.allclose(smooth_jump(0.3)(h), Jump()(h), atol=1e-3)
    at = torch.zeros(1, requires_grad=True)
    smooth_jump(0.5)(at).sum().backward()
    assert at.grad is not None
    assert at.grad.item() > 2.5


def test_one_jump_serves_all_layers_of_copies_too() -> None:
    net = copy.deepcopy(JumpNet(conv_net(1, 8, (4, 4), 8)))
    assert not any(isinstance(module, nn.ReLU) for module in net.modules())
    x = torch.rand(2, 1, 8, 8)
    before = net(x)
    net.jump.size = 0.0
    assert not torch.equal(net(x), before)


def test_the_jump_grows_in_the_first_half_of_the_training() -> None:
    net = JumpNet(conv_net(1, 8, (4, 4), 8))
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    for progress, size in ((0.0, 0.0), (0.25, 2.5), (0.5, 5.0), (0.9, 5.0)):
        growing_jump(net, x, y, progress)
        assert net.jump.size == size


def test_a_neuron_is_kept_by_its_share_and_scaled_so_that_the_mean_stays() -> None:
    torch.manual_seed(0)
    h = torch.tensor([[3.0, 1.0]]).expand(40000, 2)
    kept = RandomNeurons(nn.Identity(), 1).prune(h)
    share = torch.tensor([0.75, 0.25])
    keep = 1 - torch.exp(-2 * share / 3)
    assert torch.allclose((kept > 0).float().mean(0), keep, atol=0.01)
    assert torch.allclose(kept.mean(0), h[0], atol=0.06)


def test_the_answer_is_the_mean_probability_of_the_passes() -> None:
    net = nn.Sequential(nn.Flatten(), nn.ReLU())
    x = torch.tensor([[[[2.0, 1.0]]]])
    torch.manual_seed(0)
    answer = RandomNeurons(net, passes=3)(x).exp()
    torch.manual_seed(0)
    one = RandomNeurons(copy.deepcopy(nn.Sequential(nn.Flatten(), nn.ReLU())), passes=1)
    assert torch.allclose(answer, torch.stack([one(x).exp() for _ in range(3)]).mean(0), atol=1e-6)


def test_at_a_high_temperature_the_loss_is_flat_and_the_class_stays() -> None:
    x = torch.tensor([[[[0.2, 0.4]]]], requires_grad=True)
    model = HighTemperature(nn.Flatten())
    assert model(x).argmax(1).item() == 1
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), torch.tensor([1])), x)
    assert gradient.abs().max() == 0
