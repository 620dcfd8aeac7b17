"""The flags that commands have in common: where a run stands, and what its trials take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)

_CLUSTER = (
    click.option(
        "--address", help="Address of a running Ray cluster, or auto; by default a local one."
    ),
    click.option(
        "--gpus-per-trial", type=click.FloatRange(min=0), help="GPUs, or a fraction of one."
    ),
    click.option("--cpus-per-trial", type=click.FloatRange(min=0), help="CPUs, one by default."),
)
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
    *_CLUSTER,
    click.option("--resume", is_flag=True, help="Go on with the run of this --name."),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that say where trials run and what they take."""
    return _with(_CLUSTER, command)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these, and the flags that say where a run stands."""
    return _with(_OPTIONS, command)


def _with(options: tuple[Any, ...], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
