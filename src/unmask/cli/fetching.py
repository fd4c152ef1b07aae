"""The command that gets weights which others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.console import say
from unmask.cli.run_commands import app
from unmask.errors import UnmaskError

__all__ = ["app", "fetch"]


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="mobilenet_v2, the classifier of the ImageNet cases.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="model.safetensors of google/mobilenet_v2_1.0_224, instead of a download."),
    ] = None,
) -> None:
    """Put weights that others trained into UNMASK_HOME.

    Example: [bold]unmask fetch mobilenet_v2[/bold]
    """
    from unmask.cases.case import pretrained
    from unmask.weights.mobilenet import download, make_mobilenet_v2

    if name != "mobilenet_v2":
        raise UnmaskError(f"nothing to fetch under {name!r}; there is: mobilenet_v2")
    path = pretrained(name)
    if path.exists():
        raise UnmaskError(f"{path} is there already", "delete it first, if it is to be replaced")
    make_mobilenet_v2(checkpoint or download(), path)
    say(f"Weights: {path}")
