"""A search's budget: how it is written, what counts, and how a search ends and goes on with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.vqtune.conftest import TINY, Searched, optuna_states, run_search
from trainables.errors import InputError
from vqtune.budget import KINDS, Budget


@given(st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(1e-6, 1e12)))
def test_a_budget_is_read_as_it_is_written(limits: dict[str, float]) -> None:
    assert Budget.parse(f"{kind}={limit!r}" for kind, limit in limits.items()).limits == limits
    assert Budget.from_spec(limits, "spec").limits == limits


@pytest.mark.parametrize(
    "text",
    [
        *("", "samples", "samples=", "=3", "2e6", "2e6samples", "seconds=3", "gpu_seconds=3"),
        *("samples=0", "samples=-1", "samples=nan", "samples=inf", "samples=many", "samples=1=2"),
    ],
)
def test_any_other_form_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget.parse([text])
    assert str(caught.value) == (
        f"--budget: found {text!r}; allowed: KIND=AMOUNT with a kind of samples, gpu-seconds, "
        "cpu-seconds and an amount above 0, as in samples=2e6"
    )


def test_a_kind_is_given_once() -> None:
    with pytest.raises(InputError, match="--budget: found samples twice; allowed: once"):
        Budget.parse(["samples=3", "samples=4"])


@pytest.mark.parametrize("values", [[], 3, {"samples": "3"}, {"days": 3}])
def test_a_spec_that_is_damaged_is_refused(values: object) -> None:
    with pytest.raises(InputError, match=r"spec.yaml: budget: found"):
        Budget.from_spec(values, "spec.yaml")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["samples=1001"], None),
        (["samples=1e3"], "budget spent: 1,000 of 1,000 samples"),
        (["samples=1e6", "cpu-seconds=12.5"], "budget spent: 15 of 12.5 cpu-seconds"),
        (["gpu-seconds=1"], None),  # told by nobody
    ],
)
def test_the_sum_over_all_trials_counts(texts: list[str], expected: str | None) -> None:
    reports = [
        {"samples": 600, "cpu_seconds": 10.0},
        {"samples": 400, "cpu_seconds": 5.0, "gpu_seconds": math.nan},
        {},  # no report yet
    ]
    assert Budget.parse(texts).spent(reports) == expected


# --- a search that has one, one trial at a time --------------------------------------------------


@pytest.fixture(scope="module")
def sessions(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> list[Searched]:
    """Eight trials of 320 samples; a budget for three, no other, and one for four."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "tiny.yaml").write_text(TINY)
    asked = {"storage": folder / "runs", "name": "demo", "seed": 5, "trials": 8}
    return [
        run_search(folder / "tiny.yaml", cluster, **asked, budget=budget, resume=resume)
        for budget, resume in ((("samples=900",), False), ((), True), (("samples=1280",), True))
    ]


def test_a_spent_budget_ends_the_search(sessions: list[Searched]) -> None:
    first, again, _ = sessions
    assert first.outcome.finished
    assert [line for line in first.printed.splitlines() if "complete" in line][-1].startswith(
        "[3/8]"
    )
    assert first.printed.splitlines()[-1] == (
        "demo: budget spent: 960 of 900 samples; 3 of 8 trials"
    )
    # A resume keeps it.
    assert again.outcome.finished
    assert again.printed == ("demo is finished: budget spent: 960 of 900 samples; 3 of 8 trials\n")


def test_a_larger_budget_goes_on(sessions: list[Searched]) -> None:
    last = sessions[-1]
    assert last.outcome.finished
    assert last.printed.splitlines()[-1] == (
        "demo: budget spent: 1,280 of 1,280 samples; 4 of 8 trials"
    )
    assert last.states() == dict.fromkeys(["baseline", "t0001", "t0002", "t0003"], "complete")
    assert optuna_states(last.run) == ["COMPLETE"] * 3
    spec = yaml.safe_load((last.run / "spec.yaml").read_text())
    assert (spec["budget"], spec["trials"]) == ({"samples": 1280.0}, 8)


def test_what_a_trial_takes_is_in_its_reports(sessions: list[Searched]) -> None:
    for trial_id in ("baseline", "t0003"):
        times = [report["cpu_seconds"] for report in sessions[-1].reports(trial_id)]
        assert times == sorted(times)
        assert times[0] > 0
        assert {report["gpu_seconds"] for report in sessions[-1].reports(trial_id)} == {0.0}


def test_gpu_time_without_a_gpu_is_refused(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(InputError, match="--budget: found gpu-seconds, but trials take no GPU"):
        run_search(
            tmp_path / "tiny.yaml", cluster, storage=tmp_path / "runs", budget=("gpu-seconds=9",)
        )
    assert list((tmp_path / "runs").iterdir()) == []
