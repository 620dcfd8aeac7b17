"""What the comparison of free and packed proposals counts, and the curves that it predicts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.replay import packing, predicted
from benchmarks.replay.packing import HERE, Stacks, Towards
from benchmarks.replay.predicted import Predicted
from benchmarks.replay.record import REPORTS, recorded_space
from benchmarks.replay.report import GOAL
from benchmarks.replay.table import Table


@pytest.fixture(scope="module")
def table():
    """The recorded table with its forest, and a front of few random proposals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicted, "_DRAWN", 200)
        found = Predicted.read(HERE, recorded_space())
        assert found.full > 0
    return found


def test_a_report_counts_as_its_share_of_what_its_stacks_report():
    """Ten trials of one signature, eight lanes a stack: two stacks, so two reports in ten."""
    stacks = Stacks(lanes=8)
    stacks._running = {str(n): "one" for n in range(10)} | {"alone": "other"}
    for trial_id in stacks._running:
        stacks._count(trial_id)
    assert stacks.trial_reports == 11
    assert stacks.stack_reports == pytest.approx(3)
    assert stacks.free() == {"one": 6, "other": 7}
    stacks._running = {str(n): "one" for n in range(8)}
    assert stacks.free() == {"one": 0}


def test_a_recorded_config_is_predicted_as_it_was_recorded(table):
    table.begin()
    for recorded in range(1, 512, 37):
        row = table.nearest(table.parameters[recorded], np.ones(len(table), dtype=bool))
        curve, true = table.curves[row], table._recorded[recorded]
        for name in ("recon_loss", "perplexity", "usage"):
            np.testing.assert_allclose(curve.metrics[name], true.metrics[name], rtol=1e-4)
        np.testing.assert_array_equal(curve.codes, true.codes)
        assert table.ends[row] == pytest.approx(table._ends[recorded], rel=1e-4)


@pytest.mark.long
def test_towards_the_goal_is_a_smaller_front():
    space = recorded_space()
    goal, whole = Towards.read(HERE, space), Table.read(HERE, space)
    assert goal.full == pytest.approx(GOAL * whole.full)
    assert goal.share(goal.front) == pytest.approx(1 / GOAL)


@pytest.mark.long
def test_the_same_seed_gives_the_same_run_and_every_other_proposal_packs_at_most(
    table, monkeypatch
):
    monkeypatch.setattr(packing, "_opened", {"predicted": table})
    monkeypatch.setattr(packing, "CAP", {"predicted": 3.0})
    runs = [packing.one("predicted", mode, 0, 8, 8) for mode in ("free", "packed", "packed")]
    for run in runs:
        del run["took"]
    free, packed, again = runs
    assert packed == again
    assert free["packed"] == 0 < packed["packed"] <= packed["proposals"] / 2
    for run in runs:
        assert run["stack_reports"] <= run["trial_reports"]


def test_the_medians_are_printed():
    base = {"kind": "recorded", "mode": "free", "workers": 8, "stack_reports": REPORTS * 20.0}
    rows = [
        base | {"reached": reached, "share": share, "trial_reports": REPORTS * lanes * 20}
        for reached, share, lanes in ((10.0, 1.0, 1), (30.0, 1.0, 2), (None, 0.9, 3))
    ]
    cells = [column._cells[0] for column in packing.summary(rows).columns]
    assert cells[:6] == ["recorded", "8", "free", "30.0", "20.0-never", "2/3"]
    assert cells[6:] == ["1.000", "0.950-1.000", "2.00", "20.0"]
