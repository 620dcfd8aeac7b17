"""`vqtune front --watch`: follows a search from another terminal, by what lies in its run.

It reads, and writes nothing; the search does not know of it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from analysis.records import Records, read_run
from vqtune.printed import printed_text
from vqtune.run_folder import LOCK

# Seconds between two looks: at least, at most, and how many times as long as a look takes.
_LEAST, _MOST, _TIMES = 2.0, 60.0, 10.0
# Seconds without a change after which nobody is at work in a run that is not locked: a search on
# another host may be, where the file system does not pass locks on.
_QUIET = 20.0


def watch(run: Path, show: Callable[[Records, Console], None], console: Console) -> None:
    """Show a run again and again until its search has ended, or until Ctrl-C.

    Args:
        run: its folder.
        show: prints what is to be seen of its records.
        console: on a terminal it is drawn in place, elsewhere printed when it has changed.
    """
    try:
        with _screen(console) as draw:
            before, changed = "", time.monotonic()
            while True:
                working = at_work(run)  # before the look, so that this sees what was written last
                began = time.monotonic()
                records = read_run(run)
                shown = printed_text(partial(show, records), console)
                told = f"{shown}{len(records.reports)}"
                if told != before:
                    before, changed = told, began
                pause = min(max(_LEAST, _TIMES * (time.monotonic() - began)), _MOST)
                ended = not working and _ended(records)
                left = not working and not ended and began - changed > _QUIET
                draw(shown, "" if ended or left else f"every {pause:.0f} s; Ctrl-C ends this")
                if left:
                    console.print("Nobody is at work in this run.", style="yellow")
                if ended or left:
                    return
                time.sleep(pause)
    except KeyboardInterrupt:
        return


def at_work(run: Path) -> bool:
    """Whether a search holds the run, as far as this host can tell."""
    try:
        lock = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _ended(records: Records) -> bool:
    states = records.trials["state"]
    return bool(len(states)) and not any(states == "running")


@contextmanager
def _screen(console: Console) -> Iterator[Callable[[str, str], None]]:
    """What takes text to show, and a line about what comes next."""
    if not console.is_terminal:
        last = ""

        def print_changed(shown: str, _: str) -> None:
            nonlocal last
            if shown != last:
                console.out(shown, highlight=False, end="")
                last = shown

        yield print_changed
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:

        def draw(shown: str, next_look: str) -> None:
            line = Text(f"{datetime.now():%H:%M:%S}  {next_look}".rstrip(), style="dim")
            live.update(Group(Text.from_ansi(shown.rstrip()), line), refresh=True)

        yield draw
