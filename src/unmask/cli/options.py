"""Options that several commands share."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.threshold import FailOn

__all__ = [
    "Batch",
    "Compile",
    "Data",
    "Device",
    "Eps",
    "ExecutorName",
    "FailUnder",
    "FailingOn",
    "GpusPerJob",
    "Layout",
    "Out",
    "OutputKey",
    "PixelRange",
    "RayAddress",
    "RayWorkers",
    "RejectClass",
    "Run",
    "Seed",
    "Size",
    "StopWhen",
    "Target",
    "Weights",
]

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="case:NAME, path/to/file.py:factory, timm:NAME, FILE.onnx ...: see `unmask list models`.",
        show_default=False,
    ),
]


Data = Annotated[
    str,
    typer.Option(
        "--data", help="A name such as digits, or your own: FOLDER, FILE.csv, hf:NAME ...: see `unmask list datasets`."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size", min=1, help="Resize images to a short side of 8/7 of this, and crop the central square of this size."
    ),
]

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


Eps = Annotated[
    float, typer.Option("--eps", parser=_size, metavar="SIZE", help="Size of the ball, such as 0.3 or 8/255.")
]
Layout = Annotated[
    str, typer.Option("--layout", help="Of the images that the model takes: nchw, (B, C, H, W), or nhwc, (B, H, W, C).")
]
PixelRange = Annotated[
    float, typer.Option("--range", metavar="WHITE", help="What the model takes for white: 1, or 255 for 0 to 255.")
]
OutputKey = Annotated[
    str | None,
    typer.Option("--output", metavar="KEY", help="Key or position of the logits, of a model with several outputs."),
]
RejectClass = Annotated[
    int | None, typer.Option("--reject-class", min=-1, help="The class that stands for a refusal; -1 for none.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command continues it.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images per pass; results do not depend on it.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile for the views that attacks optimise; verdicts do not change."),
]
Weights = Annotated[Path | None, typer.Option("--weights", help="Folder of weights, instead of the shipped ones.")]
FailUnder = Annotated[
    float | None,
    typer.Option(
        "--fail-under",
        min=0,
        max=1,
        help="Exit with 1 if the robust accuracy of a case is below this share, unreliable or incomplete.",
    ),
]
FailingOn = Annotated[
    FailOn, typer.Option("--fail-on", help="What --fail-under compares: the figure, or its interval's lower end.")
]
StopWhen = Annotated[
    str | None,
    typer.Option("--stop-when", help='Take examples in blocks only until, say, "upper<0.05"; also lower>, width<.'),
]
ExecutorName = Annotated[str, typer.Option("--executor", help="local, or ray: many jobs at a time.")]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="Address of a Ray cluster; default: a local one.")
]
GpusPerJob = Annotated[float, typer.Option("--gpus-per-job", min=0, help="Share of a GPU for each worker of ray.")]
RayWorkers = Annotated[int | None, typer.Option("--ray-workers", min=1, help="Default: as many as fit the cluster.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
