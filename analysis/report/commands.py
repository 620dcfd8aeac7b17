"""The shell lines that the report tells its reader to run next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Commands:
    """Lines as a user would type them, in the folder in which the report was asked for.

    Attributes:
        confirm: retrains the finalists with new seeds.
        export: writes the best configs.
        retrain: trains the best of them, by the path that `export` gives it.
        front: prints the front.

    """

    confirm: str
    export: str
    retrain: str
    front: str
