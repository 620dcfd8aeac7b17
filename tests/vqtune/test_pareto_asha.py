"""The contract of every scheduler that we offer, and what ParetoASHA promises beyond it."""

from __future__ import annotations

import math
import pickle
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import FIFOScheduler

from vqtune.pareto_asha import ParetoASHA
from vqtune.scheduler import make_scheduler
from vqtune.spaces import SearchSettings

SAMPLES = 320
BOTH = {"perplexity": "max", "recon_loss": "min"}
OFFERED = ["pareto", "recon_loss", "perplexity", "none"]


def tune_trial(trial_id: str, role: str = "search") -> Any:
    """As much of a Tune trial as a scheduler looks at."""
    return SimpleNamespace(
        trial_id=f"tune's {trial_id}", config={"trial_id": trial_id, "role": role}
    )


def report(
    samples: int, loss: float = 0.5, perplexity: float = 50.0, **more: Any
) -> dict[str, Any]:
    return {"samples": samples, "recon_loss": loss, "perplexity": perplexity, **more}


def hear(scheduler: Any, trial_id: str, values: dict[str, Any], role: str = "search") -> bool:
    action = scheduler.on_trial_result(None, tune_trial(trial_id, role), values)
    assert action in ("CONTINUE", "STOP")
    return bool(action == "CONTINUE")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Reports of several trials in the order in which they come."""
    waiting = {f"t{n}": list(range(20, SAMPLES, 20)) for n in range(draw(st.integers(1, 6)))}
    history = []
    while waiting:
        trial = draw(st.sampled_from(sorted(waiting)))
        value = st.integers(0, 6).map(float)
        history.append((trial, report(waiting[trial].pop(0), draw(value), draw(value))))
        if not waiting[trial]:
            del waiting[trial]
    return history


# --- every scheduler -----------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", OFFERED)
@settings(max_examples=50, deadline=None)
@given(
    history=histories(),
    eta=st.sampled_from([1.5, 3, 4]),
    brackets=st.integers(1, 2),
    data=st.data(),
)
def test_pickled_in_between_it_decides_as_if_it_had_not_been(
    early_stopping: Any,
    history: list[tuple[str, dict[str, Any]]],
    eta: float,
    brackets: int,
    data: st.DataObject,
) -> None:
    asked = SearchSettings(early_stopping=early_stopping, reduction_factor=eta, brackets=brackets)
    cut = data.draw(st.integers(0, len(history)))
    through, other = make_scheduler(asked, SAMPLES), make_scheduler(asked, SAMPLES)
    for i, (trial, values) in enumerate(history):
        if i == cut:
            other = pickle.loads(pickle.dumps(other))
        assert hear(through, trial, values) == hear(other, trial, values)


@pytest.mark.parametrize("early_stopping", OFFERED)
def test_the_best_goes_on_and_the_worst_stops(early_stopping: Any) -> None:
    scheduler = make_scheduler(SearchSettings(early_stopping=early_stopping), SAMPLES)
    for n in range(5):
        assert hear(scheduler, f"t{n}", report(39, 0.9, 10.0))
        hear(scheduler, f"t{n}", report(40, 0.5 + n / 10, 50.0 - n))
    assert hear(scheduler, "best", report(40, 0.4, 60.0))
    assert hear(scheduler, "worst", report(40, 1.0, 1.0)) == (early_stopping == "none")


@pytest.mark.parametrize("early_stopping", OFFERED)
@settings(max_examples=50, deadline=None)
@given(history=histories())
def test_the_baseline_is_never_stopped(
    early_stopping: Any, history: list[tuple[str, dict[str, Any]]]
) -> None:
    scheduler = make_scheduler(SearchSettings(early_stopping=early_stopping), SAMPLES)
    for trial, values in history:
        hear(scheduler, trial, values)
        assert hear(scheduler, "baseline", report(values["samples"], 99.0, 0.0), "baseline")


def test_what_a_space_asks_for() -> None:
    assert isinstance(make_scheduler(SearchSettings(), 320), ParetoASHA)
    assert type(make_scheduler(SearchSettings(early_stopping="none"), 320)) is FIFOScheduler
    alone = make_scheduler(SearchSettings(early_stopping="perplexity"), 320)
    hear(alone, "a", report(40, 0.1, 10.0))
    assert hear(alone, "b", report(40, 0.9, 11.0))
    assert not hear(alone, "c", report(40, 0.0, 9.0))


# --- ParetoASHA ----------------------------------------------------------------------------------


def asha(**settings: Any) -> ParetoASHA:
    return ParetoASHA(**{"objectives": BOTH, "samples": 320, "grace": 40, **settings})


def test_rungs_stand_at_powers_of_eta() -> None:
    assert [list(rungs) for rungs in asha(reduction_factor=2, brackets=2).rungs] == [
        [160, 80, 40],
        [160, 80],
    ]
    assert list(asha(reduction_factor=3).rungs[0]) == [120, 40]
    assert list(asha(samples=27, grace=1, reduction_factor=3).rungs[0]) == [9, 3, 1]


def test_a_trade_off_goes_on_where_one_metric_would_stop_it() -> None:
    scheduler, alone = asha(), asha(objectives={"recon_loss": "min"})
    for n in range(9):
        for one in (scheduler, alone):
            hear(one, f"t{n}", report(40, 0.5 - n / 100, 50.0 + n))
    odd = report(40, 0.9, 400.0)
    assert hear(scheduler, "odd", odd)
    assert not hear(alone, "odd", odd)


def test_a_codebook_that_has_yet_to_grow_is_judged_on_what_it_is_heading_for() -> None:
    scheduler = asha(objectives={"perplexity": "max"})
    for n in range(9):
        grown = report(40, 0.5, 300.0 + n, usage=(300.0 + n) / 512, codes=512)
        hear(scheduler, f"t{n}", grown)
    assert hear(scheduler, "growing", report(40, 0.5, 62.0, usage=62 / 64, codes=512))
    assert not hear(scheduler, "collapsed", report(40, 0.5, 62.0, usage=62 / 512, codes=512))


def test_a_report_that_comes_again_gets_the_same_answer() -> None:
    scheduler = asha()
    hear(scheduler, "a", report(40, 0.1, 90.0))
    assert not hear(scheduler, "b", report(40, 0.9, 9.0))
    for n in range(9):
        hear(scheduler, f"t{n}", report(40, 1.0 + n, 1.0))
    before = scheduler.debug_string()
    assert not hear(scheduler, "b", report(40, 0.9, 9.0))
    assert hear(scheduler, "a", report(40, 0.1, 90.0))
    assert scheduler.debug_string() == before == "ParetoASHA: trials at 40: 11, 120: 0; 10 stopped"


def test_a_trial_that_skips_a_rung_is_judged_at_the_last_that_it_has_reached() -> None:
    scheduler = asha()
    hear(scheduler, "a", report(150))
    assert [len(rung.arrivals) for rung in scheduler.rungs[0].values()] == [1, 0]


def test_one_that_diverges_stops() -> None:
    assert not hear(asha(), "first", report(40, math.nan, 1.0))


def test_brackets_are_filled_as_hyperband_fills_them_and_depend_on_name_and_seed_alone() -> None:
    scheduler = asha(reduction_factor=2, brackets=3, seed=1)
    for n in range(3000):
        scheduler.hear(f"t{n}", report(160))
    counts = [sum(len(r.arrivals) for r in rungs.values()) for rungs in scheduler.rungs]
    # eta^s / (s + 1) for s = 2, 1, 0
    expected = [4 / 3, 1.0, 1.0]
    assert counts == pytest.approx([3000 * e / sum(expected) for e in expected], rel=0.1)
    again = asha(reduction_factor=2, brackets=3, seed=1)
    for n in reversed(range(3000)):
        again.hear(f"t{n}", report(160))
    members = [{name for r in rungs.values() for name in r.arrivals} for rungs in scheduler.rungs]
    assert members == [{n for r in rungs.values() for n in r.arrivals} for rungs in again.rungs]
    other = asha(reduction_factor=2, brackets=3, seed=2)
    for n in range(3000):
        other.hear(f"t{n}", report(160))
    assert members != [{n for r in rungs.values() for n in r.arrivals} for rungs in other.rungs]


def test_the_baseline_is_compared_in_every_bracket() -> None:
    scheduler = asha(reduction_factor=2, brackets=3, constraint="recon_loss <= 1.0*baseline")
    scheduler.hear("baseline", report(160, 0.3), baseline=True)
    assert [rungs[160].baseline for rungs in scheduler.rungs] == [0.3] * 3


def test_ties_are_broken_by_the_seed() -> None:
    def survivors(seed: int) -> list[bool]:
        scheduler = asha(seed=seed)
        return [hear(scheduler, f"t{n}", report(40)) for n in range(300)]

    assert survivors(0) == survivors(0) != survivors(1)
    assert statistics.mean(survivors(0)) == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"objectives": {}}, "objectives: found none, allowed: one metric"),
        ({"objectives": {"x": "up"}}, "objectives.x: found 'up', allowed: 'max' or 'min'"),
        ({"reduction_factor": 1.0}, "reduction_factor: found 1.0, allowed: more than 1"),
        ({"reduction_factor": math.nan}, "reduction_factor: found nan, allowed: more than 1"),
        ({"grace": 320}, "grace: found 320, allowed: more than 0 and less than the 320 samples"),
        ({"grace": 0}, "grace: found 0, allowed: more than 0"),
        ({"brackets": 4}, "brackets: found 4, allowed: at least 1"),
        ({"constraint": "loss < 3"}, "found 'loss < 3', allowed: METRIC <= NUMBER"),
    ],
)
def test_settings_that_will_not_do(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:
        asha(**settings)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [{"objectives": {"fid": "min"}}, {"constraint": "fid <= 3"}])
def test_a_metric_that_no_trial_reports(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="fid: no trial reports it, allowed: perplexity, recon"):
        hear(asha(**settings), "a", report(40))
