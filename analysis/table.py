"""The front as text: rows of a terminal table, CSV and JSON, made from `ranking.front_table`.

`vqtune front` prints what these functions return.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.flatten import parameters, row_dicts

_ABSENT = "–"


class _Column(NamedTuple):
    header: str
    cell: Callable[[Mapping[str, Any]], str]
    wide: bool  # only where there is room


def front_rows(
    table: pd.DataFrame, objectives: Sequence[str] = (), wide: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Format headers and cells of the front for a terminal, one row for each row of `table`.

    The last two columns are text of any length. A value that is not known is a dash. The metrics
    in `objectives` are shown if they are not anyway. The table is about 100 columns and the text
    if `wide`, else about 50; `to_csv` and `to_json` leave nothing out.
    """
    first = [column for column in _NUMBERS if wide or not column.wide]
    shown = {column.header for column in first}
    more = [_metric(name, ".4g") for name in objectives if name not in shown]
    columns = [*first, *more, *_TEXTS]
    return [c.header for c in columns], [[c.cell(r) for c in columns] for r in row_dicts(table)]


def to_csv(table: pd.DataFrame) -> str:
    """Write CSV with a header; parameters in dotted columns such as `config.codebook.size`."""
    configs = pd.DataFrame([parameters(config) for config in table["config"]], table.index)
    return table.drop(columns="config").join(configs).to_csv(index=False, lineterminator="\n")


def to_json(table: pd.DataFrame) -> str:
    """Write a JSON list of objects, configs nested; NaN and infinities are null."""
    return json.dumps(_finite(row_dicts(table)), indent=2, ensure_ascii=False, allow_nan=False)


def _metric(name: str, form: str, header: str | None = None, wide: bool = False) -> _Column:
    def cell(row: Mapping[str, Any]) -> str:
        return format(row[name], form) if math.isfinite(row[name]) else _ABSENT

    return _Column(header or name, cell, wide)


def _no_harm(row: Mapping[str, Any]) -> str:
    return _ABSENT if math.isnan(row["recon_loss_x"]) else "yes" if row["harmless"] else "no"


def _technique(row: Mapping[str, Any]) -> str:
    if row["role"] == "baseline":
        return "baseline" if row["on_front"] else "baseline (not on the front)"
    return str(row["technique"])


_NUMBERS = (
    _metric("position", "d", "#"),
    _Column("trial", lambda row: str(row["trial_id"]), wide=False),
    _metric("perplexity", ".1f"),
    _metric("perplexity_x", ".2f", "× baseline", wide=True),
    _metric("recon_loss", ".4g"),
    _metric("recon_loss_x", ".3f", "× baseline", wide=True),
    _Column("no harm", _no_harm, wide=False),
    _metric("active_codes", ".0f", "active", wide=True),
)
_TEXTS = (
    _Column("technique", _technique, wide=False),
    _Column("why here", lambda row: str(row["reason"]), wide=False),
)


def _finite(value: Any) -> Any:
    """Put None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
