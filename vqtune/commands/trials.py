"""The commands that train trials into a run: search, ablate, confirm."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from vqtune.commands.endings import (
    INTERRUPTED,
    best_id,
    command,
    end_interrupted,
    end_without_trials,
    read,
    shown,
)
from vqtune.commands.reporting import end_with_report
from vqtune.lane_choice import Lanes
from vqtune.run_options import FOLDER, cluster_options, run_options
from vqtune.trial_count import TrialCount
from vqtune.user_terms import user_terms

if TYPE_CHECKING:
    from vqtune.run_folder import RunFolder


@click.command()
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
@click.option(
    "--keep-checkpoints",
    is_flag=True,
    help="Keep also the checkpoints of trials that were stopped and that others dominate.",
)
@click.option(
    "--lanes",
    type=Lanes(),
    default="auto",
    show_default=True,
    help="Train up to N trials together in one process a GPU (without GPUs, one a CPU); auto "
    "measures on a GPU what is fastest, and is off without one.",
)
@run_options
def search(**options: Any) -> None:
    """Search SPACE, a name that `vqtune spaces` lists or a YAML file."""
    from vqtune.printed import make_console, print_front  # noqa: PLC0415
    from vqtune.search import Request  # noqa: PLC0415
    from vqtune.search import search as run_search  # noqa: PLC0415

    console = make_console()
    outcome = run_search(Request(**options), console)
    run = outcome.run.path
    if not outcome.finished:
        end_interrupted(run)
    records = read(run)
    print_front(records, None, console)
    end_without_trials(records)
    place = shown(run)
    click.echo(f"Records: {place}   Optuna journal: {place}/optuna.journal")
    end_with_report(records, options["wandb"])
    _send(outcome.run)
    exported = f"exported/{run.name}"
    export_line = ["export", place, "--top", "3", "--out", exported]
    click.echo(f"Next:  {command()} {shlex.join(['confirm', outcome.run.remote or place])}")
    click.echo(f"       {command()} {shlex.join(export_line)}")
    best_config = f"{exported}/01-{best_id(records)}.yaml"
    click.echo(f"       {command()} {shlex.join(['train', best_config])}")


@click.command()
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
        end_interrupted(run)
    records = read(run)
    print_ablation(records, console)
    end_without_trials(records)
    _send(outcome.run)
    click.echo(f"Records: {shown(run)}   Table: {shown(run / TABLE)}")


def _send(run: RunFolder) -> None:
    """Bring what a run's URI lacks there, and say where it is."""
    from vqtune.mirror import send_all  # noqa: PLC0415

    if run.remote is not None:
        send_all(run, lambda line: click.echo(f"Note: {line}"))
        click.echo(f"Stored: {run.remote}")


@click.command()
@click.argument("run")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many of the ranking, the best first.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Train each with so many new seeds.",
)
@cluster_options
@user_terms
def confirm(**options: Any) -> None:
    """Train the best of RUN and its baseline again, with new seeds.

    A trial that was chosen for its values was lucky as well as good: this shows how much of them
    stays. Run again, it goes on with what is missing; more --top or --seeds are added. Of a RUN at
    a URI, it is kept there as well.
    """
    from vqtune.confirm import TABLE, Request  # noqa: PLC0415
    from vqtune.confirm import confirm as run_confirmation  # noqa: PLC0415
    from vqtune.printed import make_console, print_confirmation  # noqa: PLC0415

    console = make_console()
    outcome = run_confirmation(Request(**options), console)
    run = outcome.run.path
    if not outcome.finished:
        line = shlex.join(sys.argv[1:])
        click.echo(f"Interrupted; everything is saved. Go on with: {command()} {line}")
        sys.exit(INTERRUPTED)
    print_confirmation(read(run.parent), console)
    end_without_trials(read(run))
    _send(outcome.run)
    click.echo(f"Records: {shown(run)}   Table: {shown(run / TABLE)}")
    click.echo(f"Next:  {command()} {shlex.join(['export', shown(run.parent)])}")
