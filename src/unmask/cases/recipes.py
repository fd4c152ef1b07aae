"""How the weights that ship are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Steepest
from unmask.attacks.problem import Problem
from unmask.data import load
from unmask.models.model_wrappers import frozen_copy
from unmask.nets.pixel_cnn import PixelCNN
from unmask.randomness import Keys, make_keys
from unmask.threats import Threat
from unmask.training.checkpoints import Checkpoints
from unmask.training.classifier import ClassifierLoss, ClassifierRecipe, train_classifier
from unmask.training.density import DensityRecipe, levels, train_density
from unmask.training.gan import GanRecipe, train_gan
from unmask.types import Model
from unmask.weights import load_weights, shipped

__all__ = ["Against", "ClassifierTraining", "DensityTraining", "GanTraining", "StudentTraining", "undisturbed"]

_SHOWN = 2000


@dataclass(frozen=True)
class ClassifierTraining:
    """Train the whole model as a classifier of a data set's training half.

    Args:
        data: its name.
        recipe: the steps, and what is minimised where there is no ``loss``.
        loss: what is minimised instead.
        start: name of the case whose weights the model's ``classifier`` starts from; None for random ones.
        finish: called with the trained model and the first 2000 training images (N, C, H, W), of which the model
            keeps something with its weights.
    """

    data: str
    recipe: ClassifierRecipe
    loss: ClassifierLoss | None = None
    start: str | None = None
    finish: Callable[[Any, Tensor], None] | None = None

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        if self.start is not None:
            load_weights(model.get_submodule("classifier"), shipped(self.start))
        settings = {"data": self.data, "seed": seed, "recipe": repr(self.recipe), "start": self.start}
        settings["loss"] = getattr(self.loss, "__name__", None)
        checkpoints = Checkpoints(folder, settings)
        yield from train_classifier(
            model, data.floats, len(data), self.recipe, checkpoints, seed=seed, device=device, loss=self.loss
        )
        if self.finish is not None:
            self.finish(model, data.batch(0, _SHOWN)[0].to(device))


@dataclass(frozen=True)
class StudentTraining:
    """Teach a defense's ``classifier``, behind its ``transform``, what another network says of the bare images.

    Distillation (Hinton et al., 2015): what is minimised is the divergence of the student's probabilities from
    the teacher's, both at a temperature, times its square.

    Args:
        teacher: name of the case whose weights it has.
        build: its network.
        temperature: what logits are divided by.
    """

    data: str
    teacher: str
    build: Callable[[], nn.Module] = field(repr=False)
    recipe: ClassifierRecipe
    temperature: float = 4.0

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        teacher = self.build()
        load_weights(teacher, shipped(self.teacher))
        teacher = frozen_copy(teacher.eval()).to(device)
        transform, student = model.get_submodule("transform"), model.get_submodule("classifier")

        def loss(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                wanted = (teacher(x).float() / self.temperature).softmax(1)
                seen = transform(x)
            logits = model(seen).float()
            taught = (logits / self.temperature).log_softmax(1)
            return self.temperature**2 * F.kl_div(taught, wanted, reduction="batchmean"), logits

        checkpoints = Checkpoints(folder, {"data": self.data, "seed": seed, "student": repr(self)})
        yield from train_classifier(
            student, data.floats, len(data), self.recipe, checkpoints, seed=seed, device=device, loss=loss
        )


@dataclass(frozen=True)
class DensityTraining:
    """Train the density of a PixelDefend; the last line has its bits per dimension on ``held_out`` test images."""

    data: str
    recipe: DensityRecipe
    held_out: int = 1000

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        settings = {"data": self.data, "seed": seed, "recipe": repr(self.recipe)}
        density = cast(PixelCNN, model.get_submodule("purify.density"))
        yield from train_density(
            density, data.floats, len(data), self.recipe, Checkpoints(folder, settings), seed=seed, device=device
        )
        test = levels(load(self.data, "test", n=self.held_out).batch()[0])
        with torch.no_grad():
            bits = torch.cat([density.bits_per_dim(part.to(device)) for part in test.split(100)])
        yield {"bits_per_dim on test images": float(bits.mean())}


@dataclass(frozen=True)
class GanTraining:
    """Train a generator against a critic, and the classifier of a Defense-GAN on clean images."""

    data: str
    critic: Callable[[], nn.Module]
    gan: GanRecipe
    classifier: ClassifierRecipe

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        purify: Any = model.get_submodule("purify")
        settings = {"data": self.data, "seed": seed, "gan": asdict(self.gan), "classifier": repr(self.classifier)}
        torch.manual_seed(seed)
        yield from train_gan(
            purify.generator,
            self.critic(),
            purify.latent,
            data.floats,
            len(data),
            self.gan,
            Checkpoints(folder / "generator", settings),
            seed=seed,
            device=device,
        )
        yield from train_classifier(
            model.get_submodule("classifier"),
            data.floats,
            len(data),
            self.classifier,
            Checkpoints(folder / "classifier", settings),
            seed=seed,
            device=device,
        )


@dataclass(frozen=True)
class Against:
    """Perturbs training images by PGD; eps grows over the first ``ramp`` of the training.

    Args:
        threat: the ball at its full size.
        steps: of PGD, from a random start.
        ramp: share of the training after which eps is full.
        size: of a step, as a share of eps; 2.5 / steps where none is given.
    """

    threat: Threat
    steps: int
    ramp: float = 0.2
    size: float | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        ball = replace(self.threat, eps=self.threat.eps * min(1.0, progress / self.ramp))
        attack = GradientAttack(self.steps, optimizer=Steepest(self.size or 2.5 / self.steps), early_stop=False)
        keys = make_keys(int(progress * 1e9), index, "adversarial training")
        return attack(undisturbed(model, x, y, ball, keys))


def undisturbed(model: Model, x: Tensor, y: Tensor, threat: Threat, keys: Keys) -> Problem:
    """A problem without a judge, for attacks that do not stop early."""
    return Problem(model, x, y, threat, keys, _nobody)


def _nobody(rows: Tensor, x_adv: Tensor, step: int) -> Tensor:
    raise AssertionError("training uses no judge")
