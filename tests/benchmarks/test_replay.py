"""The simulator that searches are compared on, over a small synthetic table."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.samplers import RandomSampler
from ray.tune.schedulers import FIFOScheduler

from benchmarks.replay import run, scale
from benchmarks.replay.adapters import RayScheduler, RaySearch, quiet
from benchmarks.replay.contenders import BY_NAME
from benchmarks.replay.record import draw, recorded_space, write_tables
from benchmarks.replay.report import quantile, reached, summary
from benchmarks.replay.simulator import Outcome, Proposal, Trial, replay
from benchmarks.replay.table import BASELINE, REFERENCE, Table, _draws

CONFIGS, REPORTS, BUDGET = 24, 8, 16_000
DIVERGED = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table on disk, ends drawn at random; row 5 diverges at its third report."""
    quiet()
    drawn = draw(recorded_space(), CONFIGS)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for config in range(CONFIGS + 1):
        end, filled = (0.236, 0.02) if config == BASELINE else rng.uniform((0.1, 0.1), (0.22, 1))
        speed = rng.uniform(0.5, 2.0)
        reports = 3 if config == DIVERGED else REPORTS
        for number in range(1, reports + 1):
            diverged = config == DIVERGED and number == reports
            rows.append(
                {
                    "config": config,
                    "samples": BUDGET * number // REPORTS,
                    "seconds": speed * number,
                    "recon_loss": math.nan if diverged else end * REPORTS / number,
                    "perplexity": filled * 512 * number / REPORTS,
                    "usage": filled * number / REPORTS,
                    "active_codes": 100.0,
                    "codes_in_use": 512.0,
                    "bits_per_frame": 9.0,
                    "size": 512,
                    "diverged": diverged,
                }
            )
    out = tmp_path_factory.mktemp("table")
    write_tables(drawn, rows, out)
    return out


@pytest.fixture(scope="module")
def table(folder):
    """Without offsets: a config's own parameters are answered by it."""
    found = Table.read(folder, recorded_space())
    found.__dict__["offsets"] = np.zeros(len(found))
    return found


def random_search(table):
    return RaySearch(table.space, RandomSampler(seed=0), 0)


def fifo():
    return RayScheduler(FIFOScheduler())


class Recorded:
    """A search that asks for given rows and keeps what it is told."""

    def __init__(self, table, rows):
        self.table, self.rows, self.told = table, list(rows), []

    def suggest(self, trial_id):
        if not self.rows:
            return None
        row = self.rows.pop(0)
        config = {"trial_id": trial_id, "role": "search"}
        return Proposal(None if row == BASELINE else self.table.parameters[row], config)

    def on_result(self, trial_id, result):
        self.told.append(("result", trial_id, result["samples"]))

    def on_complete(self, trial_id, result):
        self.told.append(("complete", trial_id, result["samples"]))


class Stopper:
    """A scheduler that stops every trial at its nth report."""

    def __init__(self, report):
        self.report, self.asked = report, []

    def on_add(self, trial):
        pass

    def goes_on(self, trial, result):
        self.asked.append((trial.row, result["training_iteration"]))
        return result["training_iteration"] < self.report

    def on_complete(self, trial, result):
        pass


# --- the table ---


def test_a_config_is_nearest_to_itself(table):
    rows = np.arange(1, len(table))
    for row in rows:
        distances = table._distances(table.parameters[row], rows)
        assert distances[row - 1] == 0 == distances.min()


def test_random_proposals_are_answered_by_every_config_equally_often(folder):
    table = Table.read(folder, recorded_space())
    unused = np.ones(len(table), dtype=bool)
    answers = [table.nearest(given, unused) for given in _draws(table.space, 3000, seed=1)]
    often = np.bincount(answers, minlength=len(table))[1:] * CONFIGS / 3000
    assert often.min() > 0.5
    assert often.max() < 1.5


def test_a_used_config_answers_no_more_and_the_baseline_never(table):
    unused = np.ones(len(table), dtype=bool)
    found = []
    while (row := table.nearest(table.parameters[3], unused)) is not None:
        found.append(row)
        unused[row] = False
    assert sorted(found) == list(range(1, len(table)))


def test_weights_are_shares_and_none_is_nothing(table):
    assert table.weights.sum() == pytest.approx(1)
    assert (table.weights > 0).all()
    assert len(table.weights) == len(table.space.searched())


def test_a_number_counts_by_its_share_of_the_logarithmic_range(table):
    [lr] = [i for i, name in enumerate(table.space.searched()) if name == "training.lr"]
    encoded = table._encode({"training.lr": math.sqrt(3e-4 * 5e-3)})
    assert encoded[lr] == pytest.approx(0.5)
    assert np.isnan(np.delete(encoded, lr)).all()


def test_the_front_is_of_complete_configs_and_worth_one(table):
    ends = table.ends
    for row in table.front:
        assert row not in (BASELINE, DIVERGED)
        others = [r for r in range(1, len(table)) if r not in (row, DIVERGED)]
        assert not any(
            ends[r, 0] >= ends[row, 0]
            and ends[r, 1] <= ends[row, 1]
            and (ends[r] != ends[row]).any()
            for r in others
        )
    assert table.share(table.front) == pytest.approx(1)
    assert table.share([]) == 0
    perplexity, recon_loss = ends[table.front[0]]
    alone = (perplexity - REFERENCE[0]) * (REFERENCE[1] - recon_loss) / table.full
    assert table.share(table.front[:1]) == pytest.approx(alone)


# --- the clock ---


def test_one_worker_without_stopping_spends_the_sum(table):
    outcome = replay(table, Recorded(table, [1, 2, DIVERGED, 3]), fifo(), workers=1)
    assert outcome.completed == [1, 2, 3]
    assert outcome.diverged == [DIVERGED]
    assert outcome.samples == 3 * BUDGET + BUDGET * 3 // REPORTS
    assert outcome.compute == pytest.approx([1, 2, 3 + 3 / REPORTS])
    took = sum(table.curves[row].seconds[-1] for row in (1, 2, DIVERGED, 3))
    assert outcome.clock == pytest.approx(took)


def test_workers_train_side_by_side(table):
    rows = [1, 2, 3, 4]
    outcome = replay(table, Recorded(table, rows), fifo(), workers=4)
    ends = {row: table.curves[row].seconds[-1] for row in rows}
    assert outcome.completed == sorted(rows, key=ends.__getitem__)
    assert outcome.clock == pytest.approx(max(ends.values()))
    first = outcome.completed[0]
    so_far = sum((table.curves[row].seconds <= ends[first] + 1e-9).sum() for row in rows)
    assert outcome.compute[0] == pytest.approx(so_far / REPORTS)


def test_samples_are_those_of_the_reports_that_were_trained(table):
    search = Recorded(table, range(1, 11))
    outcome = replay(table, search, Stopper(3), workers=3)
    last = {trial_id: samples for _, trial_id, samples in search.told}
    assert outcome.samples == sum(last.values()) == 10 * BUDGET * 3 // REPORTS


def test_a_scheduler_that_stops_everything_leaves_no_front(table):
    search, stopper = Recorded(table, range(1, 11)), Stopper(1)
    outcome = replay(table, search, stopper, workers=4)
    assert sorted(outcome.stopped) == list(range(1, 11))
    assert outcome.completed == outcome.share == []
    assert {kind for kind, *_ in search.told} == {"complete"}
    assert outcome.samples == 10 * BUDGET // REPORTS


def test_nobody_is_asked_about_the_report_with_which_a_trial_ends(table):
    stopper = Stopper(100)
    replay(table, Recorded(table, [1, DIVERGED]), stopper)
    reports = {row: [n for r, n in stopper.asked if r == row] for row in (1, DIVERGED)}
    assert reports == {1: list(range(1, REPORTS)), DIVERGED: [1, 2]}


def test_the_baseline_counts_as_compute_but_is_no_answer(table):
    outcome = replay(table, Recorded(table, [BASELINE, 1]), fifo(), workers=1)
    assert outcome.completed == [BASELINE, 1]
    assert outcome.samples == 2 * BUDGET


def test_a_cap_ends_a_run(table):
    outcome = replay(table, random_search(table), fifo(), workers=1, cap=3)
    assert outcome.samples == pytest.approx(3 * BUDGET, abs=BUDGET)


# --- real classes on it ---


def test_random_over_the_whole_table_has_the_full_front(table):
    outcome = replay(table, random_search(table), fifo())
    assert outcome.share[-1] == pytest.approx(1)
    assert outcome.share == sorted(outcome.share)
    assert set(table.front) <= set(outcome.completed)
    assert len(set(outcome.completed)) == len(outcome.completed)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_seed_gives_the_same_run(table, name, monkeypatch):
    if name == "moasha" and importlib.util.find_spec("syne_tune") is None:
        pytest.skip("needs Syne Tune")
    monkeypatch.setattr(run, "_opened", [table])
    first, again = (run.one(name, 1, 4, None) for _ in range(2))
    del first["took"], again["took"]
    assert first == again
    ended = first["completed"] + first["stopped"] + first["diverged"]
    assert 0 < ended <= CONFIGS + name.startswith("vqtune")
    if name.startswith("vqtune") or "asha" in name:
        assert first["stopped"]
    else:
        assert not first["stopped"]
        assert first["steps"][-1][1] == pytest.approx(1)


def test_vqtune_trains_its_baseline_first(table):
    search, scheduler = BY_NAME["vqtune"].make(table, 0)
    proposal = search.suggest("r0000")
    assert proposal.parameters is None
    assert proposal.config["role"] == "baseline"
    trial = Trial("r0000", proposal.config, BASELINE)
    scheduler.on_add(trial)
    assert all(scheduler.goes_on(trial, table.curves[BASELINE].report(i)) for i in range(7))


# --- what is printed ---


def test_results_are_kept_and_done_once(folder, tmp_path, monkeypatch, capsys):
    options = ["--seeds", "2", "--only", "random", "--table", folder, "--out", tmp_path]
    monkeypatch.setattr("sys.argv", ["run", *map(str, options), "--processes", "1"])
    run.main()
    file = tmp_path / run.RESULTS
    kept = file.read_text(encoding="utf-8")
    assert [json.loads(line)["seed"] for line in kept.splitlines()] == [0, 1]
    run.main()
    assert file.read_text(encoding="utf-8") == kept
    assert "random at full length" in capsys.readouterr().out


def test_a_digest_changes_with_settings_and_with_the_table(folder, tmp_path):
    def digest(**changed):
        options = argparse.Namespace(**{"workers": 8, "cap": None, "table": folder, **changed})
        return run.digest(BY_NAME["random"], options)

    for name in ("curves.parquet", "configs.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert digest() == digest(table=tmp_path)
    (tmp_path / "configs.parquet").write_bytes(b"another")
    assert len({digest(), digest(workers=4), digest(cap=9.0), digest(table=tmp_path)}) == 4


def test_facts_keep_the_points_at_which_the_front_grew(table):
    outcome = Outcome([1.0, 2.0, 3.0], [0.5, 0.5, 0.9], 3 * BUDGET, [1, 2, 3])
    assert run.facts(table, outcome)["steps"] == [(1.0, 0.5), (3.0, 0.9)]


def test_a_run_that_never_gets_there_counts_as_never():
    rows = [
        {
            "contender": "random",
            "steps": [[spent, 0.5], [spent + 1, share]],
            "growing": 2,
            "grown": 1,
        }
        for spent, share in ((10, 0.98), (20, 0.99), (30, 0.9), (40, 0.9))
    ]
    assert [reached(row) for row in rows] == [11, 21, math.inf, math.inf]
    assert quantile([1, 2, 4], 0.5) == 2
    assert quantile([1, 2, 4, 8], 0.5) == 3
    assert quantile([1, math.inf], 0.25) == quantile([math.inf] * 3, 0.75) == math.inf
    cells = [column._cells[0] for column in summary(rows, {"random": "at random"}).columns]
    assert cells == ["at random", "never", "18.5-never", "-", "2/4", "0.940", "4/8"]


def test_the_picture_is_drawn(table, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from benchmarks.replay import picture

    monkeypatch.setattr(run, "_opened", [table])
    rows = [run.one(name, seed, 4, None) for name in ("random", "vqtune-random") for seed in (0, 1)]
    picture.draw(rows, tmp_path / "replay.png")
    assert 1_000 < (tmp_path / "replay.png").stat().st_size < 150_000
    at = np.array([0.0, rows[0]["steps"][0][0], 1e9])
    expected = [0.0, rows[0]["steps"][0][1], rows[0]["steps"][-1][1]]
    assert picture.shares(rows[0], at) == pytest.approx(expected)


def test_many_workers_share_one_scheduler():
    found = scale.simulate(-0.9, trials=300, workers=50, seed=0)
    assert 1 <= found.completed < 150
    assert len(found.memory) == 10
    assert np.isfinite(found.decisions).all()


def test_the_table_reads_back_what_was_recorded(folder, table):
    curves = pd.read_parquet(folder / "curves.parquet")
    own = curves[curves["config"] == 2]
    assert table.curves[2].report(0)["perplexity"] == pytest.approx(own["perplexity"].iloc[0])
    last = table.curves[2].report(REPORTS - 1)
    assert last["complete"] and last["done"] and not last["diverged"]
    ended = table.curves[DIVERGED].report(2)
    assert ended["diverged"] and ended["done"] and not ended["complete"]
    assert table.budget == BUDGET
