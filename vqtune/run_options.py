"""The flags that `search` and `ablate` have in common: where a run stands and what trials take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)

_OPTIONS = (
    click.option(
        "--samples", type=click.IntRange(min=1), help="Training examples of a full trial."
    ),
    click.option("--name", help="Name of the run; by default what it is made of and the time."),
    click.option(
        "--storage",
        type=FOLDER,
        default=Path("runs"),
        show_default=True,
        help="Folder of the runs.",
    ),
    click.option(
        "--address", help="Address of a running Ray cluster, or auto; by default a local one."
    ),
    click.option(
        "--gpus-per-trial", type=click.FloatRange(min=0), help="GPUs, or a fraction of one."
    ),
    click.option("--cpus-per-trial", type=click.FloatRange(min=0), help="CPUs, one by default."),
    click.option("--resume", is_flag=True, help="Go on with the run of this --name."),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these flags, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
