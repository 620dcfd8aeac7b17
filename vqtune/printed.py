"""What the commands print of a run: tables, and what they say."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from analysis.ablation import ablation_rows, ablation_table, headlines, notes
from analysis.confirmed import FOLDER, confirmed, read_confirmation
from analysis.confirmed_text import confirmed_rows, left_out, sentences
from analysis.errors import printable
from analysis.front import objectives
from analysis.ranking import top_table
from analysis.records import Records
from analysis.table import front_rows
from analysis.terms import Terms, terms
from vqtune.notes import note

# From so many columns on, a front's table has room for all its numbers.
_WIDE = 130


def print_ablation(records: Records, console: Console) -> None:
    """An ablation's table, and what it says."""
    _print_states(records, console)
    table = ablation_table(records)
    print_rows(*ablation_rows(table), console)
    for line in [*notes(records), *headlines(table)]:
        console.print(line, highlight=False)


def print_confirmation(search: Records, console: Console) -> None:
    """What the confirmation of a search has shown, beside what the search did."""
    found = read_confirmation(search)
    table = confirmed(search, found)
    if found is None or table is None:
        return
    _print_states(found.records, console, f"{search.run.resolve().name}/{FOLDER}")
    goals = objectives(search.spec)
    print_rows(*confirmed_rows(table, goals), console)
    for line in [*left_out(found), *sentences(table, goals)]:
        console.print(line, highlight=False)


def print_front(
    records: Records, top: int | None, console: Console, asked: Terms | None = None
) -> None:
    """The front of a run, or its best `top` trials, with the baseline beside them."""
    asked = asked or terms(records.spec)
    table = top_table(records, top, asked)
    _print_states(records, console)
    complete = records.trials[records.trials["state"] == "complete"]
    if complete.empty:
        yet = " yet" if any(records.trials["state"] == "running") else ""
        console.print(f"No trial has reached its full budget{yet}: there is nothing to rank.")
        return
    if table.empty:
        console.print(f"No trial is on the front: none has finite {', '.join(asked.names)}.")
        return
    console.print(f"Best first: {asked}", highlight=False)
    limit = asked.constraint
    if limit is not None and limit.relative and not any(complete["role"] == "baseline"):
        console.print(f"No baseline is complete, so all hold {limit}.", highlight=False)
    headers, rows = front_rows(table, asked.names, wide=console.width >= _WIDE)
    print_rows(headers, rows, console, texts=2)


def _print_states(records: Records, console: Console, name: str | None = None) -> None:
    for message in records.skipped:
        note(console, message)
    counts = Counter(records.trials["state"])
    states = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    console.print(f"{name or records.run.name}: {states or 'no trials yet'}", highlight=False)


def print_rows(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    console: Console,
    texts: int | None = None,
) -> None:
    """A table without lines; only the last `texts` columns are broken where room is scarce."""
    shown = Table(box=None)
    for i, header in enumerate(headers):
        shown.add_column(header, no_wrap=texts is not None and i < len(headers) - texts)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def make_console() -> Console:
    """The console of a command's output, on a terminal or off it."""
    # Without a terminal rich assumes 80 columns and would break the table's rows.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    # Names of parameters have brackets, which rich would take for its own markup.
    return _Console(width=width, markup=False)


def printed_text(show: Callable[[Console], None], like: Console) -> str:
    """What a function prints, as a console like this one would show it."""
    file = io.StringIO()
    show(
        _Console(
            file=file,
            width=like.width,
            markup=False,
            force_terminal=like.is_terminal,
            no_color=like.no_color,
        )
    )
    return file.getvalue()


class _Console(Console):
    """Prints no character of a run's or a user's that could do something to the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Everything that is printed comes through here; the console's own codes go on."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
