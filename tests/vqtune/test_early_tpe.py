"""The sampler that learns at the first rung: from all trials, and nothing that is not true."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from vqtune.early_tpe import EarlyTPE, FirstRung

OBJECTIVES = {"perplexity": "max", "recon_loss": "min"}
SPACE = {"x": FloatDistribution(0, 1)}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def rung() -> FirstRung:
    return FirstRung(40, 120, OBJECTIVES)


def report(samples: int, loss: float, perplexity: float = 10.0, **more: Any) -> dict[str, Any]:
    values = {"samples": samples, "recon_loss": loss, "perplexity": perplexity, "diverged": False}
    return {**values, **more}


def make_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def trained(study: optuna.Study, x: float, state: TrialState = TrialState.PRUNED) -> None:
    """A trial that does the better at the rung the nearer it is to 0.8, whatever its end is."""
    study.enqueue_trial({"x": x})
    trial = study.ask(SPACE)
    far = abs(trial.params["x"] - 0.8)
    rung().note(trial, report(48, far, 100 * (1 - far)))
    values = [100 * x, 1 - x] if state == TrialState.COMPLETE else None
    study.tell(trial, values, state=state)


def proposed(study: optuna.Study, n: int = 40) -> list[float]:
    """What would be proposed next, by as many samplers of different seeds."""
    found = []
    for seed in range(n):
        tpe = TPESampler(seed=seed, multivariate=True, group=True, constant_liar=False)
        study.sampler = EarlyTPE(tpe, rung())
        trial = study.ask(SPACE)
        found.append(trial.params["x"])
        study.tell(trial, state=TrialState.FAIL)
    return found


def test_it_learns_from_trials_that_were_all_stopped_and_leaves_them_pruned() -> None:
    study, chance = make_study(), random.Random(0)
    for _ in range(60):
        trained(study, chance.random())
    assert statistics.median(abs(x - 0.8) for x in proposed(study)) < 0.1
    stopped = study.get_trials(states=(TrialState.PRUNED,))
    assert len(stopped) == 60
    assert all(trial.values is None and not trial.intermediate_values for trial in stopped)


def test_while_more_are_complete_than_were_at_the_rung_their_ends_count() -> None:
    study, chance = make_study(), random.Random(0)
    for _ in range(60):
        x = chance.random()
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": x}, distributions=SPACE, values=[100 * (1 - x), x]
            )
        )
    trained(study, 0.8)
    assert statistics.median(proposed(study)) < 0.2


def test_where_all_are_known_it_is_tpe() -> None:
    """The same values as ends of another study, and TPE itself on that."""
    early, plain, chance = make_study(), make_study(), random.Random(0)
    for _ in range(30):
        x = chance.random()
        trained(early, x)
        far = abs(x - 0.8)
        values = [100 * (1 - far), far]
        plain.add_trial(
            optuna.trial.create_trial(params={"x": x}, distributions=SPACE, values=values)
        )
    for seed in range(5):
        early.sampler = EarlyTPE(TPESampler(seed=seed, constant_liar=False), rung())
        plain.sampler = TPESampler(seed=seed, constant_liar=False)
        mine, other = early.ask(SPACE), plain.ask(SPACE)
        assert mine.params == other.params
        for study, trial in ((early, mine), (plain, other)):
            study.tell(trial, state=TrialState.FAIL)


def noted(*reports: dict[str, Any]) -> list[float] | None:
    study = make_study()
    trial = study.ask(SPACE)
    for one in reports:
        rung().note(trial, one)
    return rung().values(study.trials[0])


def test_what_is_kept_is_the_first_report_at_the_rung() -> None:
    assert noted(report(39, 0.5)) is None
    assert noted(report(40, 0.5)) == [10.0, 0.5]
    assert noted(report(20, 0.9), report(40, 0.5), report(80, 0.1)) == [10.0, 0.5]
    assert noted(report(120, 0.5)) is None  # the next rung's: another length of training
    assert noted(report(40, math.nan, diverged=True)) is None


def test_a_codebook_that_has_yet_to_grow_counts_for_what_it_is_heading_for() -> None:
    assert noted(report(40, 0.5, 60.0, usage=60 / 64, codes=512)) == [480.0, 0.5]


def test_a_trial_that_failed_and_one_of_another_rung_do_not_count() -> None:
    study = make_study()
    trained(study, 0.5, TrialState.FAIL)
    assert rung().values(study.trials[0]) is None
    trained(study, 0.5)
    assert rung().values(study.trials[1]) is not None
    assert FirstRung(80, 160, OBJECTIVES).values(study.trials[1]) is None
