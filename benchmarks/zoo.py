"""Models with known truth: defenses as normal authors write them, around a network; some masked, some sound."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unmask.data import load
from unmask.types import Output

__all__ = ["ZOO", "Entry"]


class Entry(NamedTuple):
    """A model of the zoo: ``build`` puts it around a network; truth is what an ideal attack finds."""

    build: Callable[[nn.Module], nn.Module]
    kinds: frozenset[str]  # of obfuscated gradients; empty for a sound model
    places: frozenset[str]  # paths of the guilty parts; "" is the model's own forward


ZOO: dict[str, Entry] = {}

LEVELS = 24
"""Of whatever is quantised: steps finer than the balls, so that they hide the gradient and protect from nothing."""


def entry(*kinds: str, at: tuple[str, ...] = ("",)) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def add(model: type[nn.Module]) -> type[nn.Module]:
        if model.__name__ in ZOO:
            raise ValueError(f"{model.__name__} is in the zoo twice")
        ZOO[model.__name__] = Entry(model, frozenset(kinds), frozenset(at if kinds else ()))
        return model

    return add


class Around(nn.Module):
    """A network in a defense."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


# Shattered: the gradient is missing or wrong.


@entry("shattered")
class InlineRound(Around):
    def forward(self, x: Tensor) -> Any:
        x = torch.round(x * LEVELS) / LEVELS
        return self.net(x)


class Quantize(nn.Module):
    def __init__(self, levels: int = LEVELS) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * self.levels) / self.levels


@entry("shattered", at=("quantize",))
class ModuleRound(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.quantize = Quantize()

    def forward(self, x: Tensor) -> Any:
        return self.net(self.quantize(x))


@entry("shattered")
class Detached(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(x.detach())


@entry("shattered")
class Retrieves(Around):
    """Mixes an image with the nearest of some references, which changes far from the image alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.references = load("digits", "train", n=300).batch()[0].flatten(1)

    def forward(self, x: Tensor) -> Any:
        nearest = torch.cdist(x.flatten(1), self.references).argmin(1)
        return self.net(0.5 * x + 0.5 * self.references[nearest].view_as(x))


@entry("shattered")
class ThroughNumpy(Around):
    def forward(self, x: Tensor) -> Any:
        levels = np.round(x.detach().cpu().numpy() * LEVELS) / LEVELS
        return self.net(torch.from_numpy(levels).to(x.device).float())


@entry("shattered")
class Bytes(Around):
    def forward(self, x: Tensor) -> Any:
        coarse = (x * 255).to(torch.uint8) >> 3 << 3
        return self.net(coarse.float() / 255)


class PillowJpeg(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for image in x:
            buffer = io.BytesIO()
            pixels = (image.detach().cpu().numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
            Image.fromarray(pixels.squeeze()).save(buffer, "JPEG", quality=50)
            back = np.asarray(Image.open(buffer), dtype=np.float32) / 255
            out.append(torch.from_numpy(back.reshape(pixels.shape).transpose(2, 0, 1).copy()))
        return torch.stack(out).to(x.device)


@entry("shattered", at=("jpeg",))
class Jpeg(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.jpeg = PillowJpeg()

    def forward(self, x: Tensor) -> Any:
        return self.net(self.jpeg(x))


@entry("shattered")
class HardLabel(Around):
    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        return 10 * F.one_hot(logits.argmax(1), logits.shape[1]).float()


@entry("shattered")
class Votes(Around):
    """Each shift of the image has a vote."""

    def forward(self, x: Tensor) -> Any:
        answers = [self.net(torch.roll(x, shift, 3)) for shift in (-1, 0, 0, 0, 1)]
        return sum(F.one_hot(answer.argmax(1), answer.shape[1]) for answer in answers).float()  # type: ignore[union-attr]


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


@entry("shattered")
class NegatedGradient(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(Negated.apply(x))  # type: ignore[no-untyped-call]


class Zeroed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Guard(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return Zeroed.apply(x)  # type: ignore[no-untyped-call]


@entry("shattered", at=("guard",))
class ZeroBackward(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.guard = Guard()

    def forward(self, x: Tensor) -> Any:
        return self.net(self.guard(x))


@entry("shattered")
class NoGrad(Around):
    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            x = 0.9 * x + 0.05
        return self.net(x)


@entry("shattered")
class LookUp(Around):
    edges: Tensor
    values: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("edges", torch.arange(1, LEVELS) / LEVELS)
        self.register_buffer("values", torch.arange(LEVELS) / (LEVELS - 1))

    def forward(self, x: Tensor) -> Any:
        return self.net(self.values[torch.bucketize(x, self.edges)])


class Smooth(nn.Module):
    """Total variation by gradient descent."""

    def __init__(self, steps: int = 20) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        u = x.clone()
        for _ in range(self.steps):
            with torch.enable_grad():
                u.requires_grad_(True)
                rough = (u[..., 1:] - u[..., :-1]).abs().sum() + (u[..., 1:, :] - u[..., :-1, :]).abs().sum()
                loss = 3 * ((u - x) ** 2).sum() + 0.3 * rough
                (slope,) = torch.autograd.grad(loss, u)
            u = (u - 0.05 * slope).detach()
        return u


@entry("shattered", at=("denoise",))
class InnerDescent(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.denoise = Smooth()

    def forward(self, x: Tensor) -> Any:
        return self.net(self.denoise(x))


@entry("shattered")
class Sign(Around):
    """Levels by comparisons."""

    def forward(self, x: Tensor) -> Any:
        edges = (torch.arange(LEVELS, device=x.device) + 0.5) / LEVELS
        return self.net((torch.sign(x[..., None] - edges) / 2 + 0.5).mean(-1))


@entry("shattered")
class Switched(Around):
    """One of two grids, by a coin of Python's own that is tossed for the whole batch."""

    def forward(self, x: Tensor) -> Any:
        levels = random.choice([LEVELS, LEVELS - 3])
        return self.net(torch.round(x * levels) / levels)


@entry("shattered")
class RoundedByViews(Around):
    def forward(self, x: Tensor) -> Any:
        x = x.clone()
        for rows in (x[:, :, ::2], x[:, :, 1::2]):
            rows.mul_(LEVELS).round_().div_(LEVELS)
        return self.net(x)


@entry("shattered")
class Overwritten(Around):
    """Torch refuses to differentiate: what the square root saved is written into."""

    def forward(self, x: Tensor) -> Any:
        root = torch.sqrt(x + 0.01)
        level = root * root
        root.mul_(0)
        return self.net(level - 0.01 + root)


@entry("shattered")
class Cancelled(Around):
    """Both slopes are right, and their difference is nothing."""

    def forward(self, x: Tensor) -> Any:
        return self.net(x - torch.fmod(x, 1 / LEVELS))


@entry("shattered")
class Places(Around):
    """Levels by one-hot codes; there are none for numbers below 0."""

    def forward(self, x: Tensor) -> Any:
        place = (x * (LEVELS - 1)).long().unsqueeze(-1)
        codes = torch.zeros(*x.shape, LEVELS, device=x.device).scatter_(-1, place, 1.0)
        return self.net(codes @ torch.linspace(0, 1, LEVELS, device=x.device))


@entry("shattered", at=("guard",))
class HookedGradient(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.guard = nn.Hardtanh(0, 1)
        self.guard.register_full_backward_hook(lambda part, given, made: (-given[0],))  # type: ignore[index]

    def forward(self, x: Tensor) -> Any:
        return self.net(self.guard(x))


@entry("shattered")
class Mapped(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(torch.func.vmap(lambda image: torch.floor(image * LEVELS) / LEVELS)(x))


# Vanishing: the gradient is right and too small to be seen.


@entry("vanishing")
class Temperature(Around):
    def forward(self, x: Tensor) -> Any:
        return 1000 * self.net(x)


@entry("vanishing")
class SharpProbabilities(Around):
    def forward(self, x: Tensor) -> Any:
        return torch.softmax(100 * self.net(x), 1)


@entry("vanishing")
class SteepSteps(Around):
    """A smooth staircase."""

    def forward(self, x: Tensor) -> Any:
        edges = (torch.arange(LEVELS, device=x.device) + 0.5) / LEVELS
        return self.net(torch.sigmoid(1e4 * (x[..., None] - edges)).mean(-1))


@entry("vanishing")
class ChaoticMap(Around):
    """Each step is smooth, and after a dozen of them a pixel's neighbours are anywhere."""

    def forward(self, x: Tensor) -> Any:
        z = 0.98 * x + 0.01
        for _ in range(14):
            z = 3.99 * z * (1 - z)
        return self.net(x + 0.05 * (z - 0.5))


# Stochastic: the gradient of one draw says little.


class Drop(nn.Module):
    def __init__(self, kept: float = 0.4) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < self.kept) / self.kept


@entry("stochastic", at=("drop",))
class PixelDrop(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.drop = Drop()

    def forward(self, x: Tensor) -> Any:
        return self.net(self.drop(x))


@entry("shattered")
class SmoothedVotes(Around):
    """Randomised smoothing, by counts."""

    def forward(self, x: Tensor) -> Any:
        counts = torch.zeros(len(x), 10, device=x.device)
        for _ in range(8):
            chosen = self.net(x + 0.2 * torch.randn_like(x)).argmax(1)
            counts[torch.arange(len(x)), chosen] += 1
        return counts


# Detectors: to refuse an image is as good as to know its class.


class Unsure(Around):
    """Refuses what the network is not sure of."""

    def margin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(x)
        first, second = logits.softmax(1).topk(2, dim=1).values.T
        return logits, 0.8 - (first - second)


@entry()
class RefusesSmoothly(Unsure):
    def forward(self, x: Tensor) -> Any:
        return Output(*self.margin(x))


@entry("shattered")
class RefusesHard(Unsure):
    def forward(self, x: Tensor) -> Any:
        logits, margin = self.margin(x)
        return Output(logits, (margin > 0).float() - 0.5)


@entry()
class RefusingClass(Unsure):
    """The last class is that of images which are none."""

    def forward(self, x: Tensor) -> Any:
        logits, margin = self.margin(x)
        return torch.cat((logits, logits.amax(1, keepdim=True) + 10 * margin[:, None]), 1)


@entry("shattered", at=("squeeze",))
class SqueezingDetector(Around):
    """Feature squeezing: refuses what is answered otherwise at few levels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.squeeze = Quantize(3)

    def forward(self, x: Tensor) -> Any:
        logits, squeezed = self.net(x), self.net(self.squeeze(x))
        return Output(logits, (logits.softmax(1) - squeezed.softmax(1)).abs().sum(1) - 1.2)


# Stacked.


@entry("shattered", "stochastic")
class RoundAndNoise(Around):
    def forward(self, x: Tensor) -> Any:
        x = torch.round(x * LEVELS) / LEVELS
        return self.net(x + 0.25 * torch.randn_like(x))


@entry("shattered", "vanishing", "stochastic", at=("quantize", "", "drop"))
class Triple(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.quantize, self.drop = Quantize(), Drop(0.7)

    def forward(self, x: Tensor) -> Any:
        return 1000 * self.net(self.drop(self.quantize(x)))


@entry("shattered", "vanishing")
class DetachedAndHot(Around):
    def forward(self, x: Tensor) -> Any:
        return 1000 * self.net(x + (torch.round(x * LEVELS) / LEVELS - x).detach() - (x - x.detach()))


# Sound, weak or strong: nothing to be found.


@entry()
class Itself(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(x)


@entry()
class SmallLogits(Around):
    def forward(self, x: Tensor) -> Any:
        return 1e-3 * self.net(x)


@entry()
class WeakNoise(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(x + 0.02 * torch.randn_like(x))


@entry()
class RandomResize(Around):
    """One size and one place for the batch, by Python's own generator."""

    def forward(self, x: Tensor) -> Any:
        side = x.shape[-1]
        size = random.randint(round(0.88 * side), side)
        left, top = random.randint(0, side - size), random.randint(0, side - size)
        small = F.interpolate(x, size=(size, size), mode="bilinear")
        return self.net(F.pad(small, (left, side - size - left, top, side - size - top)))


@entry()
class SomeOfMany(Around):
    """Three of five views of the image, others in each call."""

    def forward(self, x: Tensor) -> Any:
        shifts = random.sample([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)], k=3)
        return torch.stack([self.net(torch.roll(x, shift, (2, 3))) for shift in shifts]).mean(0)


@entry()
class UnrolledDescent(Around):
    """Smoothed by descent in the forward pass, and differentiated through all of it."""

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            u = x if x.requires_grad else x.clone().requires_grad_()
            for _ in range(6):
                rough = (u[..., 1:] - u[..., :-1]).square().sum() + (u[..., 1:, :] - u[..., :-1, :]).square().sum()
                loss = (u - x).square().sum() + 0.1 * rough
                (slope,) = torch.autograd.grad(loss, u, create_graph=True)
                u = u - 0.2 * slope
        return self.net(u)


@entry()
class Smoothed(Around):
    """Randomised smoothing, by mean probabilities."""

    def forward(self, x: Tensor) -> Any:
        many = x.repeat_interleave(16, 0)
        answers = self.net(many + 0.1 * torch.randn_like(many)).softmax(1)
        return answers.view(len(x), 16, -1).mean(1).log()


@entry()
class InDoublePrecision(Around):
    def forward(self, x: Tensor) -> Any:
        return torch.func.functional_call(
            self.net, {name: weight.double() for name, weight in self.net.state_dict().items()}, (x.double(),)
        ).float()


@entry()
class Blur(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(0.7 * x + 0.3 * F.avg_pool2d(x, 3, 1, 1))


@entry()
class Clipped(Around):
    """A mask by a comparison, which is right almost everywhere."""

    def forward(self, x: Tensor) -> Any:
        return self.net(x.clamp(0, 1).masked_fill(x < 0.01, 0.0))


@entry()
class Pooled(Around):
    def forward(self, x: Tensor) -> Any:
        return self.net(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1))


@entry()
class Standardised(Around):
    def forward(self, x: Tensor) -> Any:
        mean, spread = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return self.net((x - mean) / spread * 0.35 + 0.3)


@entry()
class Dropout(Around):
    """In evaluation mode, where it does nothing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        return self.net(self.drop(x))


@entry()
class InPlace(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.floor = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        x = 1.05 * self.floor(x - 0.01)
        x[:, :, ::2] *= 0.98
        x[..., 1::2].clamp_(max=1)
        return self.net(x)
