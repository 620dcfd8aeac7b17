"""An ablation as a table: what each technique is worth, over the seeds.

`vqtune ablate` writes `ablation_table` and prints what the other functions make of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.errors import RunError
from analysis.flatten import row_dicts
from analysis.records import Records

METRICS = ("perplexity", "active_codes", "recon_loss", "usage")
COLUMNS = (
    "variant",
    "kind",
    "technique",
    "trials",
    "seeds",
    "seeds_complete",
    *(name for metric in METRICS for name in (metric, f"{metric}_sd")),
    *(name for metric in METRICS for name in (f"{metric}_change", f"{metric}_change_sd")),
)
HEADERS = ("variant", "seeds", "perplexity", "active", "recon_loss", "Δ perplexity", "Δ recon_loss")

_KINDS = ("config", "without", "baseline", "only")
_REFERENCE = {"without": "config", "only": "baseline"}
_ABSENT = "–"


def ablation_table(records: Records) -> pd.DataFrame:
    """Compare the variants of a run; one row each, columns as in COLUMNS.

    Means and deviations (n - 1) are over the seeds whose trials are complete. A change is to the
    config for a variant `without` a technique, and to the baseline for one that has `only` it:
    mean and deviation of the differences between equal seeds, over those complete in both. What is
    not known is NaN. In each kind the largest effect on perplexity comes first: what costs most
    when it is taken away, what gains most on its own.

    Raises RunError where the run is not an ablation.
    """
    asked = _asked(records)
    complete = records.trials[records.trials["state"] == "complete"].set_index("trial_id")
    metrics = complete.reindex(columns=list(METRICS))

    def values(trials: str) -> pd.DataFrame:
        """The metrics [seeds, metrics] of one variant's trials, NaN where not complete."""
        chosen = metrics.reindex([f"{trials}-s{seed}" for seed in asked["seeds"]])
        return chosen.set_axis(asked["seeds"], axis="index")

    trained = {variant["name"]: values(variant["trials"]) for variant in asked["variants"]}
    rows = []
    for variant in asked["variants"]:
        own = trained[variant["name"]]
        row = {**variant, "variant": variant["name"], "seeds": len(own)}
        row["seeds_complete"] = int(own["recon_loss"].notna().sum())
        other = trained.get(_REFERENCE.get(variant["kind"], ""))
        change = own * math.nan if other is None else own - other
        for metric in METRICS:
            row |= _spread(metric, own[metric]) | _spread(f"{metric}_change", change[metric])
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    effect = table["perplexity_change"].where(table["kind"] != "only", -table["perplexity_change"])
    order = table.assign(kind=table["kind"].map(_KINDS.index), effect=effect)
    ordered = order.sort_values(["kind", "effect"], kind="stable")
    return table.loc[ordered.index].reset_index(drop=True)


def ablation_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Format headers and cells for a terminal, one row for each row of `table`."""
    return list(HEADERS), [_cells(row) for row in row_dicts(table)]


def headlines(table: pd.DataFrame) -> list[str]:
    """Say which technique costs most when it is taken away, and which gives most on its own."""
    told = []
    for kind, sign, found, none in (
        ("without", -1, "Taken away, {} costs most", "Taken away, none costs perplexity"),
        ("only", 1, "On its own, {} gives most", "On its own, none gives perplexity"),
    ):
        rows = table[(table["kind"] == kind) & table["perplexity_change"].notna()]
        if rows.empty:
            continue
        row = row_dicts(rows)[0]  # by the order of the table the one of the largest effect
        if row["perplexity_change"] * sign <= 0:
            told.append(none)
            continue
        [before] = row_dicts(table[table["kind"] == _REFERENCE[kind]])
        told.append(
            f"{found.format(row['technique'])}: perplexity {before['perplexity']:.1f} -> "
            f"{row['perplexity']:.1f} ({_spread_cell(row, 'perplexity_change', '+.1f', '.1f')}), "
            f"recon_loss {before['recon_loss']:.4g} -> {row['recon_loss']:.4g}"
        )
    return told


def notes(records: Records) -> list[str]:
    """Say what stands behind the table: seeds that are not counted, shared and refused variants."""
    asked = _asked(records)
    told = [
        f"Trained once: {variant['name']} is the same config as {variant['trials']}"
        for variant in asked["variants"]
        if variant["trials"] != variant["name"]
    ]
    told += [f"Left out, refused: {line}" for line in asked["refused"]]
    ends = {row["trial_id"]: row for row in row_dicts(records.trials)}
    for trials in dict.fromkeys(variant["trials"] for variant in asked["variants"]):
        for trial_id in (f"{trials}-s{seed}" for seed in asked["seeds"]):
            end = ends.get(trial_id, {"state": "not started", "reason": ""})
            if end["state"] != "complete":
                told.append(f"Not counted: {trial_id}, {end['reason'] or end['state']}")
    return told


def _asked(records: Records) -> dict[str, Any]:
    asked = records.spec.get("ablation")
    if not isinstance(asked, dict):
        raise RunError(
            f"{records.run / 'spec.yaml'}: ablation: found {asked!r}, allowed: what an ablation "
            "has written"
        )
    return asked


def _spread(name: str, values: pd.Series[float]) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_sd": float(values.std(ddof=1))}


def _cells(row: Mapping[str, Any]) -> list[str]:
    complete, seeds = row["seeds_complete"], row["seeds"]
    return [
        row["variant"],
        str(seeds) if complete == seeds else f"{complete} of {seeds}",
        _spread_cell(row, "perplexity", ".1f", ".1f"),
        format(row["active_codes"], ".0f") if math.isfinite(row["active_codes"]) else _ABSENT,
        _spread_cell(row, "recon_loss", ".4g", ".2g"),
        _spread_cell(row, "perplexity_change", "+.1f", ".1f"),
        _spread_cell(row, "recon_loss_change", "+.3g", ".2g"),
    ]


def _spread_cell(row: Mapping[str, Any], name: str, form: str, spread_form: str) -> str:
    mean, deviation = row[name], row[f"{name}_sd"]
    if not math.isfinite(mean):
        return _ABSENT
    told = format(mean, form)
    return f"{told} ± {deviation:{spread_form}}" if math.isfinite(deviation) else told
