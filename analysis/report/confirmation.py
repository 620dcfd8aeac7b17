"""The confirmed front beside the searched one: what new seeds leave of the winner's lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.confirmed_text import probability, sentences
from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.report.axes import Axis, make_axis
from analysis.report.numbers import ABSENT, is_number, metric, spread
from analysis.report.why import signed

X, Y = "perplexity", "recon_loss"


@dataclass(frozen=True)
class Finalist:
    """One retrained trial: the row of the table.

    `changes` are confirmed means less the searched values; `front` tells whether it was on the
    searched front and whether its means are on theirs, `chance` how probable that is.
    """

    trial_id: str
    part: str
    tag: str
    seeds: str
    searched: tuple[str, str]
    confirmed: tuple[str, str]
    changes: tuple[str, str]
    chance: str
    front: tuple[str, str]
    harmless: str
    technique: str


@dataclass(frozen=True)
class Move:
    """From the searched point to the confirmed one, in per cent, with the ends of its bars."""

    part: str
    tag: str
    start: tuple[float, float]
    end: tuple[float, float]
    left: float
    right: float
    bottom: float
    top: float
    label: str


@dataclass(frozen=True)
class Confirmation:
    """The table, the chart, and what both come to."""

    finalists: tuple[Finalist, ...]
    x: Axis
    y: Axis
    moves: tuple[Move, ...]
    sentences: tuple[str, ...]


def confirmation(findings: Findings) -> Confirmation | None:
    """Compare what was searched with what was confirmed; None where nothing was."""
    if findings.confirmed is None or findings.confirmed.empty:
        return None
    rows = row_dicts(findings.confirmed)
    # Far away as it is, the baseline would leave the finalists' moves no room; the table has it.
    drawn = [row for row in rows if row["role"] != "baseline"] or rows
    x, y = (make_axis(name, _reach(drawn, name), hint=hint) for name, hint in _AXES)
    # A ranking may have been asked for by metrics that were not confirmed.
    known = [goal for goal in findings.objectives if f"{goal.name}_searched" in findings.confirmed]
    moves = [_move(findings, row, x, y) for row in drawn]
    return Confirmation(
        finalists=tuple(_finalist(findings, row) for row in rows),
        x=x,
        y=y,
        moves=tuple(move for move in moves if move is not None),
        sentences=tuple(f"{said}." for said in sentences(findings.confirmed, known)),
    )


_AXES = ((X, "higher"), (Y, "lower"))


def _reach(rows: list[dict[str, Any]], name: str) -> list[float]:
    """All that an axis has to have room for."""
    found = []
    for row in rows:
        mean, deviation = row[name], row[f"{name}_sd"]
        found.append(row[f"{name}_searched"])
        found += [mean - deviation, mean + deviation] if is_number(deviation) else [mean]
    return [float(value) for value in found if is_number(value)]


def _finalist(findings: Findings, row: Mapping[str, Any]) -> Finalist:
    part, tag = findings.cast.mark(row["trial_id"])
    done, asked = int(row["seeds_complete"]), int(row["seeds"])
    return Finalist(
        trial_id=str(row["trial_id"]),
        part=part,
        tag=tag,
        seeds=str(asked) if done == asked else f"{done} of {asked}",
        searched=(metric(X, row[f"{X}_searched"]), metric(Y, row[f"{Y}_searched"])),
        confirmed=(spread(X, row[X], row[f"{X}_sd"]), spread(Y, row[Y], row[f"{Y}_sd"])),
        changes=(signed(X, _change(row, X)), signed(Y, _change(row, Y))),
        chance=probability(row),
        front=(_yes(row["on_front_searched"]), _yes(row["on_front"]) if done else ABSENT),
        harmless=_yes(row["harmless"]) if done else ABSENT,
        technique=str(row["technique"]),
    )


def _yes(value: Any) -> str:
    return "yes" if value is True or (is_number(value) and bool(value)) else "no"


def _change(row: Mapping[str, Any], name: str) -> float:
    return float(row[name]) - float(row[f"{name}_searched"])


def _move(findings: Findings, row: Mapping[str, Any], x: Axis, y: Axis) -> Move | None:
    needed = (row[X], row[Y], row[f"{X}_searched"], row[f"{Y}_searched"])
    if not all(is_number(value) for value in needed):
        return None
    half_x, half_y = (row[f"{n}_sd"] if is_number(row[f"{n}_sd"]) else 0.0 for n in (X, Y))
    part, tag = findings.cast.mark(row["trial_id"])
    return Move(
        part=part,
        tag=tag,
        start=(x.place(row[f"{X}_searched"]), y.place(row[f"{Y}_searched"])),
        end=(x.place(row[X]), y.place(row[Y])),
        left=x.place(row[X] - half_x),
        right=x.place(row[X] + half_x),
        bottom=y.place(row[Y] - half_y),
        top=y.place(row[Y] + half_y),
        label=(
            f"{row['trial_id']}: searched {metric(X, row[f'{X}_searched'])} and "
            f"{metric(Y, row[f'{Y}_searched'])}, confirmed {spread(X, row[X], row[f'{X}_sd'])} and "
            f"{spread(Y, row[Y], row[f'{Y}_sd'])}"
        ),
    )
