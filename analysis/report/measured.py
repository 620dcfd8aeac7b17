"""How it was measured: the search's settings, its space, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from analysis.findings import Findings
from analysis.flatten import flatten, row_dicts
from analysis.report.numbers import metric
from analysis.report.tables import safe_url

_TIDY = ("records.parquet", "records.csv")
_SHOWN = ("samples", "perplexity", "recon_loss", "active_codes", "seconds")


@dataclass(frozen=True)
class TrialRow:
    """One trial of any state: `values` are those of its last report."""

    trial_id: str
    state: str
    values: tuple[str, ...]
    reason: str
    url: str


@dataclass(frozen=True)
class Measured:
    """The section's parts."""

    settings: tuple[tuple[str, str], ...]
    space: str
    trials: tuple[TrialRow, ...]
    columns: tuple[str, ...]
    skipped: tuple[str, ...]
    ends: tuple[tuple[str, int], ...]
    tidy: str


def measured(findings: Findings, wandb_urls: Mapping[str, str]) -> Measured:
    """Tell the search's settings and what became of every trial."""
    records = findings.records
    rows = row_dicts(records.trials)
    lost = [row for row in rows if row["state"] in ("failed", "diverged")]
    reasons = Counter(f"{row['state']}: {row['reason'] or 'no reason was kept'}" for row in lost)
    return Measured(
        settings=tuple(_settings(records.spec)),
        space=_yaml(records.spec.get("space")),
        trials=tuple(_trial(row, wandb_urls) for row in rows),
        columns=_SHOWN,
        skipped=records.skipped,
        ends=tuple(reasons.most_common()),
        tidy=next((name for name in _TIDY if (records.run / name).is_file()), ""),
    )


def _trial(row: Mapping[str, Any], wandb_urls: Mapping[str, str]) -> TrialRow:
    return TrialRow(
        trial_id=str(row["trial_id"]),
        state=str(row["state"]),
        values=tuple(metric(name, row[name]) for name in _SHOWN),
        reason=str(row["reason"]),
        url=safe_url(wandb_urls, row["trial_id"]),
    )


def _settings(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    space = spec.get("space")
    search = space.get("search") if isinstance(space, Mapping) else None
    own = {key: value for key, value in spec.items() if key not in ("space", "token")}
    every = {**(search if isinstance(search, Mapping) else {}), **own}
    flat = flatten(every, ".")
    return [(name, str(value)) for name, value in flat.items() if value is not None]


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)) if value else ""
