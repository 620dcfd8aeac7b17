"""A search that begins with what an earlier one has found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from tests.vqtune.conftest import TINY, Searched, digest, run_search, study_of
from trainables.errors import InputError
from vqtune.journal import UNFIT, WARM, is_own, make_study, open_journal
from vqtune.searcher import VQSearch
from vqtune.spaces import Space, load_space
from vqtune.stored_trial import fitted
from vqtune.warm_start import find_warm_start, read_warm_start

Load = Callable[..., Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """TINY, changed as text and in its search block."""

    def changed(*replaced: tuple[str, str], **search: Any) -> Space:
        text = TINY
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tiny.yaml").write_text(text)
        return load_space(str(tmp_path / "tiny.yaml")).with_search("test", **search)

    return changed


@pytest.fixture
def source(load: Load, tmp_path: Path) -> Path:
    """A run with a trial of each state: complete, stopped, failed, no config, running, waiting."""
    space, run = load(trials=9), tmp_path / "runs" / "earlier"
    run.mkdir(parents=True)
    spec = {"objectives": space.search.objectives, "space": space.to_dict()}
    (run / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    searcher = VQSearch(space, open_journal(run / "optuna.journal"), 0, {"folder": "trials"})
    ends = [{"complete": True}, {"complete": False}, {"complete": False, "diverged": True}]
    for number in range(5):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        if number < 3:
            told = {"samples": 320, "perplexity": 3.0, "recon_loss": 0.5, "diverged": False}
            searcher.on_trial_complete(str(number), told | ends[number])
    searcher._ot_trials["3"].set_user_attr(UNFIT, "no config")
    searcher.study.tell(3, state=TrialState.FAIL)
    searcher.study.enqueue_trial({"codebook.commitment.beta": 1.0})
    return run


def study(space: Space) -> optuna.Study:
    return make_study(optuna.storages.InMemoryStorage(), space.search.objectives)


def test_finished_trials_are_taken_and_the_source_is_left_alone(source: Path, load: Load) -> None:
    before, space = digest(source), load()
    warm = read_warm_start(source, space)
    assert digest(source) == before
    assert warm.told == "warm start from earlier: 3 trials taken, 0 do not fit this space"
    new = study(space)
    assert warm.add(new)
    theirs = study_of(source).trials
    for trial, original in zip(new.trials, theirs, strict=False):
        assert trial.params == original.params
        assert (trial.state, trial.values) == (original.state, original.values)
        assert trial.constraints == original.constraints
        assert trial.user_attrs == {WARM: {"run": "earlier", "number": original.number}}
    assert [trial.state.name for trial in new.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert new.trials[0].constraints == {"recon_loss <= 1*baseline": 0.0}


@pytest.mark.parametrize("added", [0, 1, 2, 3])
def test_a_session_that_was_killed_while_it_added_them_is_made_good(
    added: int, source: Path, load: Load
) -> None:
    space = load()
    warm, new = read_warm_start(source, space), study(space)
    for trial in warm.trials[:added]:
        new.add_trial(trial)
    assert warm.add(new)
    assert [trial.user_attrs[WARM]["number"] for trial in new.trials] == [0, 1, 2]
    assert not warm.add(new)
    assert len(new.trials) == 3


CHANGES: dict[str, tuple[tuple[str, str], Callable[[FrozenTrial], bool]]] = {
    "a wider range": (("max: 10.0", "max: 20.0"), lambda trial: True),
    "a range with nobody in it": (("max: 10.0", "max: 0.06"), lambda trial: False),
    "a constant": (
        ("{distribution: log_uniform_values, min: 0.05, max: 10.0}", "0.25"),
        lambda trial: False,
    ),
    "one parameter more": (
        ("dim: 4", "dim: {values: [4, 8]}"),
        lambda trial: False,
    ),
    "one branch less": (
        ("        ema: {kind: ema, decay: {min: 0.9, max: 0.99}}\n", ""),
        lambda trial: trial.params["codebook.update"] == "gradient",
    ),
    "another name of a branch": (
        ("        ema: {kind", "        moving: {kind"),
        lambda trial: trial.params["codebook.update"] == "gradient",
    ),
}


@pytest.mark.parametrize(("change", "fits"), CHANGES.values(), ids=CHANGES)
def test_what_does_not_fit_is_left_out(
    change: tuple[str, str], fits: Callable[[FrozenTrial], bool], source: Path, load: Load
) -> None:
    space = load(change)
    warm = read_warm_start(source, space)
    there = [trial for trial in study_of(source).trials[:3] if fits(trial)]
    assert [trial.params for trial in warm.trials] == [trial.params for trial in there]
    assert warm.left_out == 3 - len(there)
    new = study(space)
    warm.add(new)
    # What the space proposes next has the same distributions.
    fresh = new.ask()
    space.suggest(fresh)


def test_params_fit_by_value_and_by_type(load: Load) -> None:
    space = load(("dim: 4", "dim: {min: 4, max: 8}"))
    params = {"codebook.commitment.beta": 0.25, "codebook.update": "ema"}
    params |= {"codebook.update[ema].decay": 0.95, "codebook.dim": 6}
    fit = fitted(space, params)
    assert fit is not None
    assert fit[0]["codebook"]["update"] == {"kind": "ema", "decay": 0.95}
    assert set(fit[1]) == set(params)
    for name, value in {
        "codebook.dim": 9,
        "codebook.commitment.beta": True,
        "codebook.update": 1,
        "codebook.update[ema].decay": "0.95",
        "more": 1,
    }.items():
        assert fitted(space, params | {name: value}) is None
    del params["codebook.dim"]
    assert fitted(space, params) is None


def test_values_come_in_the_order_of_the_new_objectives(source: Path, load: Load) -> None:
    space = load(objectives={"recon_loss": "min", "perplexity": "max"})
    warm = read_warm_start(source, space)
    assert warm.trials[0].values == [0.5, 3.0]


def test_what_makes_values_hard_to_compare_is_told(source: Path, load: Load) -> None:
    warm = read_warm_start(source, load(("samples: 320", "samples: 640")))
    assert warm.told == (
        "warm start from earlier: 3 trials taken, 0 do not fit this space; it had "
        "parameters.training.samples 320, here it is 640"
    )


def test_another_constraint_says_nothing(source: Path, load: Load) -> None:
    warm = read_warm_start(source, load(constraint="usage >= 0.5"))
    assert [trial.constraints for trial in warm.trials] == [{}, {}, {}]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_learns_from_them(sampler: str, load: Load, tmp_path: Path) -> None:
    """A loss that grows with beta: after a warm start the first proposals are small already.

    With a single parameter NSGA-II mutates every child; so there it is asked whether it breeds.
    """
    space = load(sampler=sampler, trials=61, objectives={"recon_loss": "min"}, constraint=None)
    space = space.with_overrides({"codebook.update": {"kind": "ema"}})
    run = tmp_path / "runs" / "earlier"
    run.mkdir(parents=True)
    spec = {"objectives": space.search.objectives, "space": space.to_dict()}
    (run / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    searcher = VQSearch(space, open_journal(run / "optuna.journal"), 0, {"folder": "trials"})
    betas: dict[str, list[float]] = {"cold": [], "warm": []}
    for turn in range(60):
        beta = propose(searcher, turn)
        betas["cold"] += [beta] * (turn < 12)
    storage = open_journal(tmp_path / "journal")
    new = make_study(storage, space.search.objectives)
    read_warm_start(run, space).add(new)
    searcher = VQSearch(space, storage, 1, {"folder": "trials"})
    for turn in range(12):
        betas["warm"].append(propose(searcher, turn))
    if sampler == "tpe":
        assert sorted(betas["warm"])[6] < 0.5 * sorted(betas["cold"])[6]
    else:
        generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in new.trials]
        assert generations == [0] * 60 + [1] * 12


def propose(searcher: VQSearch, turn: int) -> float:
    config = searcher.suggest(str(turn))
    assert isinstance(config, dict)
    beta = float(config["trial"]["codebook"]["commitment"]["beta"])
    told = {"samples": 320, "recon_loss": beta, "complete": True, "diverged": False}
    searcher.on_trial_complete(str(turn), told)
    return beta


# --- refused --------------------------------------------------------------------------------------


def test_other_objectives_are_refused(source: Path, load: Load) -> None:
    with pytest.raises(InputError) as caught:
        read_warm_start(source, load(objectives={"usage": "max", "recon_loss": "min"}))
    assert str(caught.value) == (
        "--warm-start: the objectives of earlier are perplexity max, recon_loss min; allowed: a "
        "run with those of this search, usage max, recon_loss min"
    )


def test_a_run_without_a_journal_is_refused(source: Path, load: Load) -> None:
    (source / "optuna.journal").unlink()
    with pytest.raises(
        InputError, match=r"--warm-start: .*earlier has no space and no optuna.journal; allowed"
    ):
        read_warm_start(source, load())
    assert not (source / "optuna.journal").exists()


def test_a_journal_that_is_none_is_refused(source: Path, load: Load) -> None:
    (source / "optuna.journal").write_text("hello\n")
    with pytest.raises(InputError, match=r"optuna.journal: found 'hello' in line 1; allowed"):
        read_warm_start(source, load())


def test_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--warm-start: no run 'nothing': looked for"):
        find_warm_start("nothing")


# --- a whole search -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warmed(
    finished: Searched, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, Searched, Path]:
    """Three trials after the four of `finished`, then one more, when that run is gone."""
    folder = tmp_path_factory.mktemp("warm")
    earlier = folder / "runs" / "earlier"
    shutil.copytree(finished.run, earlier)
    (folder / "tiny.yaml").write_text(TINY)
    asked = {"storage": folder / "runs", "name": "demo", "seed": 6, "warm_start": str(earlier)}
    first = run_search(folder / "tiny.yaml", cluster, **asked, trials=3)
    kept = shutil.copytree(first.run, folder / "kept")
    shutil.rmtree(earlier)
    del asked["warm_start"]
    from vqtune.trial_count import More

    second = run_search(folder / "tiny.yaml", cluster, **asked, trials=More(1), resume=True)
    return first, second, Path(kept)


def test_a_search_from_a_run_has_its_own_trials_beside_that_runs(
    warmed: tuple[Searched, Searched, Path], finished: Searched
) -> None:
    first, _, kept = warmed
    assert first.outcome.finished
    assert "Note: warm start from earlier: 4 trials taken, 0 do not fit this space\n" in (
        first.printed
    )
    trials = study_of(kept).trials
    assert [is_own(trial) for trial in trials] == [False] * 4 + [True] * 2
    assert [trial.values for trial in trials[:4]] == [
        trial.values for trial in study_of(finished.run).trials
    ]
    names = sorted(path.name for path in (kept / "trials").iterdir())
    assert names == ["baseline", "t0005", "t0006"]
    for number in (4, 5):
        report = json.loads(
            (kept / "trials" / f"t{number + 1:04d}" / "result.json").read_text().splitlines()[-1]
        )
        assert trials[number].values == [report["perplexity"], report["recon_loss"]]


def test_a_resumed_one_takes_them_no_second_time(warmed: tuple[Searched, Searched, Path]) -> None:
    """Nor does it need that run any more."""
    _, second, _ = warmed
    assert second.outcome.finished
    assert "warm start" not in second.printed
    assert [is_own(trial) for trial in study_of(second.run).trials] == [False] * 4 + [True] * 3
    assert list(second.states()) == ["baseline", "t0005", "t0006", "t0007"]
    spec = yaml.safe_load((second.run / "spec.yaml").read_text())
    assert (spec["trials"], Path(spec["warm_start"]).name) == (4, "earlier")
