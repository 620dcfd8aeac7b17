"""The report at a search's end, and a summary for W&B: neither may fail what has ended well."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainables.errors import named
from vqtune.commands.endings import command, shown

if TYPE_CHECKING:
    from analysis.records import Records
    from vqtune.report import Report


def end_with_report(records: Records, wandb: str | None) -> None:
    """Write a search's report; whatever happens to it, the search has ended well."""
    from vqtune.run_folder import RunFolder  # noqa: PLC0415
    from vqtune.wandb_link import read_urls  # noqa: PLC0415

    run = RunFolder(records.run)
    if wandb is None and run.is_reported():  # a search that was finished already
        click.echo(f"Report: {shown(run.report)}")
        return
    try:
        from vqtune.report import report as write_report  # noqa: PLC0415

        made = write_report(records, command(), shown(records.run), trust=True)
    except Exception as error:
        click.echo(f"Note: the report could not be written: {named(error)}")
        return
    click.echo(f"Report: {shown(made.page)}")
    if wandb is not None:
        summarise(made, wandb, offline=not read_urls(records.run))


def summarise(made: Report, project: str, offline: bool = False) -> None:
    """Log the summary of a search into a W&B project, and say where it is."""
    from vqtune.summary_run import log_summary  # noqa: PLC0415

    where = log_summary(made, project, lambda line: click.echo(f"Note: {line}"), offline)
    if where is not None and "://" in where:
        click.echo(f"W&B summary: {where}")
    elif where is not None:
        place = shlex.quote(shown(Path(where)))
        click.echo(f"W&B summary, kept offline; send it with: wandb sync {place}")
