"""The command. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import errno
import io
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vqtune import __version__
from vqtune.run_options import FOLDER, cluster_options, run_options
from vqtune.trial_count import TrialCount

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.records import Records
    from trainables.config import TrialConfig
    from vqtune.report import Report

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Commands(click.Group):
    """Turns bad input into one line and exit 2, everywhere."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; what click would tell in four lines is told in one."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # a log shows a line when it is written
        try:
            return super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(BAD_INPUT)
        except click.ClickException as error:
            click.echo(f"Error: {error.format_message()}", err=True)
            sys.exit(BAD_INPUT)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from analysis.errors import RunError  # noqa: PLC0415
        from trainables.errors import InputError  # noqa: PLC0415

        try:
            return super().invoke(ctx)
        except (InputError, RunError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(BAD_INPUT)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has seen enough, as in `| head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(DONE)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" at {error.filename}" if error.filename else ""
            click.echo(
                f"Error: no space left on the disk{where}; what was computed is kept. Make room, "
                "and go on with the same command (a search with --resume)",
                err=True,
            )
            sys.exit(FAILED)
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqtune")
def main() -> None:
    """Search over the techniques that fill a VQ-VAE's codebook.

    Perplexity up, reconstruction loss down: `vqtune search` runs the trials, `vqtune front` shows
    the best, `vqtune confirm` trains them again with new seeds, `vqtune export` writes them and
    `vqtune train` retrains one.
    """


@main.command()
@click.argument("space")
@click.option("--data", type=FOLDER, help="Folder of audio, images or arrays to search on.")
@click.option(
    "--trials",
    type=TrialCount(),
    help="Trials in all, the baseline among them; with --resume also +N, so many more.",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="KIND=AMOUNT",
    help="Start no new trial once all together have taken this much: samples=2e6, "
    "gpu-seconds=3600 or cpu-seconds=7200. May be given for each.",
)
@click.option(
    "--warm-start",
    metavar="RUN",
    help="Begin with what the finished trials of this earlier run have shown.",
)
@click.option("--wandb", metavar="PROJECT", help="Log every trial to this W&B project.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of sampler and trials.")
@run_options
def search(**options: Any) -> None:
    """Search SPACE, a name that `vqtune spaces` lists or a YAML file."""
    from vqtune.printed import make_console, print_front  # noqa: PLC0415
    from vqtune.search import Request  # noqa: PLC0415
    from vqtune.search import search as run_search  # noqa: PLC0415

    console = make_console()
    outcome = run_search(Request(**options), console)
    run = outcome.run.path
    shown = _shown(run)
    if not outcome.finished:
        _end_interrupted(run)
    records = _read(run)
    print_front(records, None, console)
    _end_without_trials(records)
    click.echo(f"Records: {shown}   Optuna journal: {shown}/optuna.journal")
    _end_with_report(records, options["wandb"])
    exported = f"exported/{run.name}"
    export_line = ["export", shown, "--top", "3", "--out", exported]
    click.echo(f"Next:  {_command()} {shlex.join(export_line)}")
    best_config = f"{exported}/01-{_best_id(records)}.yaml"
    click.echo(f"       {_command()} {shlex.join(['train', best_config])}")


@main.command()
@click.argument("config", type=FOLDER)
@click.option("--data", type=FOLDER, help="Folder of other data.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Train everything with so many seeds.",
)
@run_options
def ablate(**options: Any) -> None:
    """Tell which techniques of CONFIG, a TrialConfig YAML, matter on its data.

    Trains it as it is, without each of its techniques, with none, and with each of them alone.
    """
    from vqtune.ablate import TABLE, Request  # noqa: PLC0415
    from vqtune.ablate import ablate as run_ablation  # noqa: PLC0415
    from vqtune.printed import make_console, print_ablation  # noqa: PLC0415

    console = make_console()
    outcome = run_ablation(Request(**options), console)
    run = outcome.run.path
    if not outcome.finished:
        _end_interrupted(run)
    records = _read(run)
    print_ablation(records, console)
    _end_without_trials(records)
    click.echo(f"Records: {_shown(run)}   Table: {_shown(run / TABLE)}")


@main.command()
@click.argument("run")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many of the front, the best first.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Train each with so many new seeds.",
)
@cluster_options
def confirm(**options: Any) -> None:
    """Train the best of RUN and its baseline again, with new seeds.

    A trial that was chosen for its values was lucky as well as good: this shows how much of them
    stays. Run again, it goes on with what is missing; more --top or --seeds are added.
    """
    from vqtune.confirm import TABLE, Request  # noqa: PLC0415
    from vqtune.confirm import confirm as run_confirmation  # noqa: PLC0415
    from vqtune.printed import make_console, print_confirmation  # noqa: PLC0415

    console = make_console()
    outcome = run_confirmation(Request(**options), console)
    run = outcome.run.path
    if not outcome.finished:
        line = shlex.join(sys.argv[1:])
        click.echo(f"Interrupted; everything is saved. Go on with: {_command()} {line}")
        sys.exit(INTERRUPTED)
    print_confirmation(_read(run.parent), console)
    _end_without_trials(_read(run))
    click.echo(f"Records: {_shown(run)}   Table: {_shown(run / TABLE)}")
    click.echo(f"Next:  {_command()} {shlex.join(['export', _shown(run.parent)])}")


@main.command()
@click.argument("space", required=False)
@click.option("--draw", type=click.IntRange(min=1), help="Print this many configs drawn from it.")
def spaces(space: str | None, draw: int | None) -> None:
    """List the spaces, show SPACE, or draw sample configs from it."""
    from vqtune.printed import make_console, print_rows  # noqa: PLC0415
    from vqtune.spaces import available, describe_space, load_space  # noqa: PLC0415

    if space is None:
        if draw is not None:
            raise click.UsageError("--draw needs a SPACE")
        rows = [(s.name, str(len(s.parameter_names())), s.description) for s in available()]
        print_rows(("space", "parameters", "what it searches"), rows, make_console())
        return
    loaded = load_space(space)
    if draw is not None:
        click.echo("---\n".join(config.to_yaml() for config in loaded.draw(draw)), nl=False)
        return
    click.echo(f"{loaded.name}: {loaded.description}")
    settings = ", ".join(f"{k} {v}" for k, v in loaded.search.model_dump().items())
    click.echo(f"search: {settings}")
    print_rows(("parameter", "values", "where"), describe_space(loaded), make_console())


@main.command()
@click.argument("run")
@click.option("--top", type=click.IntRange(min=1), help="Only the best so many.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
@click.option(
    "--constraint",
    help="What a trial has to hold to come first, such as 'recon_loss<=1.0*baseline' or none; "
    "by default what the search asked.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="METRIC:max|min",
    help="One more objective, such as bits_per_frame:min or gpu_seconds:min.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="METRIC=NUMBER",
    help="Order the front by a weighted mean, such as perplexity=2, not by hypervolume.",
)
def front(
    run: str,
    top: int | None,
    form: str,
    constraint: str | None,
    objectives: tuple[str, ...],
    weights: tuple[str, ...],
) -> None:
    """Show RUN's front, best first and why, with the baseline."""
    from analysis.ranking import top_table  # noqa: PLC0415
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from analysis.table import to_csv, to_json  # noqa: PLC0415
    from analysis.terms import terms  # noqa: PLC0415
    from vqtune.printed import make_console, print_front  # noqa: PLC0415

    records = read_run(find_run(run))
    asked = terms(records.spec, constraint, objectives, weights)
    if form == "table":
        print_front(records, top, make_console(), asked)
        return
    table = top_table(records, top, asked)
    click.echo(to_csv(table) if form == "csv" else to_json(table), nl=form == "json")


@main.command()
@click.argument("run")
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
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from analysis.tidy import check_out, tidy, write_tidy  # noqa: PLC0415

    if out is not None:
        check_out(out)
    found = read_run(find_run(run))
    for message in found.skipped:
        click.echo(f"Note: {message}", err=True)
    table = tidy(found)
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    write_tidy(table, out)
    click.echo(f"Written to {out}: {len(table)} rows of {table.shape[1]} columns")


@main.command()
@click.argument("run")
@click.option(
    "--wandb", metavar="PROJECT", help="Log a summary of the search into this W&B project, too."
)
def report(run: str, wandb: str | None) -> None:
    """Write RUN's report: one page that works offline, and its pictures as PNG files."""
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from vqtune.report import report as write_report  # noqa: PLC0415

    folder = find_run(run)
    made = write_report(read_run(folder), _command(), _shown(folder))
    click.echo(made.headline)
    click.echo(f"Report: {_shown(made.page)}   Pictures: {_shown(folder / 'report')}")
    if wandb is not None:
        _summarise(made, wandb)


@main.command()
@click.argument("run")
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
def export(run: str, top: int, out: Path | None, form: str) -> None:
    """Write the best configs of RUN, with their weights and a README.md that tells of them."""
    from analysis.records import find_run, read_run  # noqa: PLC0415
    from vqtune.export import export as run_export  # noqa: PLC0415
    from vqtune.peer_python import best_as_python  # noqa: PLC0415

    if form == "vector-quantize-pytorch" and out is not None:
        raise click.UsageError("--out needs --format yaml, json or python; this format is printed")
    records = read_run(find_run(run))
    if form == "vector-quantize-pytorch":
        click.echo(best_as_python(records, top), nl=False)
        return
    folder = out or Path("exported") / records.run.resolve().name
    made = run_export(records, top, folder, form, _command())
    for item in made:
        click.echo(f"{item.trial_id}: {'  '.join(map(str, item.paths))}")
    click.echo(f"What they are, and how to use them: {folder / 'README.md'}")
    click.echo(f"Retrain one with: {_command()} {shlex.join(['train', str(made[0].config)])}")


@main.command()
@click.argument("config", type=FOLDER)
@click.option("--samples", type=click.IntRange(min=1), help="Training examples to draw.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Train with so many seeds.")
@click.option("--data", type=FOLDER, help="Folder of other data.")
@click.option("--out", type=FOLDER, help="Folder to write to; by default trained/[RUN/]CONFIG.")
def train(
    config: Path, samples: int | None, seeds: int, data: Path | None, out: Path | None
) -> None:
    """Train CONFIG, a TrialConfig as YAML or JSON, in this process; run again to resume.

    With several --seeds, an exported config's claim is held against the seeds that are not its
    own: it is not met where they are worse by more than chance explains, with the rule beside it.
    """
    from trainables.config import TrialConfig  # noqa: PLC0415
    from vqtune.printed import make_console  # noqa: PLC0415
    from vqtune.printed_training import print_claims, print_metrics, print_spread  # noqa: PLC0415
    from vqtune.train import adapted, claim, trained_folder  # noqa: PLC0415

    given = TrialConfig.from_yaml(config)
    folder = out or trained_folder(given, config.stem)
    console = make_console()
    # What was claimed for other samples or data says nothing here.
    claimed = claim(given) if samples is None and data is None else {}
    reports = []
    for seed in range(given.seed, given.seed + seeds):
        trial = adapted(given, samples, data, seed)
        place = folder if seeds == 1 else folder / f"seed-{seed}"
        reports.append(_train_one(trial, place, console))
        print_metrics(reports[-1], claimed if seed == given.seed else {}, console)
        click.echo(f"Written to {place}")
    if seeds > 1:
        print_spread(reports)
        print_claims(claimed, reports[1:])
    if any(report["diverged"] for report in reports):
        sys.exit(FAILED)


def _train_one(trial: TrialConfig, folder: Path, console: Console) -> dict[str, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    from vqtune.train import train as run_train  # noqa: PLC0415

    columns = ("samples", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("samples", total=trial.training.samples)

        def show(samples: int) -> None:
            progress.update(bar, completed=min(samples, trial.training.samples))

        def warn(message: str) -> None:
            console.print(f"Note: {message}", style="yellow", markup=False, highlight=False)

        try:
            return run_train(trial, folder, show, warn)
        except KeyboardInterrupt:
            progress.stop()
            click.echo("Interrupted; run the same command again to go on from the last report.")
            sys.exit(INTERRUPTED)


def _end_interrupted(run: Path) -> NoReturn:
    again = _without_more_trials([part for part in sys.argv[1:] if part != "--resume"])
    if not any(part.split("=")[0] == "--name" for part in again):
        again += ["--name", run.name]
    line = shlex.join([*again, "--resume"])
    click.echo(f"Interrupted; everything is saved. Go on with: {_command()} {line}")
    sys.exit(INTERRUPTED)


def _without_more_trials(arguments: list[str]) -> list[str]:
    """Without `--trials +N`: they are in the run's spec, and would be added once more."""
    kept: list[str] = []
    for argument in arguments:
        if argument.startswith("+") and kept[-1:] == ["--trials"]:
            kept.pop()
        elif not argument.startswith("--trials=+"):
            kept.append(argument)
    return kept


def _end_without_trials(records: Records) -> None:
    """Say where trials tell why they failed, and end where not one was completed."""
    if any(records.trials["state"] == "failed"):
        click.echo(f"Why trials failed: {_shown(records.run)}/trials/*/error.txt")
    if not any(records.trials["state"] == "complete"):
        click.echo("No trial was completed")
        sys.exit(FAILED)


def _end_with_report(records: Records, wandb: str | None) -> None:
    """Write a search's report; whatever happens to it, the search has ended well."""
    from vqtune.run_folder import RunFolder  # noqa: PLC0415
    from vqtune.wandb_link import read_urls  # noqa: PLC0415

    run = RunFolder(records.run)
    if wandb is None and run.is_reported():  # a search that was finished already
        click.echo(f"Report: {_shown(run.report)}")
        return
    try:
        from vqtune.report import report as write_report  # noqa: PLC0415

        made = write_report(records, _command(), _shown(records.run))
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        click.echo(f"Note: the report could not be written: {told}")
        return
    click.echo(f"Report: {_shown(made.page)}")
    if wandb is not None:
        _summarise(made, wandb, offline=not read_urls(records.run))


def _summarise(made: Report, project: str, offline: bool = False) -> None:
    from vqtune.summary_run import log_summary  # noqa: PLC0415

    where = log_summary(made, project, lambda line: click.echo(f"Note: {line}"), offline)
    if where is not None and "://" in where:
        click.echo(f"W&B summary: {where}")
    elif where is not None:
        place = shlex.quote(_shown(Path(where)))
        click.echo(f"W&B summary, kept offline; send it with: wandb sync {place}")


def _read(run: Path) -> Records:
    from analysis.records import read_run  # noqa: PLC0415

    return read_run(run)


def _best_id(records: Records) -> str:
    from analysis.ranking import best  # noqa: PLC0415

    return str(best(records, 1)["trial_id"].iloc[0])


def _command() -> str:
    """This command as the user would type it: its name where the shell finds it."""
    found = shutil.which("vqtune")
    called = Path(sys.argv[0]).absolute()
    if found is not None and Path(found).resolve() == called.resolve():
        return "vqtune"
    return _shown(called)


def _shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main()
