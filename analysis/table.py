"""The front as text: rows of a terminal table, CSV and JSON, made from `front.front_table`.

`vqtune front` prints what these functions return.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.flatten import parameters, row_dicts

HEADERS = (
    "trial",
    "perplexity",
    "× baseline",
    "recon_loss",
    "× baseline",
    "no harm",
    "active",
    "usage",
    "bits/frame",
    "seconds",
    "technique",
)

_ABSENT = "–"


def front_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Format headers and cells of the front for a terminal, one row for each row of `table`.

    A value that is not known is a dash.
    """
    return list(HEADERS), [_cells(row) for row in row_dicts(table)]


def to_csv(table: pd.DataFrame) -> str:
    """Write CSV with a header; parameters in dotted columns such as `config.codebook.size`."""
    configs = pd.DataFrame([parameters(config) for config in table["config"]], table.index)
    return table.drop(columns="config").join(configs).to_csv(index=False, lineterminator="\n")


def to_json(table: pd.DataFrame) -> str:
    """Write a JSON list of objects, configs nested; NaN and infinities are null."""
    return json.dumps(_finite(row_dicts(table)), indent=2, ensure_ascii=False, allow_nan=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["role"] == "baseline":
        technique = "baseline" if row["on_front"] else "baseline (not on the front)"
    else:
        technique = row["technique"]
    return [
        row["trial_id"],
        _number(row["perplexity"], ".1f"),
        _number(row["perplexity_x"], ".2f"),
        _number(row["recon_loss"], ".4g"),
        _number(row["recon_loss_x"], ".3f"),
        _ABSENT if math.isnan(row["recon_loss_x"]) else "yes" if row["harmless"] else "no",
        _number(row["active_codes"], ".0f"),
        _number(row["usage"], ".1%"),
        _number(row["bits_per_frame"], ".2f"),
        _number(row["seconds"], ".0f"),
        technique,
    ]


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else _ABSENT


def _finite(value: Any) -> Any:
    """Put None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
