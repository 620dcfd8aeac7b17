"""Who proposes: objectives, constraint, and proposals that do not depend on the sessions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.vqtune.conftest import TINY
from vqtune.journal import UNFIT, make_study, open_journal
from vqtune.outcomes import Yardstick
from vqtune.searcher import VQSearch, make_sampler, trial_name
from vqtune.spaces import Space, load_space

SAMPLERS = ["tpe", "nsga2", "random"]
Load = Callable[..., Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return lambda **search: load_space(str(tmp_path / "tiny.yaml")).with_search("test", **search)


def result_of(config: dict[str, Any], turn: int) -> dict[str, Any]:
    """How a trial ends: every third is stopped, every fifth diverges."""
    beta = config["trial"]["codebook"]["commitment"]["beta"]
    stopped = turn % 3 == 0
    return {
        "samples": 160 if stopped else 320,
        "perplexity": 10 * math.sin(3 * beta),
        "recon_loss": 1 + beta,
        "usage": 1 / (1 + beta),
        "complete": not stopped,
        "diverged": turn % 5 == 0,
    }


def session(
    space: Space,
    storage: optuna.storages.BaseStorage,
    trials: int,
    *,
    leave_last: bool = False,
) -> dict[str, Any]:
    """Propose and end so many trials, one by one; returns their configs by trial_id.

    The last one may be left running, as by a driver that is killed.
    """
    study = make_study(storage, space.search.objectives)
    unfinished = [t.number for t in study.trials if t.state == TrialState.RUNNING]
    yardstick = Yardstick(space.search.constraint)
    yardstick.hear(result_of({"trial": space.baseline().to_dict()}, 1))
    searcher = VQSearch(space, storage, 7, {"folder": "trials"}, None, unfinished, yardstick)
    configs: dict[str, Any] = {}
    for turn in range(trials):
        config = searcher.suggest(f"tune's {turn}")
        if not isinstance(config, dict):
            break
        name = config["trial_id"]
        configs[name] = config["trial"]
        if not (leave_last and turn == trials - 1):
            searcher.on_trial_complete(f"tune's {turn}", result_of(config, int(name[1:])))
    return configs


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("sessions", [[1] * 39, [13, 1, 25]], ids=["one each", "three"])
def test_a_search_in_pieces_proposes_what_one_in_one_go_does(
    sampler: str, sessions: list[int], load: Load, tmp_path: Path
) -> None:
    space = load(sampler=sampler, trials=40)
    through = session(space, open_journal(tmp_path / "through"), 39)
    pieces: dict[str, Any] = {}
    for trials in sessions:
        pieces |= session(space, open_journal(tmp_path / "pieces"), trials)
    assert pieces == through
    assert list(through) == [*map(trial_name, range(39))]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_left_running_is_proposed_as_it_was_and_the_next_as_they_would_be(
    sampler: str, load: Load, tmp_path: Path
) -> None:
    space = load(sampler=sampler, trials=30)
    through = session(space, open_journal(tmp_path / "through"), 30)
    first = session(space, open_journal(tmp_path / "cut"), 20, leave_last=True)
    last = session(space, open_journal(tmp_path / "cut"), 30)
    assert next(iter(last)) == list(first)[-1]
    assert first | last == through


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("begun", [4, 30])
def test_a_session_killed_between_two_parameters_goes_on_with_the_next(
    sampler: str, begun: int, load: Load, tmp_path: Path
) -> None:
    """Before and after the sampler has learned something."""
    space, path = load(sampler=sampler, trials=40), tmp_path / "journal"
    through = session(space, open_journal(path), begun, leave_last=True)
    lines = path.read_text().splitlines(keepends=True)
    made = max(i for i, line in enumerate(lines) if '"op_code":4,' in line)
    params = [i for i, line in enumerate(lines) if i > made and '"param_name"' in line]
    assert len(params) == 3
    for cut in (made + 1, *params):
        path.write_text("".join(lines[:cut]))
        again = session(space, open_journal(path), 1, leave_last=True)
        assert again == {trial_name(begun - 1): through[trial_name(begun - 1)]}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_depends_on_the_history_the_seed_and_the_number(
    sampler: str, load: Load, tmp_path: Path
) -> None:
    """Not on the searcher that makes it: a copy of the journal gives the same."""
    space = load(sampler=sampler, trials=99)
    session(space, open_journal(tmp_path / "one"), 30)
    (tmp_path / "two").write_bytes((tmp_path / "one").read_bytes())
    ahead = session(space, open_journal(tmp_path / "one"), 5)
    assert session(space, open_journal(tmp_path / "two"), 5) == ahead
    betas = {str(config["codebook"]) for config in ahead.values()}
    assert len(betas) == 5


def test_samplers_of_two_numbers_draw_otherwise() -> None:
    draws = set()
    for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1)):
        study = optuna.create_study(sampler=make_sampler("random", seed, number))
        draws.add(study.ask().suggest_float("x", 0, 1))
    assert len(draws) == 4


# --- objectives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "objectives",
    [
        {"recon_loss": "min"},
        {"usage": "max"},
        {"usage": "max", "recon_loss": "min"},
        {"recon_loss": "min", "perplexity": "max", "usage": "max"},
    ],
    ids="+".join,
)
def test_any_number_of_objectives(
    sampler: str, objectives: dict[str, str], load: Load, tmp_path: Path
) -> None:
    space = load(sampler=sampler, objectives=objectives, trials=36)
    storage = open_journal(tmp_path / "journal")
    configs = session(space, storage, 36)
    assert len(configs) == 35
    study = make_study(storage, objectives)
    ways = {"max": "MAXIMIZE", "min": "MINIMIZE"}
    assert [d.name for d in study.directions] == [ways[way] for way in objectives.values()]
    for trial in study.trials:
        told = result_of({"trial": configs[trial_name(trial.number)]}, trial.number + 1)
        if trial.state == TrialState.COMPLETE:
            assert trial.values == [told[name] for name in objectives]
        assert (trial.state == TrialState.PRUNED) == (not told["complete"] and not told["diverged"])
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED", "FAIL"}


# --- the constraint -------------------------------------------------------------------------------


def test_constraints_are_held_against_the_baseline_once_it_is_known(
    load: Load, tmp_path: Path
) -> None:
    space = load(sampler="random", trials=5)
    storage = open_journal(tmp_path / "journal")
    searcher = VQSearch(space, storage, 0, {"folder": "trials"}, space.baseline().to_dict())
    end = {"samples": 320, "complete": True, "diverged": False, "perplexity": 1.0}
    for name in ("baseline", "early", "good", "bad"):
        searcher.suggest(name)
    searcher.on_trial_complete("early", {**end, "recon_loss": 0.9})
    searcher.on_trial_result(
        "baseline", {**end, "samples": 160, "complete": False, "recon_loss": 1}
    )
    searcher.on_trial_complete("baseline", {**end, "recon_loss": 0.5})
    searcher.on_trial_complete("good", {**end, "recon_loss": 0.4})
    searcher.on_trial_complete("bad", {**end, "recon_loss": 0.8})
    trials = make_study(storage, space.search.objectives).trials
    key = "recon_loss <= 1*baseline"
    assert [trial.constraints for trial in trials] == [
        {key: 0.0},
        {key: pytest.approx(-0.1)},
        {key: pytest.approx(0.3)},
    ]


def test_tpe_keeps_to_what_holds(load: Load) -> None:
    """Here perplexity grows with beta, and the loss allows no beta above 1."""
    plain = load(sampler="tpe", trials=60).with_overrides({"codebook.update": {"kind": "ema"}})
    above = {}
    for constraint in (None, "recon_loss <= 1"):
        space = plain.with_search(constraint=constraint, objectives={"perplexity": "max"})
        searcher = VQSearch(space, optuna.storages.InMemoryStorage(), 0, {"folder": "trials"})
        betas = []
        for turn in range(59):
            config = searcher.suggest(str(turn))
            assert isinstance(config, dict)
            beta = config["trial"]["codebook"]["commitment"]["beta"]
            betas.append(beta)
            told = {"samples": 320, "perplexity": beta, "recon_loss": beta}
            searcher.on_trial_complete(str(turn), told | {"complete": True, "diverged": False})
        above[constraint] = sum(beta > 1 for beta in betas[20:])
    assert above["recon_loss <= 1"] < 20 < above[None]


# --- what ends a search ---------------------------------------------------------------------------


def test_no_new_trial_once_the_budget_is_spent_but_those_begun_go_on(
    load: Load, tmp_path: Path
) -> None:
    space, storage = load(sampler="random", trials=9), open_journal(tmp_path / "journal")
    started = count()
    searcher = VQSearch(space, storage, 0, {"folder": "trials"}, spent=lambda: next(started) >= 2)
    assert [isinstance(searcher.suggest(name), dict) for name in "abc"] == [True, True, False]
    again = VQSearch(space, storage, 0, {"folder": "trials"}, None, [0, 1], spent=lambda: True)
    configs = [again.suggest(name) for name in "abc"]
    assert [c["trial_id"] for c in configs if isinstance(c, dict)] == ["t0001", "t0002"]
    assert configs[-1] == VQSearch.FINISHED


def test_a_combination_that_is_no_config_is_no_trial(load: Load, tmp_path: Path) -> None:
    """Nor is it counted as one by a later session."""
    space, storage = load(sampler="random", trials=4), open_journal(tmp_path / "journal")

    def suggest(trial: Any) -> dict[str, Any]:
        values = Space.suggest(space, trial)
        return values | ({"seed": "none"} if trial.number in (0, 2) else {})

    class Rare(Space):
        def suggest(self, trial: Any) -> dict[str, Any]:
            return suggest(trial)

    rare = Rare(space.name, "", space.source, space.search, space.parameters)
    names = []
    for turns in (2, 9):
        searcher = VQSearch(rare, storage, 0, {"folder": "trials"})
        for turn in range(turns):
            config = searcher.suggest(f"{turns} {turn}")
            if isinstance(config, dict):
                names.append(config["trial_id"])
                searcher.on_trial_complete(f"{turns} {turn}", result_of(config, 1))
    assert names == ["t0002", "t0004", "t0005"]
    trials = make_study(storage, space.search.objectives).trials
    assert [trial.number for trial in trials if UNFIT in trial.user_attrs] == [0, 2]
    assert trials[0].state == TrialState.FAIL
