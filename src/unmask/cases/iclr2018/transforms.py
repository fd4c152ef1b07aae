"""Input transformations: shattered or stochastic gradients, broken by BPDA with the identity and by EOT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import IMAGENET_L2, IMAGENET_RELATIVE, own_gradient
from unmask.cases.literature import ALONE, earlier_run, table_of_2018
from unmask.data import load
from unmask.defenses.averaged import Averaged
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.transforms.bit_depth import ReduceBitDepth
from unmask.defenses.transforms.crop import CropEnsemble
from unmask.defenses.transforms.jpeg import JPEG
from unmask.defenses.transforms.quilting import Quilt, build_patches
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation
from unmask.gradients.bpda import View, bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import mobilenet_v2

__all__ = ["CASES"]

_PATCHES = 50_000
_EVALUATED = 500  # images at most; patches are cut from those that follow
_SURE = with_confidence(
    margin, 3.0
)  # a random defense is right again in some draws about what is just over the boundary


@cache
def _patches() -> Tensor:
    """Of images that no case is evaluated on."""
    return build_patches(load("imagenet-sample").batch(_EVALUATED, 1000)[0], _PATCHES)


class _Ensemble(Averaged):
    """One classifier behind each of the transformations."""

    def __init__(self, classifier: nn.Module) -> None:
        transforms = (ReduceBitDepth(), JPEG(), MinimiseTotalVariation(), Quilt(_patches()))
        members = [Preprocessed(transform, classifier) for transform in transforms]
        super().__init__([*members, CropEnsemble(classifier)])
        self.classifier = classifier


def _each(*parts: str) -> View:
    def view(model: nn.Module) -> nn.Module:
        for part in parts:
            model = bpda(part)(model)
        return model

    return view


_BPDA = "BPDA: the transformation is the identity in the backward pass; PGD on the margin"


def _attackers(parts: tuple[str, ...], *, random: bool) -> dict[str, AttackSpec]:
    loss = _SURE if random else margin
    steps = AttackSpec(
        _BPDA, lambda _: Ensemble((pgd(20, loss, rel_step_size=0.25), pgd(100, loss))), view=_each(*parts)
    )
    averaged = AttackSpec(
        f"{_BPDA}, EOT over 4 draws", lambda _: pgd(60, loss, EOT(4), rel_step_size=0.1), view=_each(*parts)
    )
    return {"plain": own_gradient(10), "bpda": steps, **({"eot": averaged} if random else {})}


_PUBLISHED = table_of_2018(
    0.0,
    f"{ALONE}; one figure for all transformations; the table prints an L2 distance of 0.005, the code stops at 0.05 "
    "per pixel, which is this threat",
)
_EARLIER = earlier_run(0.0, "one figure for all transformations")

_ONE = ("transform",)
_LENS = ImageProbe("transform")


def _cases(
    name: str,
    defense: str,
    obfuscation: tuple[Obfuscation, ...],
    build: Callable[[], nn.Module],
    attackers: dict[str, AttackSpec],
    note: str,
    lens: ImageProbe | None = None,
    *,
    attacked_in_2018: bool = True,
) -> Iterator[Case]:
    for middle, threat in (("", IMAGENET_L2), ("-relative", IMAGENET_RELATIVE)):
        known = attacked_in_2018 and threat is IMAGENET_L2
        yield Case(
            name=f"{name}{middle}-imagenet",
            defense=defense,
            obfuscation=obfuscation,
            data="imagenet-sample",
            threat=threat,
            citation="Guo et al., ICLR 2018",
            build=build,
            attacks=attackers,
            train=None,
            pretrained="mobilenet_v2",
            draws=5 if "eot" in attackers else 1,
            published=_PUBLISHED if known else None,
            replicated=_EARLIER if known else None,
            max_examples=_EVALUATED,
            n_controls=16,
            image_probe=lens,
            note=f"{note}; the classifier was trained without",
        )


CASES = (
    *_cases(
        "bitdepth",
        "bit depth reduction",
        (Obfuscation.SHATTERED,),
        lambda: Preprocessed(ReduceBitDepth(), mobilenet_v2()),
        _attackers(_ONE, random=False),
        "3 bits",
        _LENS,
    ),
    *_cases(
        "jpeg",
        "JPEG compression",
        (Obfuscation.SHATTERED,),
        lambda: Preprocessed(JPEG(), mobilenet_v2()),
        _attackers(_ONE, random=False),
        "quality 75",
        _LENS,
    ),
    *_cases(
        "tvm",
        "total variation minimisation",
        (Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
        lambda: Preprocessed(MinimiseTotalVariation(), mobilenet_v2()),
        _attackers(_ONE, random=True),
        "half of the pixels dropped",
        _LENS,
    ),
    *_cases(
        "quilting",
        "image quilting",
        (Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
        lambda: Preprocessed(Quilt(_patches()), mobilenet_v2()),
        _attackers(_ONE, random=True),
        f"{_PATCHES} patches, one of the 10 nearest",
        _LENS,
    ),
    *_cases(
        "crop",
        "crop ensemble",
        (Obfuscation.STOCHASTIC,),
        lambda: CropEnsemble(mobilenet_v2()),
        {
            "plain": own_gradient(40),
            "eot": AttackSpec(
                "EOT over 4 draws of 30 crops: PGD on the margin", lambda _: pgd(60, _SURE, EOT(4), rel_step_size=0.1)
            ),
        },
        "30 crops of 90x90",
    ),
    *_cases(
        "transforms",
        "all five transformations, averaged",
        (Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
        lambda: _Ensemble(mobilenet_v2()),
        _attackers(tuple(f"members.{number}.transform" for number in range(4)), random=True),
        "the mean of the probabilities over bit depth, JPEG, total variation, quilting and crops: an ensemble of this "
        "project, which nobody else attacked",
        attacked_in_2018=False,
    ),
)
