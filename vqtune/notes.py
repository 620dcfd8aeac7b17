"""What the user should know, as a line of its own between what a command prints."""

from __future__ import annotations

from rich.console import Console


def note(console: Console, line: str) -> None:
    """Tell what the user should know."""
    console.print(f"Note: {line}", style="yellow", markup=False, highlight=False)
