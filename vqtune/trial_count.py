"""How many trials a search is to have: `--trials 64`, or `--trials +16` for so many more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class More:
    """So many trials more."""

    trials: int


class TrialCount(click.ParamType):  # type: ignore[type-arg] # generic only of late
    """N or +N on the command line."""

    name = "N|+N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | More:
        """The number of trials, or how many more."""
        text = str(value)
        number = text.removeprefix("+")
        if not (number.isascii() and number.isdigit() and int(number) >= 1):
            self.fail(f"found {text!r}; allowed: N from 1, or +N with --resume", param, ctx)
        return More(int(number)) if text.startswith("+") else int(number)
