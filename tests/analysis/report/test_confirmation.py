from __future__ import annotations

import math

import pandas as pd
import pytest
from report_parts import confirmed_table, example_run
from run_folder import RunFolder

from analysis.findings import find
from analysis.records import read_run
from analysis.report.confirmation import Confirmation, confirmation
from analysis.terms import terms


def of(folder: RunFolder, table: pd.DataFrame | None) -> Confirmation | None:
    return confirmation(find(read_run(folder.path), None, table, None))


def test_the_winners_curse_is_the_mean_change_of_the_finalists(run_folder: RunFolder) -> None:
    table = confirmed_table(
        [
            ("t0013", "search", 400.0, 360.0),
            ("t0002", "search", 300.0, 294.0),
            ("baseline", "baseline", 10.0, 20.0),  # no finalist
        ]
    )
    found = of(example_run(run_folder), table)
    assert found is not None
    assert found.sentences[0] == (
        "Searched values were better than confirmed by 6.6% in perplexity and 4.2% in recon_loss, "
        "on average over 2 finalists: the winner's curse."
    )
    assert found.sentences[1].startswith("Take t0013: perplexity 360")
    first = found.finalists[0]
    assert first.changes == ("−40.0", "+0.01")
    assert first.confirmed == ("360 ± 7.2", "0.24 ± 0.0048")
    assert first.chance == "70%"


def test_moves_lead_from_the_searched_to_the_confirmed_point(run_folder: RunFolder) -> None:
    found = of(example_run(run_folder), confirmed_table([("t0013", "search", 400.0, 360.0)]))
    assert found is not None
    [move] = found.moves
    assert move.end[0] < move.start[0]
    assert move.end[1] > move.start[1]
    assert move.left < move.end[0] < move.right
    assert move.right - move.end[0] == pytest.approx(move.end[0] - move.left, abs=0.05)


def test_finalists_that_are_not_done_are_rows_without_points(run_folder: RunFolder) -> None:
    table = confirmed_table([("t0013", "search", 400.0, math.nan)]).assign(
        seeds_complete=0, recon_loss=math.nan, probability=math.nan, on_front=False
    )
    found = of(example_run(run_folder), table)
    assert found is not None
    assert found.moves == ()
    assert found.finalists[0].confirmed[0] == "–"
    assert found.sentences == ("No finalist is confirmed: none is on the front of the means.",)


def test_terms_may_ask_for_what_was_not_confirmed(run_folder: RunFolder) -> None:
    records = read_run(example_run(run_folder).path)
    asked = terms(records.spec, objectives=["seconds:min"])
    table = confirmed_table([("t0013", "search", 400.0, 360.0)])
    assert confirmation(find(records, None, table, asked)) is not None


def test_nothing_confirmed_is_no_section(run_folder: RunFolder) -> None:
    assert of(example_run(run_folder), None) is None
