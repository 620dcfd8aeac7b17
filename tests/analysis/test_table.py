"""The front as terminal rows, CSV and JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest
from run_folder import CONFIG, RunFolder

from analysis.ranking import COLUMNS, front_table
from analysis.records import read_run
from analysis.table import front_rows, to_csv, to_json


@pytest.fixture
def table(run_folder: RunFolder, config: dict[str, Any]) -> pd.DataFrame:
    run_folder.complete("base", 40.0, 0.5, role="baseline")
    config["codebook"]["commitment"]["beta"] = 2.0
    run_folder.complete("a", 200.0, 0.45, config=config)
    run_folder.complete("b", 300.0, 0.6)
    return front_table(read_run(run_folder.path))


@pytest.fixture
def without_baseline(run_folder: RunFolder) -> pd.DataFrame:
    run_folder.trial("a", {"samples": 1000, "active_codes": float("nan")})
    return front_table(read_run(run_folder.path))


def test_terminal_rows(table: pd.DataFrame) -> None:
    headers, rows = front_rows(table)
    assert headers == [
        *("#", "trial", "perplexity", "× baseline", "recon_loss", "× baseline", "no harm"),
        *("active", "technique", "why here"),
    ]
    first = "dominates most beyond the baseline: 100% of the front's hypervolume; lowest recon_loss"
    assert rows == [
        ["1", "a", "200.0", "5.00", "0.45", "0.900", "yes", "50", "β=2",
         first.replace("lowest", "highest perplexity within the constraint; lowest")],
        ["2", "base", "40.0", "1.00", "0.5", "1.000", "yes", "50",
         "baseline (not on the front)", "dominated by a"],
        ["3", "b", "300.0", "7.50", "0.6", "1.200", "no", "50", "plain",
         "violates recon_loss <= 1*baseline by 20%; highest perplexity"],
    ]  # fmt: skip


def test_where_room_is_scarce_ratios_are_left_out(table: pd.DataFrame) -> None:
    headers, rows = front_rows(table, ["perplexity", "bits_per_frame"], wide=False)
    assert headers == [
        *("#", "trial", "perplexity", "recon_loss", "no harm", "bits_per_frame"),
        *("technique", "why here"),
    ]
    assert rows[0][:-1] == ["1", "a", "200.0", "0.45", "yes", "5.3", "β=2"]


def test_unknown_values_are_dashes(without_baseline: pd.DataFrame) -> None:
    _, rows = front_rows(without_baseline)
    assert [row[:-1] for row in rows] == [
        ["1", "a", "40.0", "–", "0.5", "–", "–", "–", "plain"],
    ]


def test_csv_reads_back(table: pd.DataFrame) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table)))
    plain = [name for name in COLUMNS if name != "config"]
    pd.testing.assert_frame_equal(back[plain], table[plain], check_dtype=False)
    assert back["config.codebook.commitment.beta"].tolist() == [2.0, 0.25, 0.25]
    assert "config.codebook.respawn" not in back


def test_json_reads_back_with_whole_configs(table: pd.DataFrame) -> None:
    back = json.loads(to_json(table))
    assert [row["trial_id"] for row in back] == ["a", "base", "b"]
    assert list(back[0]) == list(COLUMNS)
    assert back[0]["on_front"] is True
    assert back[0]["perplexity"] == 200.0
    assert back[1]["config"] == CONFIG


def test_json_has_no_nan(without_baseline: pd.DataFrame) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    (row,) = json.loads(to_json(without_baseline), parse_constant=refuse)
    assert row["recon_loss_x"] is None
    assert row["active_codes"] is None
    assert row["harmless"] is False


def test_an_empty_front_is_a_header_and_an_empty_list(run_folder: RunFolder) -> None:
    empty = front_table(read_run(run_folder.path))
    assert front_rows(empty)[1] == []
    assert to_csv(empty) == ",".join(name for name in COLUMNS if name != "config") + "\n"
    assert json.loads(to_json(empty)) == []
