"""Searches from start to end: trials, folders, what Optuna is told, proposals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from safetensors import safe_open

from tests.vqtune.conftest import (
    ENDINGS,
    TINY,
    Mixed,
    Searched,
    optuna_states,
    run_search,
    study_of,
)
from trainables.config import TrialConfig
from vqtune.journal import STUDY, open_journal
from vqtune.searcher import VQSearch, proposals
from vqtune.spaces import Space, load_space

# --- a search in which trials end in every way --------------------------------------------------


def test_every_trial_reaches_its_final_state(mixed: Mixed) -> None:
    assert mixed.outcome.finished
    assert mixed.states() == ENDINGS
    assert mixed.records.skipped == ()


def test_optuna_is_told_what_is_true(mixed: Mixed) -> None:
    study = optuna.load_study(study_name=None, storage=open_journal(mixed.run / "optuna.journal"))
    told = {f"t{trial.number + 1:04d}": trial for trial in study.get_trials()}
    expected = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL", "failed": "FAIL"}
    states = mixed.states()
    del states["baseline"]  # not Optuna's proposal
    assert {t: trial.state.name for t, trial in told.items()} == {
        t: expected[state] for t, state in states.items()
    }
    for trial_id, trial in told.items():
        last = mixed.reports(trial_id)[-1] if states[trial_id] != "failed" else {}
        complete = states[trial_id] == "complete"
        assert trial.values == ([last["perplexity"], last["recon_loss"]] if complete else None)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_optuna_is_told_who_holds_the_constraint(mixed: Mixed) -> None:
    """Against the baseline at the same samples; of who failed there is nothing to tell."""
    told = {f"t{trial.number + 1:04d}": trial.constraints for trial in study_of(mixed.run).trials}
    loss = {trial: mixed.reports(trial) for trial in ("baseline", "t0002")}
    behind = loss["t0002"][2]["recon_loss"] - loss["baseline"][2]["recon_loss"]
    assert behind > 0
    key = "recon_loss <= 1*baseline"
    assert told == {
        "t0001": {key: 0.0},
        "t0002": {key: pytest.approx(behind)},
        "t0003": {},
        "t0004": {},
        "t0005": {key: 0.0},
    }


def test_a_trial_leaves_its_params_reports_and_checkpoint(mixed: Mixed) -> None:
    for trial_id, state in ENDINGS.items():
        folder = mixed.run / "trials" / trial_id
        params = json.loads((folder / "params.json").read_text())
        assert params["trial_id"] == trial_id
        assert params["role"] == ("baseline" if trial_id == "baseline" else "search")
        TrialConfig.from_dict(params["trial"])
        files = {path.name for path in folder.iterdir()}
        if state == "failed":
            assert files == {"params.json", "error.txt"}
            continue
        # The trial that was stopped has the highest perplexity, so it keeps its checkpoint.
        best = {"best.safetensors"} if state == "diverged" else set()
        assert files == {"params.json", "result.json", "checkpoint.safetensors", *best}
        reports = mixed.reports(trial_id)
        assert [report["trial_id"] for report in reports] == [trial_id] * len(reports)
        assert [report["done"] for report in reports] == [False] * (len(reports) - 1) + [True]
        with safe_open(folder / "checkpoint.safetensors", "pt") as file:
            header = json.loads(file.metadata()["vqtune"])
        assert header["samples"] == reports[-1]["samples"]
        assert header["trial"] == params["trial"]


@pytest.mark.parametrize(
    ("trial_id", "samples"),
    [
        ("baseline", [80, 160, 240, 320]),
        ("t0001", [80, 160, 240, 320]),
        ("t0002", [80, 160, 240]),  # stopped in the only rung, at 224 samples
        ("t0004", [80, 160]),  # diverged in the second period
        ("t0005", [80, 160, 240, 320]),  # its process died; its last report came again, unrecorded
    ],
)
def test_reports_come_at_their_samples(trial_id: str, samples: list[int], mixed: Mixed) -> None:
    assert [report["samples"] for report in mixed.reports(trial_id)] == samples


def test_the_same_config_gives_the_same_numbers(mixed: Mixed) -> None:
    """Also through the death of the process that trains it."""

    def numbers(trial_id: str) -> list[tuple[Any, ...]]:
        kept = {r["samples"]: (r["perplexity"], r["recon_loss"]) for r in mixed.reports(trial_id)}
        return list(kept.items())

    assert numbers("t0001") == numbers("baseline")
    assert numbers("t0005") == numbers("baseline")


def test_a_trial_that_cannot_be_built_says_why(mixed: Mixed) -> None:
    text = (mixed.run / "trials" / "t0003" / "error.txt").read_text()
    assert text.rstrip().endswith("raised ValueError: there is no such model")
    trials = mixed.records.trials.set_index("trial_id")
    assert "there is no such model" in trials.loc["t0003", "reason"]
    assert trials.loc["t0004", "reason"] == "diverged: the loss is not finite after 160 samples"


def test_nothing_of_tune_is_left(mixed: Mixed) -> None:
    kept = {path.name for path in mixed.run.iterdir() if path.name != ".lock"}
    wandb = {"wandb", "wandb.jsonl"}
    assert kept == {"spec.yaml", "optuna.journal", "trials", "tensorboard"} | wandb


def test_the_spec_says_what_was_asked_for(mixed: Mixed) -> None:
    spec = yaml.safe_load((mixed.run / "spec.yaml").read_text())
    assert spec["name"] == "mixed"
    assert (spec["seed"], spec["samples"], spec["trials"]) == (3, 320, 99)
    assert spec["objectives"] == {"perplexity": "max", "recon_loss": "min"}
    assert spec["resources"] == {"cpus": 1.0, "gpus": 0.0}
    space = Space.from_dict(spec["space"])
    assert space.baseline().to_dict() == mixed.records.configs["baseline"]


def test_a_grid_is_enumerated(mixed: Mixed) -> None:
    """99 trials were asked for; there are five points, in the order of the file."""
    configs = mixed.records.configs
    endings = [configs[f"t{n:04d}"]["model"]["arguments"]["ending"] for n in range(1, 6)]
    assert endings == ["well", "idle", "raises", "diverges", "dies"]
    assert len(configs) == 6


def test_progress_is_printed_line_by_line(mixed: Mixed) -> None:
    told = [line for line in mixed.printed.splitlines() if line.startswith("[")]
    assert [line.split(":")[0] for line in told] == [
        f"[{i}/6] {trial_id} {state}" for i, (trial_id, state) in enumerate(ENDINGS.items(), 1)
    ]
    assert told[3] == "[4/6] t0003 failed: no report"


# --- the baseline, and equal seeds --------------------------------------------------------------


def test_the_baseline_comes_first_and_is_plain(finished: Searched) -> None:
    records = finished.records
    assert records.trials["trial_id"].iloc[0] == "baseline"
    assert records.trials["role"].tolist() == ["baseline", *["search"] * 4]
    plain = TrialConfig().to_dict()["codebook"] | {"size": 16, "dim": 4}
    assert records.configs["baseline"]["codebook"] == plain
    assert {config["seed"] for config in records.configs.values()} == {5}
    for config in records.configs.values():
        for block in ("data", "model", "training", "evaluation"):
            assert config[block] == records.configs["baseline"][block]


def test_the_same_seed_gives_the_same_search(
    finished: Searched, cluster: str, tmp_path: Path
) -> None:
    """One trial at a time; into another storage, under another name."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    again = run_search(
        tmp_path / "tiny.yaml",
        cluster,
        storage=tmp_path / "elsewhere",
        name="again",
        seed=5,
    )
    first, second = finished.records, again.records
    assert second.configs == first.configs
    for metric in ("perplexity", "recon_loss", "active_codes", "samples"):
        assert second.trials[metric].tolist() == first.trials[metric].tolist()
    assert optuna_states(again.run) == ["COMPLETE"] * 4


# --- who proposes, without training -------------------------------------------------------------

Load = Callable[..., Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return lambda **settings: load_space(str(path)).with_search("test", **settings)


def proposed(space: Space, journal: Path, sampler_seed: int) -> list[dict[str, Any]]:
    """Trial configs that a search proposes, where each trial ends at once.

    Every third is stopped early, and every fifth diverges.
    """
    baseline = space.baseline().to_dict()
    searcher = VQSearch(space, open_journal(journal), sampler_seed, {"folder": "trials"}, baseline)
    configs = []
    while True:
        tune_id = f"tune{len(configs)}"
        config = searcher.suggest(tune_id)
        if config == VQSearch.FINISHED:
            break
        assert isinstance(config, dict)
        configs.append(config)
        beta = config["trial"]["codebook"]["commitment"]["beta"]
        result = {"perplexity": 10 * beta, "recon_loss": 1 + beta, "complete": len(configs) % 3 > 0}
        result |= {"samples": 320}
        searcher.on_trial_complete(tune_id, result | {"diverged": len(configs) % 5 == 0})
    return configs


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_equal_seeds_propose_alike_and_others_do_not(
    sampler: str, load: Load, tmp_path: Path
) -> None:
    space = load(sampler=sampler, trials=30)
    first = proposed(space, tmp_path / "1", 7)
    assert len(first) == 30
    assert proposed(space, tmp_path / "2", 7) == first
    other = proposed(space, tmp_path / "3", 8)
    assert [config["trial"] for config in other[1:]] != [config["trial"] for config in first[1:]]
    assert first[0]["role"] == "baseline"
    assert [config["trial_id"] for config in first[1:]] == [f"t{n:04d}" for n in range(1, 30)]
    betas = [config["trial"]["codebook"]["commitment"]["beta"] for config in first[1:]]
    assert len(set(betas)) == 29
    assert all(0.05 <= beta <= 10 for beta in betas)


@pytest.mark.parametrize("killed_after", [None, 0, 1, 2])
def test_starts_come_first_and_once(load: Load, tmp_path: Path, killed_after: int | None) -> None:
    """Also in a search that was killed when so many of them were in the journal."""
    betas = [0.5, 2.0]
    starts = tuple({"codebook.commitment.beta": beta} for beta in betas)
    space = replace(load(sampler="tpe", trials=6), starts=starts)
    if killed_after is not None:
        storage = open_journal(tmp_path / "j")
        directions = ["maximize", "minimize"]
        study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions)
        for point in space.first_points()[:killed_after]:
            study.enqueue_trial(point)
    configs = proposed(space, tmp_path / "j", 0)
    assert [config["trial_id"] for config in configs] == [
        "baseline", "t0001", "t0002", "t0003", "t0004", "t0005"
    ]  # fmt: skip
    found = [config["trial"]["codebook"] for config in configs[1:]]
    assert [codebook["commitment"]["beta"] for codebook in found[:2]] == betas
    for codebook in found[:2]:
        assert codebook["update"] == configs[0]["trial"]["codebook"]["update"]
    assert not {codebook["commitment"]["beta"] for codebook in found[2:]} & set(betas)


def test_tpe_learns_from_complete_trials(load: Load, tmp_path: Path) -> None:
    """What is good here is a small beta: later proposals are smaller than the first ones."""
    space = load(sampler="tpe", trials=41).with_overrides({"codebook.update": {"kind": "ema"}})
    searcher = VQSearch(space, open_journal(tmp_path / "j"), 0, {"folder": "trials"}, None)
    betas = []
    for number in range(40):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        betas.append(config["trial"]["codebook"]["commitment"]["beta"])
        result = {"perplexity": -betas[-1], "recon_loss": betas[-1], "diverged": False}
        searcher.on_trial_complete(str(number), result | {"complete": True})
    assert sorted(betas[20:])[10] < 0.5 * sorted(betas[:10])[5]


def test_the_journal_tells_how_trials_ended(load: Load, tmp_path: Path) -> None:
    space = load(sampler="random", trials=16)
    proposed(space, tmp_path / "journal", 0)
    study = optuna.load_study(study_name=None, storage=open_journal(tmp_path / "journal"))
    for trial in study.get_trials():
        turn = trial.number + 2  # the baseline is first
        expected = "FAIL" if turn % 5 == 0 else "PRUNED" if turn % 3 == 0 else "COMPLETE"
        assert trial.state.name == expected
        assert (trial.values is not None) == (expected == "COMPLETE")


@pytest.mark.parametrize(("asked", "enqueued"), [(99, 4), (3, 2)])
def test_a_grid_has_as_many_trials_as_it_has_points(
    asked: int, enqueued: int, tmp_path: Path
) -> None:
    (tmp_path / "grid.yaml").write_text(
        f"search: {{sampler: grid, trials: {asked}}}\n"
        "parameters: {codebook: {size: {values: [16, 32]}, dim: {values: [4, 8]}}}"
    )
    space = load_space(str(tmp_path / "grid.yaml"))
    assert proposals(space) == enqueued
    configs = [config["trial"]["codebook"] for config in proposed(space, tmp_path / "journal", 0)]
    points = [(16, 4), (16, 8), (32, 4), (32, 8)]
    assert [(config["size"], config["dim"]) for config in configs[1:]] == points[:enqueued]


def test_a_grid_that_was_cut_off_while_it_was_enqueued_is_completed(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        "search: {sampler: grid}\nparameters: {codebook: {dim: {values: [4, 8, 16, 32]}}}"
    )
    space = load_space(str(tmp_path / "grid.yaml"))
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        study_name="vqtune",
        storage=open_journal(tmp_path / "journal"),
    )
    for point in space.enumerate_grid()[:2]:
        study.enqueue_trial(point)
    configs = proposed(space, tmp_path / "journal", 0)
    assert [config["trial"]["codebook"]["dim"] for config in configs[1:]] == [4, 8, 16, 32]
