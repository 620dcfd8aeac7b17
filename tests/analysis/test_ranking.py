"""The order of a run's trials: what comes first and why, and what must not change it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder import CONFIG, SPEC, RunFolder

from analysis.errors import RunError
from analysis.front import nondominated
from analysis.ranking import COLUMNS, best, front_table, ranking, top_table
from analysis.records import METRICS, Records, read_run
from analysis.terms import Terms, terms

Rows = Mapping[str, Sequence[float]]


def made(rows: Rows, objectives: Mapping[str, str] = SPEC["objectives"]) -> Records:
    """Records of complete trials; a row is perplexity and recon_loss, and what else is named."""
    trials = pd.DataFrame({"trial_id": list(rows)})
    trials["role"] = np.where(trials["trial_id"] == "base", "baseline", "search")
    trials["state"] = "complete"
    for name in METRICS:
        trials[name] = np.nan
    trials[["perplexity", "recon_loss", "seconds"]] = [
        [*row, 1.0][:3] if len(row) == 2 else list(row) for row in rows.values()
    ]
    configs = dict.fromkeys(rows, CONFIG)
    spec = SPEC | {"objectives": dict(objectives)}
    return Records(Path("run"), spec, pd.DataFrame(), trials, configs, ())


def asked(records: Records, **more: Any) -> Terms:
    return terms(records.spec, **more)


def order(records: Records, **more: Any) -> list[str]:
    return ranking(records, asked(records, **more))["trial_id"].tolist()


def reasons(records: Records, **more: Any) -> dict[str, str]:
    table = ranking(records, asked(records, **more))
    return dict(zip(table["trial_id"], table["reason"], strict=True))


# From the baseline (0, 1): steps of which `mid` dominates the square of 6 by 0.6.
STAIR = {
    "base": (0.0, 1.0),
    "low": (2.0, 0.2),
    "mid": (6.0, 0.4),
    "high": (10.0, 0.8),
    "behind": (5.0, 0.5),
    "last": (1.0, 0.9),
    "harm": (20.0, 1.1),
    "harmer": (30.0, 1.5),
    "worst": (20.0, 1.2),
}


# --- the order -----------------------------------------------------------------------------------


def test_the_order_of_a_staircase() -> None:
    """In squares of 1 by 0.1: mid 36, then low adds 2 * 2 and high 4 * 2."""
    table = ranking(made(STAIR)).set_index("trial_id")
    assert table.index.tolist() == [
        *("mid", "high", "low", "behind", "last", "base", "harm", "worst", "harmer"),
    ]
    assert table["position"].tolist() == list(range(1, 10))
    front = table.loc[["mid", "high", "low"]]
    assert front["gain"].tolist() == pytest.approx([36 / 48, 8 / 48, 4 / 48])
    assert front["hypervolume"].tolist() == pytest.approx([16 / 48, 8 / 48, 4 / 48])
    assert table.loc[["behind", "last", "base"], ["gain", "hypervolume"]].eq(0).all(axis=None)
    assert table.loc["harm":, ["gain", "hypervolume"]].isna().all(axis=None)
    assert table["rank"].tolist() == [0, 0, 0, 1, 2, 3, 0, 1, 0]
    assert table["on_front"].tolist() == [r == 0 for r in table["rank"]]
    assert table["feasible"].tolist() == [True] * 6 + [False] * 3
    assert table["violation"].to_dict()["harm"] == pytest.approx(0.1)
    assert table.index[table["knee"]].tolist() == ["mid"]
    assert table["score"].isna().all()


def test_the_reasons_of_a_staircase() -> None:
    assert reasons(made(STAIR)) == {
        "mid": "dominates most beyond the baseline: 75% of the front's hypervolume; knee",
        "high": "adds 17% of the front's hypervolume; highest perplexity within the constraint",
        "low": "adds 8.3% of the front's hypervolume; lowest recon_loss",
        "behind": "dominated by mid",
        "last": "dominated by mid",
        "base": "dominated by mid",
        "harm": "violates recon_loss <= 1*baseline by 10%",
        "worst": "violates recon_loss <= 1*baseline by 20%",
        "harmer": "violates recon_loss <= 1*baseline by 50%; highest perplexity",
    }


def test_a_users_constraint() -> None:
    records = made(STAIR)
    harm = [t for t in STAIR if t.startswith("harm")]
    wider = ranking(records, asked(records, constraint="recon_loss <= 1.1*baseline"))
    assert wider.set_index("trial_id").loc[harm, "feasible"].tolist() == [True, False]
    lifted = ranking(records, asked(records, constraint="none"))
    assert set(lifted["trial_id"][:5]) == {"low", "mid", "high", *harm}
    assert lifted["gain"].sum() == pytest.approx(1)
    assert order(records, constraint="recon_loss<=0.3")[0] == "low"
    table = ranking(records, asked(records, constraint="recon_loss <= 0.1"))
    assert not table["feasible"].any()
    assert table["trial_id"].tolist()[:3] == ["low", "mid", "behind"]  # least violation first
    assert table["reason"][0] == "violates recon_loss <= 0.1 by 100%; lowest recon_loss"
    assert not table["knee"].any()


def test_a_limit_of_zero_is_told_in_units() -> None:
    told = reasons(made(STAIR), constraint="recon_loss <= 0")
    assert told["low"].startswith("violates recon_loss <= 0 by 0.2; ")


def test_a_trial_that_violates_pushes_none_off_the_front() -> None:
    """`seconds` is no objective, so one that violates its limit can dominate one that does not."""
    records = made({"base": (1, 1.0), "fast": (5, 0.5, 1.0), "slow": (9, 0.1, 9.0)})
    table = ranking(records, asked(records, constraint="seconds <= 2")).set_index("trial_id")
    assert table.index.tolist() == ["fast", "base", "slow"]
    assert table.loc["fast", ["rank", "on_front"]].tolist() == [0, True]
    assert best(records, 1, asked(records, constraint="seconds <= 2"))["trial_id"][0] == "fast"


def test_weights() -> None:
    """Scaled from the baseline to the best: low (.2, 1), mid (.6, .75), high (1, .25)."""
    records = made(STAIR)
    table = ranking(records, asked(records, weights=["perplexity=3", "recon_loss=1"]))
    assert table["trial_id"].tolist()[:4] == ["high", "mid", "low", "behind"]
    assert table["score"].tolist()[:3] == pytest.approx([0.8125, 0.6375, 0.4])
    assert table["reason"].tolist()[0] == (
        "highest weighted score 0.81; highest perplexity within the constraint"
    )
    assert table["reason"].tolist()[1] == "weighted score 0.64; knee"
    assert table["gain"].tolist()[:3] == pytest.approx([20 / 48, 24 / 48, 4 / 48])
    assert order(records, weights=["perplexity=0"])[0] == "low"


def test_a_third_objective() -> None:
    rows = {"base": (1, 1.0, 9.0), "a": (5, 0.5, 5.0), "b": (5, 0.5, 3.0), "c": (4, 0.6, 1.0)}
    records = made(rows)
    assert ranking(records)["on_front"].sum() == 2
    chosen = asked(records, objectives=["seconds:min"])
    table = ranking(records, chosen)
    assert table["trial_id"].tolist()[:2] == ["b", "c"]
    assert "lowest seconds" in table["reason"][1]
    assert tuple(table.columns) == COLUMNS  # seconds is among them
    records.trials["cpu_seconds"] = [9.0, 5.0, 3.0, math.nan]
    table = ranking(records, asked(records, objectives=["cpu_seconds:min"]))
    assert [*table.columns] == [*COLUMNS[:-3], "cpu_seconds", *COLUMNS[-3:]]
    lost = table.set_index("trial_id").loc["c"]
    assert not lost["on_front"]
    assert lost["rank"] > 0
    assert lost["reason"] == "no finite cpu_seconds"


def test_one_objective() -> None:
    rows = {"base": (1, 0.5), "a": (5, 0.6), "b": (9, 0.4), "c": (9, 0.7), "d": (7, 0.4)}
    records = made(rows, {"perplexity": "max"})
    assert order(records) == ["b", "d", "base", "a", "c"]
    table = ranking(records)
    assert table["gain"].tolist()[:2] == [1, 0]
    assert table["on_front"].sum() == 2  # c violates, and no other is higher
    assert table["reason"][0] == (
        "dominates most beyond the baseline: 100% of the front's hypervolume; highest perplexity"
    )


# --- what a run can lack -------------------------------------------------------------------------


def test_without_a_baseline() -> None:
    """The constraint holds for all, and the front's worst moved out by a tenth is the reference."""
    records = made({"a": (10, 0.5), "b": (20, 0.6), "c": (19.9, 0.55), "d": (5, 0.9)})
    table = ranking(records)
    assert table["trial_id"].tolist() == ["c", "a", "b", "d"]
    assert table["feasible"].all()
    assert table[["perplexity_x", "recon_loss_x"]].isna().all(axis=None)
    assert not table["harmless"].any()
    assert table["reason"][0].startswith("dominates most: ")


def test_the_baseline_alone_or_on_the_front() -> None:
    alone = ranking(made({"base": (10, 0.5)}))
    assert alone["gain"].tolist() == [1]
    assert alone["reason"][0].startswith("the baseline itself; dominates most")
    both = ranking(made({"base": (10, 0.5), "a": (9, 0.4)}))
    assert both["on_front"].all()
    assert both["gain"].sum() == pytest.approx(1)


def test_equal_trials_are_told() -> None:
    told = reasons(made({"base": (1, 1.0), "a": (5, 0.5), "b": (5, 0.5), "c": (9, 0.6)}))
    assert told["b"].endswith("equal to a")
    assert "equal" not in told["a"]
    assert told["b"].startswith("adds 0% of the front's hypervolume")


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_never_on_the_front(lost: float) -> None:
    records = made({"base": (1, 1.0), "a": (5, 0.5), "b": (lost, 0.4), "c": (9, lost)})
    table = ranking(records).set_index("trial_id")
    assert table.index[table["on_front"]].tolist() == ["a"]
    assert table.loc["b", "reason"] == "no finite perplexity"
    assert table.loc["c", "reason"].endswith("no finite recon_loss")
    everything = made({"a": (lost, 0.5), "b": (lost, 0.4)})
    assert not ranking(everything)["on_front"].any()
    assert ranking(everything)["rank"].gt(0).all()


def test_a_metric_that_the_run_does_not_have_is_one_line() -> None:
    records = made(STAIR)
    for wrong in ({"objectives": ["foo:min"]}, {"constraint": "foo <= 1"}):
        with pytest.raises(RunError, match="metric: found 'foo', allowed in this run: active_"):
            ranking(records, asked(records, **wrong))
    assert len(ranking(made(STAIR, {"lost": "max"}))) == len(STAIR)  # the spec's own may lack


def test_no_complete_trial(run_folder: RunFolder) -> None:
    for _ in range(2):
        table = ranking(read_run(run_folder.path))
        assert tuple(table.columns) == COLUMNS
        assert table.empty
        assert front_table(read_run(run_folder.path)).empty
        assert best(read_run(run_folder.path), 3).empty
        if not (run_folder.path / "trials").exists():
            run_folder.trial("a", {"samples": 10})


# --- properties ----------------------------------------------------------------------------------

FEW = settings(max_examples=20, deadline=None)
COARSE = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 4))
SETS = st.lists(COARSE, min_size=1, max_size=14).map(
    lambda rows: {f"t{i:02}" if i else "base": row for i, row in enumerate(rows)}
)
THREE = {"perplexity": "max", "recon_loss": "min", "seconds": "min"}


@FEW
@given(SETS, st.sampled_from([1, 2, 3]))
def test_the_first_is_never_dominated_and_the_shares_add_up(rows: Rows, m: int) -> None:
    objectives = dict(list(THREE.items())[:m])
    table = ranking(made(rows, objectives))
    held = table[table["feasible"]]  # the baseline at least
    values = held[list(objectives)].to_numpy(dtype=float)
    front = nondominated(values, list(objectives.values()))
    assert held["on_front"].tolist() == front.tolist()
    assert front[: front.sum()].all()
    gains = held["gain"][front].to_numpy()
    assert gains.sum() == pytest.approx(1)
    assert (np.diff(gains) <= 1e-9).all()
    assert (held["hypervolume"][front] <= gains + 1e-9).all()
    assert table["knee"].sum() <= 1
    assert table["reason"].str.len().gt(0).all()
    assert sorted(table["trial_id"]) == sorted(rows)


@FEW
@given(SETS, st.sampled_from([1e-6, 0.3, 1000.0]), st.sampled_from([1e-3, 7.0, 1e5]))
def test_units_do_not_count(rows: Rows, first: float, second: float) -> None:
    other = {k: (v[0] * first, v[1] * second, v[2]) for k, v in rows.items()}
    for more in ({}, {"weights": ["perplexity=2"]}, {"objectives": ["seconds:min"]}):
        here, there = made(rows), made(other)
        assert order(here, **more) == order(there, **more)
    table, scaled = ranking(made(rows)), ranking(made(other))
    assert table["gain"].tolist() == pytest.approx(scaled["gain"].tolist(), nan_ok=True)
    assert table["knee"].tolist() == scaled["knee"].tolist()


@FEW
@given(SETS, st.data())
def test_a_dominated_trial_moves_none_before_it(rows: Rows, data: st.DataObject) -> None:
    """What comes behind it may move, since it can dominate in its turn; the front never does."""
    for more in ({}, {"weights": ["recon_loss=3"]}):
        records = made(rows)
        table = ranking(records, asked(records, **more))
        before = table["trial_id"].tolist()
        chosen = rows[data.draw(st.sampled_from(before))]
        beaten = (chosen[0] - 1, chosen[1] + data.draw(st.integers(0, 2)), chosen[2])
        wider = made({**rows, "zz": beaten})
        again = ranking(wider, asked(wider, **more))
        after = again["trial_id"].tolist()
        earlier = after[: after.index("zz")]
        assert earlier == [trial_id for trial_id in before if trial_id in earlier]
        front = table[table["on_front"] & table["feasible"]]
        same = again[again["on_front"] & again["feasible"]]
        pd.testing.assert_frame_equal(front.drop(columns="reason"), same.drop(columns="reason"))


@FEW
@given(SETS, st.randoms())
def test_the_order_of_the_rows_does_not_count(rows: Rows, random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = made({name: rows[name] for name in shuffled})
    pd.testing.assert_frame_equal(ranking(again), ranking(made(rows)))


# --- tables --------------------------------------------------------------------------------------


def test_the_front_and_the_baseline_of_a_run(run_folder: RunFolder, config: dict[str, Any]) -> None:
    run_folder.complete("base", 40.0, 0.5, role="baseline")
    config["codebook"]["commitment"]["beta"] = 2.0
    run_folder.complete("cheap", 90.0, 0.4, config=config)
    run_folder.complete("twin", 90.0, 0.4)
    run_folder.complete("rich", 200.0, 0.45)
    run_folder.complete("harm", 400.0, 0.6)
    run_folder.complete("beaten", 80.0, 0.55)
    run_folder.trial("early", {"samples": 500, "perplexity": 500.0, "recon_loss": 0.1})
    run_folder.trial("lost", {"samples": 1000, "perplexity": float("nan"), "recon_loss": 0.1})
    records = read_run(run_folder.path)
    table = front_table(records)
    assert tuple(table.columns) == COLUMNS
    assert table["trial_id"].tolist() == ["rich", "cheap", "twin", "base", "harm"]
    assert table["on_front"].tolist() == [True, True, True, False, True]
    assert table["harmless"].tolist() == [True, True, True, True, False]
    assert table["perplexity_x"].tolist() == [5.0, 2.25, 2.25, 1.0, 10.0]
    assert table["recon_loss_x"].tolist() == pytest.approx([0.9, 0.8, 0.8, 1.0, 1.2])
    assert table["technique"].tolist() == ["plain", "β=2", "plain", "plain", "plain"]
    assert table["config"][1]["codebook"]["commitment"] == {"beta": 2.0}
    for n in (0, 1, 3, 9):
        assert best(records, n)["trial_id"].tolist() == ["rich", "cheap", "twin"][:n]
    unheld = terms(records.spec, "recon_loss <= 0.1")
    assert best(records, 9, unheld)["trial_id"].tolist() == ["cheap", "twin", "rich", "harm"]
    assert top_table(records, 1)["trial_id"].tolist() == ["rich", "base"]
    assert top_table(records, 9)["trial_id"].tolist() == table["trial_id"].tolist()
    pd.testing.assert_frame_equal(top_table(records, None), table)


def test_the_baseline_beside_the_top_is_there_once(run_folder: RunFolder) -> None:
    run_folder.complete("base", 40.0, 0.5, role="baseline")
    run_folder.complete("low", 30.0, 0.4)
    records = read_run(run_folder.path)
    for top in (1, 2, 3):
        assert top_table(records, top)["trial_id"].tolist().count("base") == 1
