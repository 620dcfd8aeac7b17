"""The command. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import click

from vqtune import __version__
from vqtune.commands.configs import spaces, train
from vqtune.commands.endings import BAD_INPUT, DONE, FAILED, INTERRUPTED
from vqtune.commands.results import export, front, records, report
from vqtune.commands.trials import ablate, confirm, search


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
            from trainables.errors import one_line  # noqa: PLC0415

            click.echo(f"Error: {one_line(error.format_message())}", err=True)
            sys.exit(BAD_INPUT)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from analysis.errors import RunError  # noqa: PLC0415
        from trainables.errors import InputError  # noqa: PLC0415
        from trainables.patience import FULL, StorageError  # noqa: PLC0415

        try:
            return super().invoke(ctx)
        except (InputError, RunError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(BAD_INPUT)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has seen enough, as in `| head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(DONE)
            if error.errno not in FULL and not isinstance(error, StorageError):
                raise
            where = f" at {error.filename}" if error.filename else ""
            what = f"no space left on the disk{where}", "Make room, and go"
            if error.errno not in FULL:
                what = f"the storage is away{where}: {error.strerror}", "When it is back, go"
            click.echo(
                f"Error: {what[0]}; what was computed is kept. {what[1]} on with the same command "
                "(a search with --resume)",
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


for _command in (search, spaces, front, records, report, confirm, export, train, ablate):
    main.add_command(_command)

if __name__ == "__main__":
    main()
