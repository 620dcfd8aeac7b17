"""What Optuna is told of a trial: states, values, and the constraint against the baseline."""

from __future__ import annotations

import math
import sys
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from vqtune.outcomes import Yardstick, outcome, tell

BOTH = {"perplexity": "max", "recon_loss": "min"}
HARMLESS = "recon_loss <= 1*baseline"


def report(samples: int = 320, loss: float = 0.5, **more: Any) -> dict[str, Any]:
    metrics = {"samples": samples, "recon_loss": loss, "perplexity": 9.0, "usage": 0.5}
    return metrics | {"complete": samples >= 320, "diverged": False} | more


def yardstick(*losses: float, constraint: str | None = HARMLESS) -> Yardstick:
    """One whose baseline has reported these losses, every 80 samples."""
    made = Yardstick(constraint)
    for i, loss in enumerate(losses, start=1):
        made.hear(report(80 * i, loss))
    return made


NAN, INF = math.nan, math.inf
ENDINGS: dict[str, tuple[dict[str, Any] | None, bool, TrialState]] = {
    "at its full budget": (report(), False, TrialState.COMPLETE),
    "stopped early": (report(80), False, TrialState.PRUNED),
    "diverged": (report(80, NAN, diverged=True), False, TrialState.FAIL),
    "crashed": (report(80), True, TrialState.FAIL),
    "crashed before a report": (None, True, TrialState.FAIL),
    "gone without a report": (None, False, TrialState.FAIL),
    "complete, but with a NaN": (report(perplexity=NAN), False, TrialState.FAIL),
    "complete, but with an infinity": (report(320, INF), False, TrialState.FAIL),
    "stopped, and with a NaN": (report(80, perplexity=NAN), False, TrialState.FAIL),
}


@pytest.mark.parametrize(("last", "error", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_how_a_trial_ended(last: dict[str, Any] | None, error: bool, expected: TrialState) -> None:
    state, values = outcome(last, error, BOTH)
    assert state == expected
    assert values == ([9.0, 0.5] if expected == TrialState.COMPLETE else None)


def test_values_are_those_of_the_objectives_in_their_order() -> None:
    asked = {"recon_loss": "min", "usage": "max", "perplexity": "max"}
    assert outcome(report(), False, asked)[1] == [0.5, 0.5, 9.0]
    assert outcome(report(), False, {"usage": "max"})[1] == [0.5]
    assert outcome(report(), False, {"codes": "max"})[0] == TrialState.FAIL


# --- the constraint -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "last", "expected"),
    [
        ([0.9, 0.7, 0.6, 0.4], report(320, 0.5), 0.1),
        ([0.9, 0.7, 0.6, 0.4], report(328, 0.3), -0.1),  # another batch size
        ([0.9, 0.7, 0.6], report(320, 0.5), 0.0),  # the baseline is still at work: holds
        ([], report(320, 0.5), 0.0),
        ([0.9, 0.7, 0.6, 0.4], report(80, 1.0), 0.1),  # against the baseline's at 80
        ([0.9, 0.7], report(120, 0.9), 0.1),  # halfway between two reports
        ([0.9], report(160, 0.9), None),  # the baseline has not been there
        ([0.9, 0.7], report(40, 0.9), None),
        ([], report(80, 0.9), None),
    ],
)
def test_a_trial_is_held_against_the_baseline_at_its_samples(
    baseline: list[float], last: dict[str, Any], expected: float | None
) -> None:
    found = yardstick(*baseline).violation(last)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_fixed_limit_is_one_for_the_end() -> None:
    fixed = yardstick(0.9, 0.4, constraint="recon_loss <= 0.3")
    assert fixed.violation(report(320, 0.5)) == pytest.approx(0.2)
    assert fixed.violation(report(80, 0.5)) is None  # it may still get there


def test_a_value_that_is_no_number_is_as_far_beyond_as_can_be_written() -> None:
    held = yardstick(0.9, 0.7, 0.6, 0.4, constraint="usage >= 0.1")
    assert held.violation(report(usage=NAN)) == sys.float_info.max


def test_without_a_constraint_nothing_is_said() -> None:
    free = yardstick(0.9, 0.4, constraint=None)
    assert free.violation(report()) is None


def make_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def test_the_constraint_is_told_under_its_own_words() -> None:
    study = make_study()
    held = yardstick(0.9, 0.7, 0.6, 0.4)
    for last, error in [(report(320, 0.5), False), (report(80, 0.8), False), (report(80), True)]:
        tell(study, study.ask(), last, error, BOTH, held)
    complete, pruned, failed = study.trials
    assert (complete.state, complete.values) == (TrialState.COMPLETE, [9.0, 0.5])
    assert complete.constraints == {HARMLESS: pytest.approx(0.1)}
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, None)
    assert pruned.constraints == {HARMLESS: pytest.approx(-0.1)}
    assert (failed.state, failed.constraints) == (TrialState.FAIL, {})


def test_what_a_killed_session_has_told_is_not_told_again() -> None:
    study = make_study()
    trial = study.ask()
    trial.set_constraint(HARMLESS, 0.25)
    tell(study, trial, report(), False, BOTH, yardstick(0.9, 0.7, 0.6, 0.4))
    assert study.trials[0].constraints == {HARMLESS: 0.25}
    assert study.trials[0].state == TrialState.COMPLETE
