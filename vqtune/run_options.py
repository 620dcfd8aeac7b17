"""The flags that commands have in common: where a run stands, and what its trials take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)


class Storage(click.ParamType):  # type: ignore[type-arg] # generic only of late
    """A folder, as a Path; or a URI, as a string."""

    name = "folder or URI"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path | str:
        """Tell the one from the other."""
        from trainables.remote import is_uri  # noqa: PLC0415

        return value if isinstance(value, Path) or is_uri(value) else Path(value)


class Run(click.ParamType):  # type: ignore[type-arg] # generic only of late
    """A run: its folder, its name under runs, or its URI, of which a copy is fetched to runs."""

    name = "run"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Fetch what is at a URI."""
        from trainables.remote import is_uri  # noqa: PLC0415

        if not is_uri(value):
            return str(value)
        from vqtune.mirror import working_copy  # noqa: PLC0415

        return str(working_copy(value))


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
        type=Storage(),
        default=Path("runs"),
        show_default=True,
        help="Folder of the runs, or a URI as s3://BUCKET/FOLDER.",
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
