"""The commands about spaces and single configs: spaces, train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqtune.commands.endings import FAILED, INTERRUPTED
from vqtune.run_options import FOLDER

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.config import TrialConfig


@click.command()
@click.argument("space", required=False)
@click.option("--draw", type=click.IntRange(min=1), help="Print this many configs drawn from it.")
def spaces(space: str | None, draw: int | None) -> None:
    """List the spaces, show SPACE, or draw sample configs from it."""
    from analysis.errors import printable  # noqa: PLC0415
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
    click.echo(printable(f"{loaded.name}: {loaded.description}"))
    settings = ", ".join(f"{k} {v}" for k, v in loaded.search.model_dump().items())
    click.echo(f"search: {settings}")
    print_rows(("parameter", "values", "where"), describe_space(loaded), make_console())


@click.command()
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

    from vqtune.notes import note  # noqa: PLC0415
    from vqtune.train import train as run_train  # noqa: PLC0415

    columns = ("samples", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("samples", total=trial.training.samples)

        def show(samples: int) -> None:
            progress.update(bar, completed=min(samples, trial.training.samples))

        def warn(message: str) -> None:
            note(console, message)

        try:
            return run_train(trial, folder, show, warn)
        except KeyboardInterrupt:
            progress.stop()
            click.echo("Interrupted; run the same command again to go on from the last report.")
            sys.exit(INTERRUPTED)
