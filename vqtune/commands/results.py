"""The commands that read a run: front, records, report, export."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from vqtune.commands.endings import command, shown
from vqtune.commands.reporting import summarise
from vqtune.run_options import FOLDER, Run
from vqtune.user_terms import UserTerms, user_terms


@click.command()
@click.argument("run", type=Run())
@click.option("--top", type=click.IntRange(min=1), help="Only the best so many.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
@click.option(
    "--watch",
    "watched",
    is_flag=True,
    help="Go on showing it while the search is at work, until it ends; Ctrl-C ends this earlier.",
)
@user_terms
def front(
    run: str,
    top: int | None,
    form: str,
    watched: bool,
    terms: UserTerms,
) -> None:
    """Show RUN's front, best first and why, with the baseline."""
    from analysis.errors import printable  # noqa: PLC0415
    from analysis.ranking import top_table  # noqa: PLC0415
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from analysis.table import to_csv, to_json  # noqa: PLC0415
    from vqtune.printed import make_console, print_front  # noqa: PLC0415

    if watched:
        if form != "table":
            raise click.UsageError("--watch needs --format table")
        from vqtune.watch import watch  # noqa: PLC0415

        watch(
            find_run(run),
            lambda records, console: print_front(records, top, console, terms.of(records)),
            make_console(),
        )
        return
    records = read_run(find_run(run))
    asked = terms.of(records)
    if form == "table":
        print_front(records, top, make_console(), asked)
        return
    table = top_table(records, top, asked)
    text = printable(to_csv(table)) if form == "csv" else to_json(table)
    click.echo(text, nl=form == "json")


@click.command()
@click.argument("run", type=Run())
@click.option(
    "--out",
    type=FOLDER,
    metavar="FILE",
    help="A new file, .parquet or .csv; without it, CSV is printed.",
)
def records(run: str, out: Path | None) -> None:
    """Write every report of RUN's trials as one table.

    Also while the search is at work. One row a report, with the trial's parameters, state and cost
    beside the metrics. Rows where the column `last` is true are one row a trial.
    """
    from analysis.errors import printable  # noqa: PLC0415
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from analysis.tidy import check_out, tidy, write_tidy  # noqa: PLC0415

    if out is not None:
        check_out(out)
    found = read_run(find_run(run))
    for message in found.skipped:
        click.echo(f"Note: {message}", err=True)
    table = tidy(found)
    if out is None:
        click.echo(printable(table.to_csv(index=False, lineterminator="\n")), nl=False)
        return
    write_tidy(table, out)
    click.echo(f"Written to {out}: {len(table)} rows of {table.shape[1]} columns")


@click.command()
@click.argument("run", type=Run())
@click.option(
    "--wandb", metavar="PROJECT", help="Log a summary of the search into this W&B project, too."
)
@click.option(
    "--trust",
    is_flag=True,
    help="Import the modules that the run's space names as factories, to show what is inside.",
)
@user_terms
def report(run: str, wandb: str | None, trust: bool, terms: UserTerms) -> None:
    """Write RUN's report: one page that works offline, and its pictures as PNG files."""
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from vqtune.report import report as write_report  # noqa: PLC0415

    folder = find_run(run)
    made = write_report(read_run(folder), command(), shown(folder), terms, trust)
    click.echo(made.headline)
    click.echo(f"Report: {shown(made.page)}   Pictures: {shown(folder / 'report')}")
    if wandb is not None:
        summarise(made, wandb)


@click.command()
@click.argument("run", type=Run())
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many of the front, the best first.",
)
@click.option("--out", type=FOLDER, help="Folder to write to; by default exported/RUN.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json", "python", "vector-quantize-pytorch"]),
    default="yaml",
    show_default=True,
    help="Configs for vqtune train as YAML or JSON; YAML and a program that builds the codebook; "
    "or the codebooks printed as Python for that library.",
)
@user_terms
def export(run: str, top: int, out: Path | None, form: str, terms: UserTerms) -> None:
    """Write the best configs of RUN, with their weights and a README.md that tells of them."""
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from vqtune.export import export as run_export  # noqa: PLC0415
    from vqtune.peer_python import best_as_python  # noqa: PLC0415

    if form == "vector-quantize-pytorch" and out is not None:
        raise click.UsageError("--out needs --format yaml, json or python; this format is printed")
    records = read_run(find_run(run))
    if form == "vector-quantize-pytorch":
        click.echo(best_as_python(records, top, terms.of(records)), nl=False)
        return
    folder = out or Path("exported") / records.run.resolve().name
    made = run_export(records, top, folder, form, command(), terms.of(records))
    for item in made:
        click.echo(f"{item.trial_id}: {'  '.join(map(str, item.paths))}")
    click.echo(f"What they are, and how to use them: {folder / 'README.md'}")
    click.echo(f"Retrain one with: {command()} {shlex.join(['train', str(made[0].config)])}")
