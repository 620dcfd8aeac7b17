"""The complete trials of a run as a table: the front, the best of it, the baseline beside them.

`vqtune front` prints it and `vqtune export` picks from it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.front import nondominated, objectives
from analysis.records import Records
from analysis.technique import PLAIN, technique_summary

COLUMNS = (
    "trial_id",
    "role",
    "on_front",
    "perplexity",
    "perplexity_x",
    "recon_loss",
    "recon_loss_x",
    "harmless",
    "active_codes",
    "usage",
    "bits_per_frame",
    "seconds",
    "technique",
    "config",
)


def front_table(records: Records) -> pd.DataFrame:
    """List the front among the complete trials, and the baseline, by ascending recon_loss.

    The baseline is a row whether or not it is on the front; there is none where it did not
    complete. Columns: those in COLUMNS. `perplexity_x` and `recon_loss_x` are ratios to the
    baseline's values, NaN without one; `harmless` says that recon_loss is at most the
    baseline's; `technique` tells in words what differs from the baseline, or from the plain
    VQ-VAE without one; `config` is the trial's nested config.
    """
    trials = records.trials[records.trials["state"] == "complete"]
    goals = objectives(records.spec)
    values = trials.reindex(columns=[goal.name for goal in goals]).to_numpy(dtype=np.float64)
    on_front = nondominated(values, [goal.direction for goal in goals])
    baseline = trials[trials["role"] == "baseline"].head(1)
    perplexity, recon_loss = (
        float(baseline[name].iloc[0]) if len(baseline) else np.nan
        for name in ("perplexity", "recon_loss")
    )
    configs = [records.configs[trial_id] for trial_id in trials["trial_id"]]
    plain = records.configs[baseline["trial_id"].iloc[0]] if len(baseline) else PLAIN
    table = trials.assign(
        on_front=on_front,
        perplexity_x=trials["perplexity"] / perplexity,
        recon_loss_x=trials["recon_loss"] / recon_loss,
        harmless=trials["recon_loss"] <= recon_loss,
        technique=[technique_summary(config, plain) for config in configs],
        config=pd.Series(configs, index=trials.index, dtype=object),
    )
    listed = table[on_front | table.index.isin(baseline.index)]
    ordered = listed.sort_values(["recon_loss", "trial_id"], ignore_index=True)
    return ordered[list(COLUMNS)]


def best(records: Records, n: int) -> pd.DataFrame:
    """Pick the first `n` trials of the front, the best first; columns as in `front_table`.

    Harmless trials come first, by descending perplexity: the most codes at no cost. The others
    follow by ascending recon_loss, so that what harms least comes first; without a complete
    baseline all are among these.
    """
    table = front_table(records)
    front = table[table["on_front"]]
    by_gain = front[front["harmless"]].sort_values("perplexity", ascending=False, kind="stable")
    by_harm = front[~front["harmless"]]
    return front.loc[[*by_gain.index, *by_harm.index][:n]].reset_index(drop=True)


def top_table(records: Records, top: int | None) -> pd.DataFrame:
    """The front's best `top` trials, all where None, with the baseline beside them."""
    table = front_table(records)
    if top is None:
        return table
    chosen = best(records, top)
    beside = (table["role"] == "baseline") & ~table["trial_id"].isin(chosen["trial_id"])
    return pd.concat([chosen, table[beside]], ignore_index=True)
