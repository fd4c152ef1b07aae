"""straight_through: the forward pass is the model's to the bit, the gradient has known answers and is useful."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unmask.gradients.bpda import bpda
from unmask.gradients.straight_through import narrow_straight_through, straight_through, unrolled
from unmask.types import as_output

THRESHOLDS = torch.linspace(0.1, 0.9, 9)
TABLE = torch.linspace(0, 1, 256) ** 2


Function = Callable[[Tensor], Tensor]


class Inline(nn.Module):
    """A module whose forward pass is a function, as a stranger would have written it."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def gradient(function: Function | nn.Module, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """d(sum of weighted outputs)/dx through the view."""
    model = function if isinstance(function, nn.Module) else Inline(function)
    x = x.clone().requires_grad_()
    y = straight_through(model)(x)
    return torch.autograd.grad(y if weights is None else y * weights, x, torch.ones_like(y))[0]


def images(seed: int = 0) -> Tensor:
    return torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def no_grad_block(x: Tensor) -> Tensor:
    with torch.no_grad():
        x = x.sigmoid().mul_(255).round_().clamp_(0, 255).div_(255)
        scale = torch.zeros(x.shape[0])
        scale.view(-1).copy_(x.flatten(1).mean(1))
    return x * 2 + scale[:, None, None, None]


def in_place(x: Tensor) -> Tensor:
    x = F.relu(x + 0.2, inplace=True)
    x += 0.1
    x[:, 0].mul_(2)
    x.round_()
    x[x > 1.5] = 0.25
    code = (x * 10).int()
    code >>= 1
    code[:, 1] = 3
    return torch.tanh_(x) + code


def written_doubles(x: Tensor) -> Tensor:
    big = (x * 255).long() * 2**40 + 1
    result = torch.zeros(x.shape, dtype=torch.float64)
    result.copy_(big)
    result[0] = big[0]
    return result + torch.empty_like(result).copy_(x).bernoulli_()


def out_argument(x: Tensor) -> Tensor:
    with torch.no_grad():
        result = torch.empty_like(x)
        torch.round(x * 4, out=result)
    return result


def thermometer_by_buckets(x: Tensor) -> Tensor:
    code = F.one_hot(torch.bucketize(x, THRESHOLDS), 10)
    return code.flip(-1).cumsum(-1).flip(-1).float()


def scattered(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1.0)


def inner_loop(x: Tensor) -> Tensor:
    """Projects onto something smooth, by gradient descent inside the forward pass."""
    target = x.detach().round()
    z = x.detach().requires_grad_(True)
    for _ in range(3):
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(((z.clamp(0.2, 0.8) - target) ** 2 + z.round()).sum(), z)
        z = (z - 0.1 * slope).detach().requires_grad_(True)
    return z * 3


def inner_backward(x: Tensor) -> Tensor:
    z = x.clone().detach().requires_grad_()
    optimizer = torch.optim.SGD([z], lr=0.1)
    with torch.enable_grad():
        for _ in range(3):
            optimizer.zero_grad()
            ((z - x.data.floor()) ** 2).sum().backward()
            optimizer.step()
    return z.detach() + x.sign()


def random_in_place(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    x = F.dropout(x.detach(), 0.05, training=True, inplace=True)
    return x.add_(torch.rand_like(x)).round_()


def channel_views(x: Tensor) -> Tensor:
    x = copy.deepcopy(x)
    for channel, mean, std in zip(x.unbind(1), (0.1, 0.2), (0.5, 0.6), strict=True):
        channel.sub_(mean).div_(std)
    return x


def assembled_bytes(x: Tensor) -> Tensor:
    byte = (x * 255).byte()
    code = torch.zeros(*x.shape, 8, dtype=torch.uint8)
    for bit in range(8):
        code[..., bit] = (byte >> bit) & 1
    return code.float()


STRANGERS: dict[str, Function] = {
    "quantise to 8 bits": lambda x: (x * 255).round() / 255,
    "drop bits": lambda x: ((x * 255).to(torch.uint8) >> 5 << 5).float() / 255,
    "mask bits": lambda x: ((x * 255).byte() & 0xE0).type("torch.FloatTensor"),
    "pack bits": lambda x: (((x * 15).long() << 4) | (x * 15).long()) / 255.0,
    "integer steps": lambda x: ((x * 255).int() // 32 * 32 % 200).to(x.dtype),
    "remainder": lambda x: x - x % 0.25 + torch.floor_divide(x, 0.3) + torch.div(x, 0.3, rounding_mode="floor"),
    "thermometer": lambda x: (x[..., None] > THRESHOLDS).float(),
    "thermometer by buckets": thermometer_by_buckets,
    "largest channel": lambda x: F.one_hot(x.argmax(1), x.shape[1]).permute(0, 3, 1, 2).float() * x,
    "largest channel, scattered": scattered,
    "binary activations": lambda x: torch.sign(x - 0.5) * (x - 0.1).sign_(),
    "data": lambda x: x.data * 2,
    "no_grad": no_grad_block,
    "table": lambda x: TABLE[(x * 255).long()] + F.embedding((x * 255).long(), TABLE[:, None])[..., 0],
    "gathered": lambda x: (
        TABLE.take((x * 255).long()) + torch.gather(x.flatten(1), 1, (x.flatten(1) * 9).long()).mean()
    ),
    "where": lambda x: torch.where((x > 0.3) & ~(x > 0.6), x, torch.zeros_like(x)) + x.masked_fill(x.lt(0.5), 2.0),
    "in place": in_place,
    "written doubles": lambda x: (torch.manual_seed(5), written_doubles(x))[1],
    "out argument": out_argument,
    "inner loop": inner_loop,
    "inner backward": inner_backward,
    "random in place": random_in_place,
    "heaviside": lambda x: torch.heaviside(x - 0.5, torch.tensor(0.5)) + F.hardtanh(x, 0.2, 0.6) + F.relu6(x),
    "channel views": channel_views,
    "assembled bytes": assembled_bytes,
    "two-way table": lambda x: (torch.arange(80.0).view(8, 10))[(x * 7).long(), (x * 9).long()],
    "logic": lambda x: torch.stack([(x > 0.2).logical_and(x <= 0.7), (x > 0.9) | (x == 0.5)]).any(0).float(),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_forward_is_the_models_to_the_bit_and_gradient_is_useful(name: str) -> None:
    model = Inline(STRANGERS[name])
    x = images().requires_grad_()
    with torch.no_grad():
        expected = model(x.clone())
    for _ in range(2):  # nothing of the first pass stays
        got = straight_through(model)(x)
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
        (slope,) = torch.autograd.grad(got.sum() if name != "largest channel, scattered" else got[:, 0].sum(), x)
        assert slope.isfinite().all()
        assert (slope != 0).float().mean() > 0.9
    assert torch.equal(x, images())  # the caller's input is not written to


SLOPES: dict[str, tuple[Function, float]] = {
    "round": (lambda x: (x * 255).round() / 255, 1.0),
    "round method": (lambda x: (x * 7).round(decimals=1), 7.0),
    "floor": (lambda x: torch.floor(x * 3), 3.0),
    "ceil in place": (lambda x: (x * 3).ceil_(), 3.0),
    "trunc": (lambda x: (x * 3).trunc() ** 1, 3.0),
    "clamp": (lambda x: x.mul(2).clamp(0.9, 0.95), 2.0),
    "clip": (lambda x: torch.clip(x, min=2), 1.0),
    "clamp max": (lambda x: x.clamp_max(0.0), 1.0),
    "clamp in place": (lambda x: (x * 2).clamp_(max=-1), 2.0),
    "hardtanh": (lambda x: F.hardtanh(x * 100 + 2, -1, 1), 100.0),
    "detach": (lambda x: 3 * x.detach(), 3.0),
    "data": (lambda x: 3 * x.data + x, 4.0),
    "straight-through idiom": (lambda x: x + (x.round() - x).detach(), 1.0),
    "uint8": (lambda x: ((x * 255).to(torch.uint8) >> 5 << 5).float() / 255, 1.0),
    "shift in place": (lambda x: (x * 255).to(torch.uint8).bitwise_right_shift_(3) / 2.0, 255 / 16),
    "division": (lambda x: ((x * 255).int() // 16 * 16).float(), 255.0),
    "mask": (lambda x: ((x * 255).long() & 0xF0).double().float(), 255.0),
    "not": (lambda x: (~(x * 255).to(torch.uint8)).float(), -255.0),
    "packed": (lambda x: (((x * 15).int() << 4) | (x * 15).int()).float(), 255.0),
    "promotion": (lambda x: (x * 255).int() * 0.5, 127.5),
    "shapes": (lambda x: torch.cat([(x * 9).long().flip(0).reshape(-1, 2), -(x * 9).long().view(-1, 2)]).mT * 1.0, 0.0),
    "remainder": (lambda x: x - x % 0.25, 0.5),
    "linear table": (lambda x: torch.arange(100.0)[10 + (x * 30).long()], 30.0),
    "linear embedding": (lambda x: F.embedding(10 + (x * 30).long(), torch.arange(100.0)[:, None]), 30.0),
    "two-way table": (lambda x: torch.arange(800.0).view(20, 40)[5 + (x * 5).int(), 5 + (x * 9).int()], 40 * 5 + 9.0),
    "dropped loop": (inner_loop, 3.0),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slope_is_that_of_the_smooth_line(name: str) -> None:
    function, slope = SLOPES[name]
    torch.testing.assert_close(gradient(function, images()), torch.full((3, 2, 6, 6), slope))


def test_no_grad_is_as_if_it_were_not_there() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh())

    def blocked(x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = net(x)
            with torch.no_grad():
                hidden = hidden.exp().mul_(2)
        torch.set_grad_enabled(False)
        hidden = hidden.sigmoid()
        torch.set_grad_enabled(True)
        return torch.square(hidden)

    x = images().requires_grad_()
    (expected,) = torch.autograd.grad((net(x).exp() * 2).sigmoid().square().sum(), x)
    torch.testing.assert_close(gradient(blocked, images()), expected)


def test_rectifiers_and_custom_functions_keep_their_gradient() -> None:
    class Triple(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return 3 * g

    x = torch.tensor([[-1.0, 0.5, 8.0]])
    assert gradient(lambda x: x.clamp(min=0), x).tolist() == [[0.0, 1.0, 1.0]]
    assert gradient(nn.ReLU(inplace=True), x).tolist() == [[0.0, 1.0, 1.0]]
    assert gradient(nn.ReLU6(), x).tolist() == [[0.0, 1.0, 1.0]]
    assert gradient(lambda x: Triple.apply(x.detach()), x).tolist() == [[3.0, 3.0, 3.0]]


def test_composes_with_bpda_in_either_order() -> None:
    model = nn.Sequential(Inline(lambda x: x.round()), Inline(lambda x: (x * 2).floor().detach()))
    x = images()
    for view in (
        straight_through(bpda("0", lambda x: 5 * x)(model)),
        bpda("0", lambda x: 5 * x)(straight_through(model)),
    ):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(view(leaf).sum(), leaf)
        assert torch.equal(slope, torch.full_like(x, 10.0))


def test_one_hot_of_argmax_has_the_gradient_of_softmax() -> None:
    x, weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), torch.arange(5.0)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((leaf.softmax(1) * weights).sum(), leaf)
    for function in (
        lambda x: F.one_hot(x.argmax(1), 5).float(),
        lambda x: torch.eye(5)[x.max(1).indices],
        lambda x: torch.eye(5)[x.argmax(dim=-1)],
        lambda x: torch.zeros(4, 5).scatter_(1, x.argmax(1, keepdim=True), 1.0),
        lambda x: torch.zeros(4, 5).scatter(1, x.topk(1).indices, 1.0),
        lambda x: torch.zeros(4, 5).scatter(1, x.argmax(1).unsqueeze(1), 1.0),
    ):
        torch.testing.assert_close(gradient(function, x, weights), expected)


def test_the_nearest_has_the_gradient_of_a_softmax_of_distances_over_a_fifth_of_their_spread() -> None:
    """Distances have any scale: the nearest of a hundred, or of a code book, is not meant by all of them alike."""
    x, weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), torch.arange(5.0)
    for scale in (0.01, 100.0):
        leaf = (scale * x).requires_grad_()
        shares = (-leaf / (0.2 * leaf.detach().std(1, keepdim=True))).softmax(1)
        (expected,) = torch.autograd.grad((shares * weights).sum(), leaf)
        for function in (lambda x: torch.eye(5)[x.argmin(1)], lambda x: F.one_hot(x.min(1).indices, 5).float()):
            torch.testing.assert_close(gradient(function, scale * x, weights), expected)


def test_one_hot_code_of_a_rounded_number_has_the_gradient_of_weights_that_fall_by_half_a_nat_a_place() -> None:
    x, weights = torch.linspace(-0.2, 1.2, 29)[:, None], torch.arange(8.0).square()
    leaf = x.clone().requires_grad_()
    position = 7 * leaf + ((7 * x).round().clamp(0, 7) - 7 * x)  # its value is that of the place, its slope 7
    kernel = (-0.5 * (position[..., None] - torch.arange(8)).abs()).exp()
    meant = kernel / kernel.sum(-1, keepdim=True)
    (expected,) = torch.autograd.grad((meant * weights).sum(), leaf)
    slope = gradient(lambda x: F.one_hot((7 * x).round().clamp(0, 7).long(), 8).float(), x, weights)
    torch.testing.assert_close(slope, expected)


def assign_where_large(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0.5] = 4.0
    return y


def test_where_passes_the_gap_through_the_condition() -> None:
    x = torch.tensor([[0.2, 0.9]])
    step = gradient(lambda x: (x > 0.5).float(), x)
    assert (step > 0).all()
    torch.testing.assert_close(gradient(lambda x: torch.where(x > 0.5, 7.0, 3.0), x), 4 * step)
    torch.testing.assert_close(gradient(lambda x: torch.zeros_like(x).masked_fill(x > 0.5, 4.0), x), 4 * step)
    torch.testing.assert_close(gradient(lambda x: 1.0 - (x <= 0.5).float(), x), step)
    torch.testing.assert_close(gradient(lambda x: (~(x <= 0.5)).float(), x), step)

    torch.testing.assert_close(gradient(assign_where_large, x), torch.tensor([[1.0, 0.0]]) + (4 - x) * step)
    guarded = gradient(lambda x: torch.where(x > 0.5, x.log(), torch.full_like(x, -torch.inf)).exp(), x)
    assert guarded.isfinite().all()


@pytest.mark.parametrize("code", ["thermometer", "thermometer by buckets"])
def test_thermometer_gradient_agrees_with_wide_differences(code: str) -> None:
    x, radius = images(), 0.25
    encode = STRANGERS[code]
    weights = torch.arange(1, encode(x).shape[-1] + 1).float()  # any code whose weights have one sign rises with x
    weights = weights if code == "thermometer" else weights / 10
    slope = gradient(encode, x, weights)
    difference = ((encode(x + radius) - encode(x - radius)) * weights).sum(-1)
    assert (difference > 0).all()
    assert (slope > 0).all()


def test_sign_never_loses_its_gradient() -> None:
    x = torch.tensor([[-100.0, -1.0, 0.01, 1.0, 100.0]])
    slope = gradient(torch.sign, x)
    scale = x.abs().mean()
    torch.testing.assert_close(slope, 1 / scale / (1 + x.abs() / scale) ** 2)
    torch.testing.assert_close(gradient(lambda x: (1000 * x).sign(), x), slope)


def test_gradients_inside_the_model_are_its_true_ones() -> None:
    def asks(x: Tensor) -> Tensor:
        z = x.detach().requires_grad_()
        (z.round() + z.clamp(0.4, 0.6) + z.detach()).sum().backward()
        assert z.grad is not None
        return z.grad * x

    x = images()
    inside = ((x >= 0.4) & (x <= 0.6)).float()
    assert torch.equal(straight_through(Inline(asks))(x.clone().requires_grad_()), inside * x)
    torch.testing.assert_close(gradient(asks, x), inside)


class Counting(nn.Module):
    """Keeps running statistics, by writing in place and by assignment."""

    written: Tensor
    assigned: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("written", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(()))
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.written.mul_(0.5).add_(x.exp().mean())
            self.scale.mul_(1.0)
        self.assigned = 0.5 * self.assigned + x.detach().exp().mean()
        if self.fail:
            with torch.no_grad():
                raise ArithmeticError
        return x.round() * self.scale + self.written + self.assigned


def test_state_is_that_of_the_model_and_keeps_no_graph() -> None:
    viewed, plain = Counting(), Counting()
    view = straight_through(viewed)
    for seed in range(3):
        x = images(seed).requires_grad_()
        got = view(x)
        with torch.no_grad():
            assert torch.equal(got, plain(x))
        got.sum().backward()
        assert x.grad is not None
        assert (x.grad > 0).all()
    for name, buffer in viewed.named_buffers():
        assert buffer.grad_fn is None
        assert torch.equal(buffer, plain.get_buffer(name))


def test_an_exception_leaves_nothing_behind() -> None:
    model = Counting()
    model.fail = True
    x = images().requires_grad_()
    with pytest.raises(ArithmeticError):
        straight_through(model)(x)
    assert torch.is_grad_enabled()
    assert torch.autograd.grad(x.round().sum(), x)[0].abs().max() == 0  # plain torch again
    assert model.assigned.grad_fn is None


def test_without_gradients_the_model_runs_by_itself() -> None:
    seen: list[Tensor] = []
    view = straight_through(Inline(lambda x: seen.append(x) or x.round()))  # type: ignore[func-returns-value]
    x = images()
    assert not view(x).requires_grad
    assert seen[0] is x
    with torch.no_grad():
        assert not view(x.requires_grad_()).requires_grad
    assert seen[1] is x
    with torch.inference_mode():
        assert not view(x).requires_grad


def test_network_without_breaks_has_its_own_gradient_to_the_bit() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    x = images().requires_grad_()
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    (got,) = torch.autograd.grad(straight_through(net)(x).square().sum(), x)
    assert torch.equal(got, expected)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def trained(encode: Function, x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(encode(x[:1]).numel(), 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    codes = encode(x).flatten(1)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(head(codes), y).backward()
        optimizer.step()
    return nn.Sequential(Inline(encode), nn.Flatten(), head).requires_grad_(False)


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float = 0.25, steps: int = 30) -> Tensor:
    adversarial = x.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        logits = model(adversarial)
        if not logits.requires_grad:
            return x
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, y), adversarial)
        moved = adversarial.detach() + eps / 8 * slope.sign()
        adversarial = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return adversarial


DEFENSES: dict[str, Function] = {
    "thermometer": lambda x: (x[..., None] > THRESHOLDS).float(),
    "thermometer by buckets": thermometer_by_buckets,
    "quantised": lambda x: ((x * 255).to(torch.uint8) >> 6).float() / 3,
    "one-hot": lambda x: F.one_hot((x * 7).round().long(), 8).float(),
    "table": lambda x: torch.linspace(-1, 1, 8)[(x * 7).long()],
    "binarised": lambda x: torch.where(x.detach() > 0.5, 1.0, 0.0),
    "no_grad": torch.no_grad()(lambda x: (x * 4).round_().div_(4)),
}


@pytest.mark.parametrize("name", DEFENSES)
def test_pgd_breaks_what_it_cannot_break_through_plain_gradients(name: str, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    model = trained(DEFENSES[name], x[:1200], y[:1200])
    x, y = x[1200:1400], y[1200:1400]

    def accuracy(at: Tensor) -> float:
        with torch.no_grad():
            return float((model(at).argmax(1) == y).float().mean())

    clean, plain, adaptive = accuracy(x), accuracy(pgd(model, x, y)), accuracy(pgd(straight_through(model), x, y))
    assert clean > 0.8
    assert plain == clean
    assert adaptive < 0.2


def test_a_mask_of_refused_images_becomes_a_margin_with_a_gradient() -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x, "reject": x.mean(1) > 0.5}

    x = torch.tensor([[0.2, 0.4], [0.6, 0.9]], requires_grad=True)
    answer = as_output(straight_through(Refuses())(x))
    assert answer.reject is not None
    assert answer.reject.tolist() == [-1, 1]
    (slope,) = torch.autograd.grad(answer.reject.sum(), x)
    assert (slope > 0).all()


def ballots(x: Tensor) -> Tensor:
    """(B, 9) scores of three voters -> their labels (B, 3)."""
    return torch.stack([part.argmax(1) for part in x.split(3, 1)], 1)


COUNTS: dict[str, Function] = {
    "mode": lambda x: torch.eye(3)[ballots(x).mode(1).values],
    "equal to a number": lambda x: torch.stack([(ballots(x) == k).sum(1).float() for k in range(3)], 1),
    "equal to each place": lambda x: (ballots(x)[:, :, None] == torch.arange(3)).float().sum(1),
    "bincount": lambda x: torch.stack([torch.bincount(row, minlength=3).float() for row in ballots(x)]),
    "scatter_add": lambda x: torch.zeros(len(x), 3).scatter_add_(1, ballots(x), torch.ones(len(x), 3)),
    "index_add": lambda x: torch.stack([torch.zeros(3).index_add(0, row, torch.ones(3)) for row in ballots(x)]),
    "joined": lambda x: (
        F.one_hot(torch.cat([part.max(1, keepdim=True)[1] for part in x.split(3, 1)], 1), 3).float().sum(1)
    ),
    "drawn": lambda x: F.one_hot(torch.multinomial(x[:, :3].softmax(1), 2, replacement=True), 3).float().sum(1),
}


@pytest.mark.parametrize("count", COUNTS)
def test_votes_follow_the_scores_of_their_class(count: str) -> None:
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    z = x.clone().requires_grad_()
    torch.manual_seed(0)
    votes = straight_through(Inline(COUNTS[count]))(z)
    torch.manual_seed(0)
    assert torch.equal(votes, COUNTS[count](x))
    (slope,) = torch.autograd.grad(votes[:, 1].sum(), z)
    voters = slope.view(6, 3, 3)[:, : 1 if count == "drawn" else 3]
    assert (voters[..., 1] > 0).all()
    assert (voters[..., ::2] <= 0).all()


OLD_IDIOMS: dict[str, Callable[[Tensor], Tensor]] = {
    "Variable": lambda x: torch.autograd.Variable(x),
    "Variable of values": lambda x: torch.autograd.Variable(x.data, requires_grad=True),
    "Parameter": lambda x: nn.Parameter(x),
    "new_tensor": lambda x: x.new_tensor(x),
    "tensor": lambda x: torch.tensor(x),
    "numpy's memory": lambda x: torch.from_numpy(x.detach().numpy()),
}


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.parametrize("idiom", OLD_IDIOMS)
def test_a_tensor_made_anew_of_another_keeps_its_gradient(idiom: str) -> None:
    class Made(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * OLD_IDIOMS[idiom](2 * x).flatten(1)

    x = torch.rand(2, 1, 2, 2).requires_grad_()
    answer = straight_through(Made())(x)
    assert torch.equal(answer, Made()(x))
    assert torch.equal(torch.autograd.grad(answer.sum(), x)[0], torch.full_like(x, 6.0))
    assert type(torch.autograd.Variable).__call__ is type.__call__
    assert type(nn.Parameter).__call__ is type.__call__


def test_a_leaf_that_is_moved_by_its_data_keeps_the_gradient_of_where_it_began() -> None:
    class Langevin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                z = torch.autograd.Variable(x.detach(), requires_grad=True)
                for _ in range(3):
                    (own,) = torch.autograd.grad(z.square().sum(), [z])
                    z.data = z.data - 0.1 * own
            return z.detach().flatten(1)

    x = torch.rand(2, 1, 2, 2).requires_grad_()
    answer = straight_through(Langevin())(x)
    assert torch.allclose(answer, 0.8**3 * x.flatten(1))
    assert torch.equal(torch.autograd.grad(answer.sum(), x)[0], torch.ones_like(x))
    answer = unrolled(Langevin())(x)
    assert torch.allclose(torch.autograd.grad(answer.sum(), x)[0], torch.full_like(x, 0.8**3))


VOTES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "or": lambda a, b, c: ((a == b) * a) | ((a == c) * a) | ((b == c) * c),
    "largest": lambda a, b, c: torch.stack([(a == b) * a, (a == c) * a, (b == c) * c]).amax(0),
    "maximum": lambda a, b, c: torch.maximum(torch.maximum((a == b) * a, a * (a == c)), (b == c) * c),
}


@pytest.mark.parametrize("vote", VOTES)
def test_arithmetic_on_labels_carries_how_much_each_class_is_meant(vote: str) -> None:
    class Votes(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.eye(4)[VOTES[vote](*(part.argmax(1) for part in z.unbind(1)))]

    z = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b, c = z.softmax(2).unbind(1)
    meant = torch.stack([(p * q).sum(1, keepdim=True) * p for p, q in ((a, b), (a, c), (c, b))]).sum(0)
    answer = straight_through(Votes())(z)
    assert torch.equal(answer, Votes()(z))
    for k in range(4):
        (found,) = torch.autograd.grad(answer[:, k].sum(), z, retain_graph=True)
        (wanted,) = torch.autograd.grad(meant[:, k].sum(), z, retain_graph=True)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_a_label_chosen_by_a_condition_is_meant_as_much_as_the_condition_holds() -> None:
    class Chosen(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            a, b, c = (part.argmax(1) for part in z.unbind(1))
            return torch.eye(4)[torch.where(a == b, a, c)]

    z = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b, c = z.softmax(2).unbind(1)
    same = (a * b).sum(1, keepdim=True)
    answer = straight_through(Chosen())(z)
    (found,) = torch.autograd.grad(answer[:, 1].sum(), z)
    (wanted,) = torch.autograd.grad((same * a + (1 - same) * c)[:, 1].sum(), z)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_narrow_step_has_ten_times_the_slope_at_its_threshold_and_less_far_from_it() -> None:
    x = torch.tensor([[0.5, 0.9, 0.1, 0.5]])

    def slopes(view: Callable[[nn.Module], nn.Module]) -> Tensor:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(view(Inline(lambda x: (x > 0.5).float()))(leaf).sum(), leaf)
        return slope[0]

    wide, narrow = slopes(straight_through), slopes(narrow_straight_through)
    torch.testing.assert_close(narrow[0], 10 * wide[0])
    assert narrow[1] < wide[1]


class Flat(nn.Module):
    """One operation on the images, times a factor that makes it all but a step, or leaves it as it is."""

    def __init__(self, operation: Callable[[Tensor], Tensor], factor: float) -> None:
        super().__init__()
        self.operation, self.factor = operation, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.factor * (x.flatten(1) - 0.5))


FLAT_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": nn.Tanh(),
    "softmax": lambda u: u.softmax(1),
}


@pytest.mark.parametrize("operation", FLAT_OPERATIONS.values(), ids=FLAT_OPERATIONS)
def test_flat_functions_have_the_gradient_of_wider_ones_and_all_others_their_own(
    operation: Callable[[Tensor], Tensor],
) -> None:
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for factor in (0.5, 1e6):
        model = Flat(operation, factor)
        own = torch.autograd.grad(model(x)[:, 0].sum(), x)[0]
        values = straight_through(model)(x)
        slope = torch.autograd.grad(values[:, 0].sum(), x)[0]
        assert torch.equal(values, model(x))
        if factor < 1:
            assert torch.allclose(slope, own)
        else:
            assert own.abs().max() == 0  # it has vanished in float32
            assert (slope.flatten(1)[:, 0] > 0).all()


def test_whether_a_softmax_is_flat_is_decided_for_each_example() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) * x.new_tensor([[1.0], [1e6]])).softmax(1)

    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    own, slope = (torch.autograd.grad(view(x)[:, 0].sum(), x)[0] for view in (Scaled(), straight_through(Scaled())))
    assert torch.allclose(slope[0], own[0])
    assert own[1].abs().max() == 0
    assert slope[1].abs().max() > 0


def test_an_argmax_of_scores_of_any_scale_has_a_gradient() -> None:
    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.one_hot((1e6 * x.flatten(1)).argmax(1), 9).float()

    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    chosen = straight_through(Chosen())(x)
    slope = torch.autograd.grad(chosen[:, 0].sum(), x)[0]
    assert (slope.flatten(1)[:, 0] > 0).all()
