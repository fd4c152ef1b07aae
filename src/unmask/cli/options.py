"""Options that several commands share."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli.threshold import FailOn, Threshold
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.evaluation.execution_config import ExecutionConfig
    from unmask.evaluation.ray_executor import RayExecutor
    from unmask.models.forms import ModelForm

__all__ = [
    "AttackOptions",
    "DataOptions",
    "Device",
    "Execution",
    "FormOptions",
    "Local",
    "Out",
    "Run",
    "Seed",
    "Target",
    "ThreatOptions",
    "Verdict",
    "of_case",
]

# Each function imports what it needs, so that help does not wait for torch.

_DECIMAL = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e-?[0-9]+)?"
_SIZE = re.compile(rf"({_DECIMAL})(?:/({_DECIMAL}))?")


def _size(given: str) -> float:
    """A decimal number of ASCII digits, or a fraction of two; not all that Python takes for a number.

    >>> _size("0.3"), _size("8/255") == 8 / 255
    (0.3, True)
    """
    match = _SIZE.fullmatch(given)
    if match is not None and float(match[2] or 1) and math.isfinite(size := float(match[1]) / float(match[2] or 1)):
        return size
    plain = unicodedata.normalize("NFKC", given).replace("_", "").strip()
    hint = f"did you mean {plain}?" if match is None and _SIZE.fullmatch(plain) else "give, for example, 8/255"
    raise typer.BadParameter(f"{given!r} is no positive decimal number and no fraction of two: {hint}")


Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="path/to/file.py:factory, case:NAME, timm:NAME, FILE.onnx ...: see `unmask list models`.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command continues it.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]


@dataclass(frozen=True)
class DataOptions:
    """The images."""

    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="A name such as digits, or your own: FOLDER, FILE.csv, hf:NAME ...: see `unmask list datasets`.",
            show_default="those of case:NAME",
        ),
    ] = ""
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 200
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=1,
            help="Resize images to a short side of 8/7 of this, and crop the central square of this size.",
        ),
    ] = None

    @property
    def config(self) -> dict[str, Any]:
        """As run.json keeps it."""
        return {"data": self.data.rstrip("/") or "/", "n": self.n, **({"size": self.size} if self.size else {})}


@dataclass(frozen=True)
class ThreatOptions:
    """The ball."""

    eps: Annotated[
        float | None,
        typer.Option(
            "--eps",
            parser=_size,
            metavar="SIZE",
            help="Size of the ball, such as 0.3 or 8/255.",
            show_default="that of case:NAME, with its norm and unit",
        ),
    ] = None
    norm: Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")] = "linf"
    unit: Annotated[str, typer.Option("--eps-unit", help="raw, rms, rms_pixel, relative or per_dim.")] = "raw"

    @property
    def config(self) -> dict[str, Any]:
        """As run.json keeps it."""
        return {"norm": self.norm.lower(), "eps": self.eps, "unit": self.unit}


def of_case(target: str, data: DataOptions, threat: ThreatOptions) -> tuple[DataOptions, ThreatOptions]:
    """The images and the ball; where they are not given, those of a case that ``target`` names.

    Raises UnmaskError where they are not given for another model, and for a case that does not exist.
    """
    missing = [name for name, none in (("--data", not data.data), ("--eps", threat.eps is None)) if none]
    if not missing:
        return data, threat
    if not target.startswith("case:"):
        raise UnmaskError(f"Missing option '{missing[0]}'", "see --help; only case:NAME has data and a ball of its own")
    from unmask.cases import find_case

    case = find_case(target.removeprefix("case:"))
    if "--data" in missing:
        data = replace(data, data=case.data)
    if "--eps" in missing:
        if threat != ThreatOptions():
            raise UnmaskError("Missing option '--eps'", "a norm or a unit of your own needs a size of your own")
        threat = ThreatOptions(case.threat.eps, case.threat.norm, case.threat.unit)
    return data, threat


@dataclass(frozen=True)
class AttackOptions:
    """A built-in attack and its settings; the names are those of run.json."""

    attack: Annotated[str, typer.Option("--attack", help="See `unmask list attacks`.")] = "apgd"
    bpda: Annotated[list[str] | None, typer.Option("--bpda", help="PATH=identity; may be repeated.")] = None
    straight_through: Annotated[
        bool,
        typer.Option(
            "--straight-through", help="Treat rounding, casts and comparisons as smooth in the backward pass."
        ),
    ] = False
    eot: Annotated[int, typer.Option("--eot", min=0, help="Draws per gradient of a random model.")] = 0
    spsa: Annotated[int, typer.Option("--spsa", min=0, help="Pairs of scores per gradient, instead of autograd.")] = 0
    steps: Annotated[int, typer.Option("--steps", min=1, help="Gradients, queries or samples per search.")] = 100
    restarts: Annotated[int, typer.Option("--restarts", min=1, help="Searches per example.")] = 1


@dataclass(frozen=True)
class FormOptions:
    """What the user says of a model: the form of its input and output, and how it is obtained."""

    layout: Annotated[
        str,
        typer.Option(
            "--layout", help="Layout of the images that the model takes: nchw, (B, C, H, W), or nhwc, (B, H, W, C)."
        ),
    ] = "nchw"
    pixel_range: Annotated[
        float, typer.Option("--range", metavar="WHITE", help="What the model takes for white: 1, or 255 for 0 to 255.")
    ] = 1.0
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="KEY", help="Key or position of the logits, of a model with several outputs."),
    ] = None
    reject_class: Annotated[
        int | None, typer.Option("--reject-class", min=-1, help="The class that stands for a refusal; -1 for none.")
    ] = None

    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="R,G,B",
            help="Mean of each channel, in the units of --range; the model gets (image - mean) / std.",
        ),
    ] = None
    std: Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="Standard deviation of each channel.")] = (
        None
    )
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="File of weights, for timm:NAME and torchvision:NAME.")
    ] = None
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes", min=1, help="Number of classes of the weights in --checkpoint; default: that of the data."
        ),
    ] = None
    rate_limit: Annotated[
        float | None, typer.Option("--rate-limit", metavar="N", help="Requests per second to http://..., at most.")
    ] = None

    def form(self) -> ModelForm:
        """The form; UnmaskError for a value that an option does not have."""
        from unmask.models.forms import ModelForm

        if self.layout not in ("nchw", "nhwc"):
            raise UnmaskError(
                f"no layout {self.layout!r}; layouts: nchw, which is (B, C, H, W), and nhwc, which is (B, H, W, C)"
            )
        if not 0 < self.pixel_range < float("inf"):
            raise UnmaskError(
                f"--range {self.pixel_range:g}", "give the value that the model takes for white, such as 255"
            )
        return ModelForm(
            channels_last=self.layout == "nhwc",
            pixel_max=self.pixel_range,
            output=self.output,
            reject_class=self.reject_class,
            mean=_numbers("--mean", self.mean),
            std=_numbers("--std", self.std),
            checkpoint=None if self.checkpoint is None else str(self.checkpoint.resolve()),
            num_classes=self.num_classes,
            rate_limit=self.rate_limit,
        )


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise UnmaskError(f"{option} {text!r}", "give a number for each channel, such as 0.485,0.456,0.406") from error
    if not all(abs(value) < float("inf") for value in found):
        raise UnmaskError(f"{option} {text!r}", "give finite numbers")
    return found


@dataclass(frozen=True)
class Local:
    """Execution in this process."""

    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images per pass; results do not depend on it.")
    ] = 128
    device: Device = "cpu"
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Folder of weights, instead of the shipped ones.")
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="NAME:VALUE", help="Sent to http://...; $NAME is of the environment. Not stored."
        ),
    ] = None

    def config(
        self, *, strict: bool, form: ModelForm, size: int | None = None, compile: bool = False
    ) -> ExecutionConfig:
        """With what the other options, or run.json, say."""
        from unmask.evaluation.execution_config import ExecutionConfig
        from unmask.evaluation.models.sources.services import read_headers

        form = replace(form, headers=read_headers(self.header or ()))
        return ExecutionConfig(self.batch_size, self.device, self.weights, strict, form, size, compile)


@dataclass(frozen=True)
class Execution(Local):
    """Execution in this process or on a Ray cluster."""

    executor: Annotated[str, typer.Option("--executor", help="local, or ray: many jobs at a time.")] = "local"
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Address of a Ray cluster; default: a local one.")
    ] = None
    gpus_per_job: Annotated[
        float, typer.Option("--gpus-per-job", min=0, help="Share of a GPU for each worker of ray.")
    ] = 0.0
    ray_workers: Annotated[
        int | None, typer.Option("--ray-workers", min=1, help="Default: as many as fit the cluster.")
    ] = None

    def cluster(self, config: ExecutionConfig) -> RayExecutor | None:
        """What ``--executor`` names; None for this process."""
        if self.executor not in ("local", "ray"):
            raise UnmaskError(f"no executor {self.executor!r}; executors: local, ray")
        if self.executor == "local":
            if self.ray_address or self.gpus_per_job or self.ray_workers:
                raise UnmaskError("--ray-address, --gpus-per-job and --ray-workers are for --executor ray")
            return None
        from unmask.evaluation.ray_executor import RayExecutor

        return RayExecutor(config, self.ray_address, self.gpus_per_job, self.ray_workers)


@dataclass(frozen=True)
class Verdict:
    """When a run stops, when it fails, and whether it compiles."""

    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under",
            min=0,
            max=1,
            help="Exit with 1 if the robust accuracy of a case is below this share, unreliable or incomplete.",
        ),
    ] = None
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="What --fail-under compares: the figure, or its interval's lower end.")
    ] = FailOn.FIGURE
    stop_when: Annotated[
        str | None,
        typer.Option("--stop-when", help='Take examples in blocks only until, say, "upper<0.05"; also lower>, width<.'),
    ] = None
    compile: Annotated[
        bool,
        typer.Option("--compile", help="torch.compile for the views that attacks optimise; verdicts do not change."),
    ] = False

    def threshold(self) -> Threshold | None:
        """UnmaskError for ``--fail-on`` by itself."""
        return Threshold.of(self.fail_under, self.fail_on)
