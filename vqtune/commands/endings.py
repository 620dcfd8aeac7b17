"""How commands end: exit codes, what to do next, and this command as the user would type it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from analysis.records import Records

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def end_interrupted(run: Path) -> NoReturn:
    """Say how to go on, and end."""
    again = without_more_trials([part for part in sys.argv[1:] if part != "--resume"])
    if not any(part.split("=")[0] == "--name" for part in again):
        again += ["--name", run.name]
    line = shlex.join([*again, "--resume"])
    click.echo(f"Interrupted; everything is saved. Go on with: {command()} {line}")
    sys.exit(INTERRUPTED)


def without_more_trials(arguments: list[str]) -> list[str]:
    """Without `--trials +N`: they are in the run's spec, and would be added once more."""
    kept: list[str] = []
    for argument in arguments:
        if argument.startswith("+") and kept[-1:] == ["--trials"]:
            kept.pop()
        elif not argument.startswith("--trials=+"):
            kept.append(argument)
    return kept


def end_without_trials(records: Records) -> None:
    """Say where trials tell why they failed, and end where not one was completed."""
    if any(records.trials["state"] == "failed"):
        click.echo(f"Why trials failed: {shown(records.run)}/trials/*/error.txt")
    if not any(records.trials["state"] == "complete"):
        click.echo("No trial was completed")
        sys.exit(FAILED)


def read(run: Path) -> Records:
    """The records of a run's folder."""
    from analysis.records import read_run  # noqa: PLC0415

    return read_run(run)


def best_id(records: Records) -> str:
    """The first trial of the ranking; there has to be a complete one."""
    from analysis.ranking import best  # noqa: PLC0415

    return str(best(records, 1)["trial_id"].iloc[0])


def command() -> str:
    """This command as the user would type it: its name where the shell finds it."""
    found = shutil.which("vqtune")
    called = Path(sys.argv[0]).absolute()
    if found is not None and Path(found).resolve() == called.resolve():
        return "vqtune"
    return shown(called)


def shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
