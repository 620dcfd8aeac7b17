"""How trials with a technique learn: medians and quartiles of those that report."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from run_folder import CONFIG, RunFolder

from analysis.curves import COLUMNS, technique_curves
from analysis.records import read_run


def trials(folder: RunFolder, technique: dict[str, Any] | None, ends: dict[int, float]) -> None:
    """Trials that report a perplexity of their number times the samples, up to their ends."""
    config = deepcopy(CONFIG)
    config["codebook"]["respawn"] = technique
    for number, end in ends.items():
        samples = np.arange(250, end + 1, 250).tolist()
        reports = [{"samples": at, "perplexity": number * at} for at in samples]
        folder.trial(f"t{number:02}", *reports, config=config)


def test_medians_and_quartiles_of_those_that_report(run_folder: RunFolder) -> None:
    trials(run_folder, {"period": 100}, {1: 250, 2: 1000, 3: 1000, 4: 1000, 5: 500})
    trials(run_folder, None, {11: 250, 12: 500, 13: 500, 14: 500})
    table = technique_curves(read_run(run_folder.path))
    assert tuple(table.columns) == COLUMNS
    assert set(table["technique"]) == {"respawn"}
    assert set(table["metric"]) == {"perplexity", "recon_loss"}
    curves = table[table["metric"] == "perplexity"].set_index(["on", "samples"])
    assert curves["median"].to_dict() == {
        (True, 250): 3 * 250,
        (True, 500): 3.5 * 500,
        (True, 750): 3 * 750,
        (True, 1000): 3 * 1000,
        (False, 250): 12.5 * 250,
        (False, 500): 13 * 500,
    }
    assert curves.loc[(True, 250), ["low", "high"]].tolist() == [2 * 250, 4 * 250]
    assert curves["trials"].tolist() == [5, 4, 3, 3, 4, 3]
    assert curves["share"].tolist() == pytest.approx([1, 0.8, 0.6, 0.6, 1, 0.75])


def test_points_of_fewer_than_three_trials_are_left_out(run_folder: RunFolder) -> None:
    trials(run_folder, {"period": 100}, {1: 1000, 2: 1000, 3: 250})
    trials(run_folder, None, {11: 500, 12: 500, 13: 500})
    table = technique_curves(read_run(run_folder.path))
    assert set(table.loc[table["on"], "samples"]) == {250}
    assert set(table.loc[~table["on"], "samples"]) == {250, 500}


def test_a_technique_without_a_curve_on_one_side_has_none(run_folder: RunFolder) -> None:
    trials(run_folder, {"period": 100}, {1: 1000, 2: 1000})
    trials(run_folder, None, {11: 500, 12: 500, 13: 500})
    assert technique_curves(read_run(run_folder.path)).empty
