"""A run as one tidy table, written and read back."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_folder import RunFolder

from analysis.errors import RunError
from analysis.records import METRICS, read_run
from analysis.tidy import check_out, tidy, write_tidy

FIRST = ["trial_id", "role", "state", "reason", "last", *METRICS]


@pytest.fixture
def run(run_folder: RunFolder, config: dict[str, Any]) -> RunFolder:
    """A baseline, a trial with a technique more that was stopped, and one that is silent yet."""
    run_folder.trial(
        "base", {"samples": 500}, {"samples": 1000, "perplexity": 50.0}, role="baseline"
    )
    config["codebook"] |= {"respawn": {"period": 100, "threshold": 0.1}, "cosine": {}}
    config["codebook"]["size"] = 64
    run_folder.trial(
        "rich",
        {"samples": 250, "timestamp": 1_700_000_001, "streams": [1], "deep": {"er": 3}},
        {"samples": 500, "recon_loss": math.inf, "perplexity": math.nan, "done": True}
        | {"reason": "stopped at 500 samples", "diverged": True, "timestamp": 1_700_000_002},
        config=config,
    )
    run_folder.trial("silent")
    return run_folder


def table(run: RunFolder) -> pd.DataFrame:
    return tidy(read_run(run.path))


def test_each_report_is_a_row(run: RunFolder) -> None:
    found = table(run)
    assert list(found)[: len(FIRST)] == FIRST
    assert found["trial_id"].tolist() == ["base", "base", "rich", "rich", "silent"]
    assert found["samples"].tolist()[:4] == [500, 1000, 250, 500]
    assert found["perplexity"].tolist()[:3] == [40, 50, 40]
    assert found["seconds"].tolist()[:2] == [5, 10]
    assert found["deep/er"].tolist()[2] == 3
    assert found["role"].tolist() == ["baseline"] * 2 + ["search"] * 3
    assert found["state"].tolist() == ["complete"] * 2 + ["diverged"] * 2 + ["running"]
    assert found["reason"].tolist()[2:] == ["stopped at 500 samples"] * 2 + [""]
    assert found["done"].tolist() == [False, False, False, True, False]
    assert found["diverged"].tolist() == [False, False, False, True, False]


def test_a_silent_trial_has_one_row_without_metrics(run: RunFolder) -> None:
    row = table(run).iloc[-1]
    assert row[list(METRICS)].isna().all()
    assert row["config.codebook.size"] == 512


def test_the_last_rows_are_the_trials(run: RunFolder) -> None:
    found = table(run)
    records = read_run(run.path)
    last = found[found["last"]].reset_index(drop=True)
    assert last["trial_id"].tolist() == records.trials["trial_id"].tolist()
    for name in METRICS:
        np.testing.assert_array_equal(last[name], records.trials[name])


def test_parameters_stand_in_their_branch(run: RunFolder) -> None:
    found = table(run)
    assert found["config.codebook.size"].tolist() == [512, 512, 64, 64, 512]
    period = found["config.codebook.respawn.period"]
    assert period.isna().tolist() == [True, True, False, False, True]
    assert (str(period.dtype), period[2]) == ("Int64", 100)
    assert found["config.codebook.cosine"].tolist()[2:4] == [True, True]
    assert found["config.codebook.cosine"].isna().sum() == 3
    assert found["config.model.strides"].tolist() == ["[2, 2]"] * 5
    assert "config.codebook.entropy" not in found


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "Int64", [1, 2]),
        ([1, 2.5], "float64", [1.0, 2.5]),
        ([2**70, 1], "float64", [2.0**70, 1.0]),
        ([True, False], "boolean", [True, False]),
        (["a", "b"], "str", ["a", "b"]),
        (["a", 1], "str", ['"a"', "1"]),
        ([True, 1], "str", ["true", "1"]),
        ([[1, "x"], []], "str", ['[1, "x"]', "[]"]),
        ([[1], "auto"], "str", ["[1]", '"auto"']),
        ([math.inf, 1.0], "float64", [math.inf, 1.0]),
    ],
)
def test_a_parameter_is_of_one_type(
    values: list[Any], dtype: str, expected: list[Any], run_folder: RunFolder, tmp_path: Path,
    config: dict[str, Any],
) -> None:  # fmt: skip
    for i, value in enumerate(values):
        config["codebook"]["new"] = {"value": value}
        run_folder.trial(f"t{i}", {"samples": 10}, config=config)
    run_folder.trial("without", {"samples": 10})
    found = table(run_folder)
    column = found["config.codebook.new.value"]
    assert str(column.dtype) == dtype
    assert column.tolist()[:2] == expected
    assert column.isna().tolist() == [False, False, True]
    write_tidy(found, tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), found)


def test_parquet_reads_back(run: RunFolder, tmp_path: Path) -> None:
    found = table(run)
    write_tidy(found, tmp_path / "new" / "out.parquet")
    back = pd.read_parquet(tmp_path / "new" / "out.parquet")
    pd.testing.assert_frame_equal(back, found)
    assert math.isinf(back["recon_loss"][3])
    assert math.isnan(back["perplexity"][3])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.parquet"]


def test_csv_reads_back(run: RunFolder, tmp_path: Path) -> None:
    found = table(run)
    write_tidy(found, tmp_path / "out.csv")
    back = pd.read_csv(tmp_path / "out.csv", keep_default_na=True)
    assert list(back) == list(found)
    for name in METRICS:
        np.testing.assert_array_equal(back[name], found[name])
    assert back["config.codebook.respawn.threshold"].tolist()[2:4] == [0.1, 0.1]


def test_a_run_without_trials_is_an_empty_table(run_folder: RunFolder, tmp_path: Path) -> None:
    found = table(run_folder)
    assert found.empty
    assert list(found)[: len(FIRST)] == FIRST
    write_tidy(found, tmp_path / "out.parquet")
    assert list(pd.read_parquet(tmp_path / "out.parquet")) == list(found)


def test_a_run_is_read_while_it_is_written(run: RunFolder) -> None:
    whole = table(run)
    path = run.path / "trials" / "trial_rich" / "result.json"
    text = path.read_text()
    for cut in [*range(0, len(text), 29), text.index("\n"), text.index("\n") + 1]:
        path.write_text(text[:cut])
        found = table(run)
        complete = text[:cut].count("\n") + (text[cut : cut + 1] == "\n")
        assert (found["trial_id"] == "rich").sum() == max(1, complete)
        pd.testing.assert_series_equal(
            found["samples"][found["trial_id"] == "base"],
            whole["samples"][whole["trial_id"] == "base"],
            check_index=False,
        )


def test_a_number_beyond_all_floats_costs_its_line_only(run_folder: RunFolder) -> None:
    folder = run_folder.trial("a", {"samples": 10}, {"samples": 20})
    line = json.dumps({"trial_id": "a", "samples": 30, "perplexity": 10**400})
    with (folder / "result.json").open("a") as file:
        file.write(line + "\n")
    assert table(run_folder)["samples"].tolist() == [10, 20]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.json", "out.json: found suffix '.json', allowed .parquet or .csv"),
        ("out", "out: found suffix '', allowed .parquet or .csv"),
        ("there.csv", "there.csv: exists; allowed: another name"),
        ("there.csv/out.csv", "out.csv: cannot be written: "),
    ],
)
def test_a_place_that_will_not_do_is_told(
    name: str, message: str, run: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(RunError, match=re.escape(message)):
        write_tidy(table(run), tmp_path / name)
    assert (tmp_path / "there.csv").read_text() == "mine"
    check_out(tmp_path / "free.csv")
