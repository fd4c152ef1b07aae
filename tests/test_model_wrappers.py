from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.models.model_wrappers import BATCH_MULTIPLE, Passes, batch_invariant, bfloat16, fold_batchnorm, frozen_copy
from unmask.nets import conv_net, strided_net
from unmask.randomness import make_keys, uniform, use_keys
from unmask.types import Output

X = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[conv_net, strided_net])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = request.param(1, 8, (8, 16), 32)
    return net.eval()


def test_logits_do_not_depend_on_the_batch(model: nn.Module) -> None:
    call = batch_invariant(model)
    with torch.no_grad():
        whole = call(X).logits
        assert torch.allclose(whole, model(X), atol=1e-6)
        for size in range(1, 65):
            assert torch.equal(call(X[:size]).logits, whole[:size]), size
            assert torch.equal(call(X[-size:]).logits, whole[-size:]), size


def test_gradients_do_not_depend_on_the_batch(model: nn.Module) -> None:
    def slope(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(batch_invariant(model)(x).logits[:, 0].sum(), x)
        return gradient

    whole = slope(X)
    assert whole.abs().max() > 0
    for size in (1, 3, 11, 40):  # the padding repeats an example, but must not repeat its gradient
        assert torch.allclose(slope(X[:size]), whole[:size], atol=1e-7)


def test_rejections_are_cut_with_the_logits() -> None:
    answer = batch_invariant(lambda x: Output(x.flatten(1), x.flatten(1).sum(1)))(X[:5])
    assert answer.reject is not None
    assert torch.equal(answer.logits, X[:5].flatten(1))
    assert torch.equal(answer.reject, X[:5].flatten(1).sum(1))


def test_the_model_sees_full_granules() -> None:
    seen: list[int] = []

    def victim(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.flatten(1)

    for size in (1, BATCH_MULTIPLE, BATCH_MULTIPLE + 1):
        batch_invariant(victim)(X[:size])
    assert seen == [BATCH_MULTIPLE, BATCH_MULTIPLE, 2 * BATCH_MULTIPLE]


def test_passes_are_those_asked_for() -> None:
    passes = Passes()
    call = batch_invariant(lambda x: x.flatten(1).square(), passes=passes)
    x = X[:5].clone().requires_grad_(True)
    logits = call(x).logits
    assert passes == Passes(5, 0)
    logits[:, 0].sum().backward(retain_graph=True)
    assert passes == Passes(5, 5)
    logits[:, 1].sum().backward()
    assert passes == Passes(5, 10)
    call(X[:12])
    with torch.no_grad():
        call(x)
    assert passes == Passes(22, 10)


@pytest.mark.parametrize("foreign", [False, True])
def test_each_row_draws_for_itself(foreign: bool) -> None:
    def noisy(x: Tensor) -> Tensor:
        noise = torch.rand_like(x) if foreign else uniform(x.shape, x)
        return (x + noise).flatten(1)

    def answer(rows: Tensor) -> Tensor:
        with use_keys(make_keys(0, rows, "test")):
            call = batch_invariant(noisy, uses_torch_random=foreign)
            return torch.stack([call(X[rows]).logits, call(X[rows]).logits], 1)

    whole = answer(torch.arange(64))
    assert not torch.equal(whole[:, 0], whole[:, 1])
    assert torch.equal(answer(torch.arange(10, 23)), whole[10:23])
    assert torch.equal(answer(torch.tensor([63])), whole[63:])


def test_lean_is_a_frozen_copy(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = frozen_copy(model)
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.allclose(twin(X), model(X), atol=1e-6)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bfloat16_rounds_and_returns_float32(model: nn.Module) -> None:
    exact, rounded = model(X), bfloat16(lambda x: Output(model(x), model(x)[:, 0]))(X)
    assert isinstance(rounded, Output)
    assert rounded.reject is not None
    assert rounded.logits.dtype == rounded.reject.dtype == torch.float32
    assert torch.equal(rounded.logits, rounded.logits.bfloat16().float())
    assert 0 < (rounded.logits - exact).abs().max() < 0.02
    assert torch.equal(rounded.reject, rounded.logits[:, 0])


def _normalised() -> tuple[nn.Sequential, nn.Conv2d]:
    convolution, norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    head = nn.Sequential(convolution, norm, nn.ReLU())
    return nn.Sequential(head, nn.Flatten(), nn.Linear(144, 3)).eval(), convolution


def _norms(net: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


def test_a_folded_net_is_the_same_function() -> None:
    torch.manual_seed(0)
    net, _ = _normalised()
    twin = fold_batchnorm(net)
    assert _norms(twin) == 0
    assert _norms(net) == 1
    assert torch.allclose(twin(X), net(X), atol=1e-6)
    assert not any(module.training for module in twin.modules())


def test_batch_norm_that_is_not_a_fixed_affine_map_of_a_convolution_stays() -> None:
    training, hooked, weighted = _normalised(), _normalised(), _normalised()
    training[0].train()
    hooked[1].register_forward_hook(lambda layer, inputs, output: output.relu())
    nn.utils.parametrizations.weight_norm(weighted[1])
    for net, _ in (training, hooked, weighted):
        assert _norms(fold_batchnorm(net)) == 1


class Keeps(nn.Module):
    """Reads its features where a hook of its own, a closure, has put them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net(1, 8, (8, 16), 32)
        self.seen: dict[str, Tensor] = {}
        self.net[0].register_forward_hook(lambda part, given, made: self.seen.update(made=made))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + self.seen["made"].flatten(1).mean(1, keepdim=True)


def test_hooks_of_a_copy_serve_the_copy() -> None:
    model = Keeps().eval()
    model(X[:3])  # keeps features with their graph
    twin = frozen_copy(model)
    assert torch.allclose(twin(X[:5]), model(X[:5]), atol=1e-6)
    assert len(twin.seen["made"]) == 5  # type: ignore[index]
    assert len(model.seen["made"]) == 5


def test_a_forward_put_in_place_of_another_is_that_of_the_copy() -> None:
    model = conv_net(1, 8, (8, 16), 32).eval()
    own = model.forward
    model.forward = lambda x: own(x.round())  # type: ignore[method-assign]
    twin = frozen_copy(model)
    calls: list[int] = []
    twin[0].register_forward_hook(lambda part, given, made: calls.append(1))  # type: ignore[index]
    assert torch.allclose(twin(X), model(X), atol=1e-6)
    assert calls
