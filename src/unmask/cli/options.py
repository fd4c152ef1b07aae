"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Address",
    "Batch",
    "Compile",
    "Device",
    "Engine",
    "Eps",
    "FailUnder",
    "GpusPerJob",
    "Layout",
    "Out",
    "OutputKey",
    "PixelRange",
    "RefuseClass",
    "Run",
    "Seed",
    "StopWhen",
    "Target",
    "Weights",
    "Workers",
]

Target = Annotated[
    str,
    typer.Argument(
        help="case:NAME, path/to/file.py:factory, timm:NAME, FILE.onnx ...: see `unmask list models`.",
        show_default=False,
    ),
]


def _size(given: str) -> float:
    """A number, or a fraction of two.

    >>> _size("0.3"), _size("8/255") == 8 / 255
    (0.3, True)
    """
    whole, slash, part = given.partition("/")
    try:
        return float(whole) / float(part) if slash else float(whole)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{given!r} is no number and no fraction: 0.3 or 8/255, say") from None


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
RefuseClass = Annotated[
    int | None, typer.Option("--refuse-class", min=-1, help="The class that stands for a refusal; -1 for none.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command again continues it.")]
Seed = Annotated[int, typer.Option("--seed", help="All randomness follows from it.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time; results do not depend on it.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile for the views that attacks optimise; verdicts stay as they are."),
]
Weights = Annotated[Path | None, typer.Option("--weights", help="Folder of weights to use instead of those that ship.")]
FailUnder = Annotated[
    float | None,
    typer.Option("--fail-under", min=0, max=1, help="Exit with 1 if less accuracy than this share is left of a case."),
]
StopWhen = Annotated[
    str | None,
    typer.Option("--stop-when", help='Take examples in blocks only until, say, "upper<0.05"; also lower>, width<.'),
]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray: many jobs at a time, on one machine or many.")]
Address = Annotated[str | None, typer.Option("--address", help="Of a Ray cluster; without it one starts here.")]
GpusPerJob = Annotated[float, typer.Option("--gpus-per-job", min=0, help="Share of a GPU for each worker of ray.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Of ray; default as many as there is room for.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
