"""What a case is: a defense on a data set under a threat, the attacks on it, and what was said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unmask.attacks.problem import Attack
from unmask.data import default_home
from unmask.errors import UnmaskError
from unmask.gradients.bpda import View
from unmask.kinds import Access, Obfuscation
from unmask.records import Figure
from unmask.threats import Threat
from unmask.weights import load_weights, origin, shipped

__all__ = ["AttackSpec", "Case", "ImageProbe", "Recipe", "StrengthSweep", "pretrained"]


@dataclass(frozen=True)
class AttackSpec:
    """An attack by name: what it searches, and through which view of the defense.

    Args:
        description: one line for readers of a report.
        make: the attack, given the defense (a latent search needs its generator).
        view: the view of the defense to optimise; None is the defense itself.
        plain: whether this is the attack without knowledge of the defense.
        access: what the attacker has.
        low_precision: whether gradients may be taken in bfloat16, where the hardware multiplies it.
        after: names of attacks; an example that one of them has broken in all draws is not attacked again, and keeps
            the candidate of that attack.
    """

    description: str
    make: Callable[[nn.Module], Attack]
    view: View | None = None
    plain: bool = False
    access: Access = Access.WHITE_BOX
    low_precision: bool = True
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageProbe:
    """What a report shows of a defense that maps images to images.

    Args:
        part: path of the part whose output the classifier sees.
        measured: what ``measure`` gives, as the axis of a plot names it.
        measure: (the defense, images (B, C, H, W)) -> (B,) how unnatural the images are to the defense, if known.
    """

    part: str
    measured: str = ""
    measure: Callable[[nn.Module, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class StrengthSweep:
    """A strength of a defense that a report varies: what it costs on clean images, and what it gives under attack.

    Args:
        varied: the strength, as the axis of a plot names it.
        own: what the case has.
        values: that are tried, ``own`` among them.
        turn: (the defense, a value) -> a defense of that strength; the given one stays as it is.
        attack: name of the adaptive attack on it.
    """

    varied: str
    own: float
    values: tuple[float, ...]
    turn: Callable[[nn.Module, float], nn.Module]
    attack: str


class Recipe(Protocol):
    """Trains a model in place, in a folder, yielding a log line now and then; continues where it stopped."""

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True)
class Case:
    """A defense, evaluated.

    Args:
        name: as on the command line, such as ``thermometer-mnist``.
        defense: what its authors call it.
        obfuscation: how it masks its gradient, or ``Obfuscation.NONE`` for a control.
        data: name of the data set.
        threat: the ball that the accuracy is stated for.
        citation: authors, venue, year.
        build: the defense with untrained weights.
        attacks: by name; "plain" is one of them.
        train: how the weights that ship were made; None if the defense adds none to those of ``base_case``.
        base_case: the case whose weights the defense's ``classifier`` has.
        pretrained: name of weights that others trained, for the ``classifier``; see :func:`pretrained`.
        draws: draws of the defense's randomness per verdict; 1 for a deterministic defense.
        claimed: robust accuracy that the authors state for this defense, data and threat, with its source.
        published: robust accuracy under a published attack, with its source.
        replicated: robust accuracy under an earlier run of the published attack by others, with its source.
        max_examples: largest number of examples, if the defense is too slow for more.
        n_controls: number of examples of the curves over eps and of the controls.
        image_probe: what a report shows of the images that the defense makes.
        strength_sweep: which strength of the defense a report varies.
        note: one line that a reader of the figures has to know.
    """

    name: str
    defense: str
    obfuscation: tuple[Obfuscation, ...]
    data: str
    threat: Threat
    citation: str
    build: Callable[[], nn.Module]
    attacks: Mapping[str, AttackSpec]
    train: Recipe | None
    base_case: str | None = None
    pretrained: str | None = None
    draws: int = 1
    claimed: Figure | None = None
    published: Figure | None = None
    replicated: Figure | None = None
    max_examples: int | None = None
    n_controls: int = 64
    image_probe: ImageProbe | None = None
    strength_sweep: StrengthSweep | None = None
    note: str = ""

    def prepare(self, folder: Path | None = None) -> nn.Module:
        """The defense with untrained weights, but for those of ``base``."""
        model = self.build()
        if self.base_case is not None:
            load_weights(model.get_submodule("classifier"), _weights(folder, self.base_case))
        if self.pretrained is not None:
            path = pretrained(self.pretrained)
            if not path.is_file():
                raise UnmaskError(f"{self.name}: {_absent(path)}")
            load_weights(model.get_submodule("classifier"), path)
        return model

    def load(self, folder: Path | None = None) -> nn.Module:
        """The trained defense in evaluation mode, from ``folder`` or from the weights that ship.

        Channels come last in its memory: the same function, up to twice as fast on a CPU.
        """
        model = self.prepare(folder)
        if self.train is not None:
            load_weights(model, _weights(folder, self.name), without=self.base_module)
        return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @property
    def has_weights(self) -> bool:
        """Whether all of its weights come with the package."""
        needed = [name for name in (self.base_case, self.name if self.train is not None else None) if name is not None]
        return self.pretrained is None and all(_weights(None, name).is_file() for name in needed)

    @property
    def missing_weights(self) -> str:
        """What is missing of the weights that do not come with the package, and how to get it; empty for nothing."""
        path = pretrained(self.pretrained) if self.pretrained else None
        return _absent(path) if path and not path.is_file() else ""

    @property
    def provenance(self) -> str:
        """Where its pretrained weights come from, as their file says; empty where it has none, or does not say."""
        return origin(pretrained(self.pretrained)) if self.pretrained and not self.missing_weights else ""

    @property
    def base_module(self) -> str:
        """The part of the defense whose weights are those of ``base``; empty where there is none."""
        return "classifier" if self.base_case is not None or self.pretrained is not None else ""


def pretrained(name: str) -> Path:
    """Where weights of that name, which others trained, are kept on this machine."""
    return default_home() / "weights" / f"{name}.safetensors"


def _absent(path: Path) -> str:
    return f"the weights {path} are missing: get them by `unmask fetch {path.stem}`, or set UNMASK_HOME"


def _weights(folder: Path | None, name: str) -> Path:
    return folder / f"{name}.safetensors" if folder else shipped(name)
