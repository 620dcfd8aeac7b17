"""A confirmation: means over new seeds, the probability of being on the front, and the words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder import CONFIG, RunFolder
from scipy.stats import multivariate_normal, norm

from analysis.confirmed import confirmed, front_probability, read_confirmation
from analysis.confirmed_text import choice, confirmed_rows, left_out, promised, sentences
from analysis.errors import RunError
from analysis.front import Objective
from analysis.records import read_run

GAIN, HARM = Objective("perplexity", "max"), Objective("recon_loss", "min")
SPEC = {"objectives": {"perplexity": "max", "recon_loss": "min"}}
SEARCHED = {"baseline": (40.0, 0.5), "a": (300.0, 0.2), "b": (200.0, 0.1), "c": (100.0, 0.3)}
# With the seeds 1, 2 and 3.
AGAIN = {
    "a": [(280.0, 0.20), (290.0, 0.22), (300.0, 0.24)],
    "b": [(198.0, 0.11), (200.0, 0.12), (202.0, 0.13)],
    "baseline": [(41.0, 0.50), (42.0, 0.52), (43.0, 0.54)],
}


def searched(run_folder: RunFolder, **trials: tuple[float, float]) -> None:
    for trial, (perplexity, recon_loss) in (trials or SEARCHED).items():
        role = "baseline" if trial == "baseline" else "search"
        run_folder.complete(trial, perplexity, recon_loss, role=role)


def again(
    run_folder: RunFolder,
    ends: dict[str, list[tuple[float, float]]],
    seeds: tuple[int, ...] = (1, 2, 3),
    **more: Any,
) -> RunFolder:
    """RUN/confirm; a seed whose values are NaN diverged, one that is not there was not begun."""
    folder = RunFolder(run_folder.path / "confirm")
    folder.path.mkdir(parents=True, exist_ok=True)
    block = {"run": "demo", "finalists": list(ends), "seeds": list(seeds)}
    spec = {**SPEC, "confirm": block, **more}
    (folder.path / "spec.yaml").write_text(yaml.safe_dump(spec))
    for trial, results in ends.items():
        for seed, (perplexity, recon_loss) in zip(seeds, results, strict=False):
            fields = {"samples": 1000, "perplexity": perplexity, "recon_loss": recon_loss}
            fields |= {"active_codes": perplexity + 2, "done": True}
            fields |= {"diverged": math.isnan(perplexity), "reason": "diverged: not finite"}
            role = "baseline" if (trial, seed) == ("baseline", seeds[0]) else "confirm"
            folder.trial(f"{trial}-s{seed}", fields, role=role)
    return folder


def table_of(run_folder: RunFolder) -> pd.DataFrame:
    table = confirmed(read_run(run_folder.path))
    assert table is not None
    return table


def row(table: pd.DataFrame, trial: str) -> dict[str, Any]:
    return {str(k): v for k, v in table.set_index("trial_id").loc[trial].items()}


# --- the probability of being on the front -------------------------------------------------------


def probabilities(sets: list[Any], goals: list[Objective], **more: Any) -> Any:
    values = [np.asarray(own, dtype=np.float64).reshape(-1, len(goals)) for own in sets]
    return front_probability(values, goals, more.pop("apart", [False] * len(sets)), **more)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("difference", [0.0, 0.7, 2.0])
def test_one_objective_and_two_configs_in_closed_form(n: int, difference: float) -> None:
    """P = Phi(difference / (sigma sqrt(2 / n)))."""
    one = np.linspace(-1, 1, n)
    sigma = one.std(ddof=1)
    found = probabilities([one + difference, one], [GAIN], draws=200_000)
    expected = norm.cdf(difference / (sigma * math.sqrt(2 / n)))
    assert found[0] == pytest.approx(expected, abs=0.004)
    assert found[1] == pytest.approx(1 - expected, abs=0.004)
    down = probabilities([-one - difference, -one], [Objective("x", "min")], draws=200_000)
    assert down == pytest.approx(found, abs=0.004)


def test_two_objectives_and_two_configs_in_closed_form() -> None:
    """A config is dominated where the difference of the means lies in one quadrant."""
    seeds = np.random.default_rng(3).multivariate_normal([0, 0], [[4, 1], [1, 2]], 6)
    shift = np.array([0.9, 0.4])
    found = probabilities([seeds, seeds + shift], [HARM, HARM], draws=200_000)
    covariance = np.cov(seeds.T) * 2 / 6  # of the difference; the pool is that of either
    below = multivariate_normal([0, 0], covariance).cdf
    assert found[1] == pytest.approx(1 - below(shift), abs=0.004)
    assert found[0] == pytest.approx(1 - below(-shift), abs=0.004)


def test_equal_configs_have_equal_probability() -> None:
    seeds = np.random.default_rng(0).normal(size=(3, 2))
    found = probabilities([seeds] * 4, [GAIN, HARM])
    assert np.ptp(found) < 0.02


def test_what_is_far_ahead_is_certain_and_no_trade_off_is_lost() -> None:
    spread = np.array([[0.0, 0.0], [1.0, 1e-3]])
    sets = [spread + np.array(end) for end in ([300, 0.2], [200, 0.1], [100, 0.3])]
    assert probabilities(sets, [GAIN, HARM]).tolist() == [1, 1, 0]


def test_the_draws_are_the_same_again() -> None:
    sets = [np.array([[1.0], [2.0]]), np.array([[1.5], [1.7]])]
    assert probabilities(sets, [GAIN]).tolist() == probabilities(sets, [GAIN]).tolist()


def test_more_seeds_make_surer() -> None:
    few, many = np.array([-1.0, 1.0]), np.array([-1.0, 1.0] * 8)
    one = probabilities([few + 0.5, few], [GAIN])
    assert probabilities([many + 0.5, many], [GAIN])[0] > one[0] > 0.5


def test_one_seed_tells_no_probability() -> None:
    assert np.isnan(probabilities([[[1.0]], [[2.0]]], [GAIN])).all()
    pooled = probabilities([[1.0, 2.0, 3.0], [9.0], []], [GAIN])
    assert pooled[1] > 0.99
    assert np.isnan(pooled[2])


def test_the_baseline_scatters_by_itself() -> None:
    """It would drown the finalists' spread, or they its own."""
    calm, wild = np.array([-0.1, 0.0, 0.1]), np.array([-30.0, 0.0, 30.0])
    sets = [calm + 1, calm, wild - 500]
    assert probabilities(sets, [GAIN], apart=[False, False, True])[0] == 1
    assert probabilities(sets, [GAIN])[0] < 0.8


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(-9, 9)] * 2), min_size=0, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_probabilities_are_shares(sets: list[list[tuple[float, float]]]) -> None:
    values = [np.array(own, dtype=np.float64).reshape(-1, 2) for own in sets]
    found = front_probability(values, [GAIN, HARM], [False] * len(sets), draws=200)
    known = np.array([len(own) > 0 for own in sets])
    if any(len(own) > 1 for own in sets):
        assert ((found[known] >= 0) & (found[known] <= 1)).all()
        assert found[known].sum() >= 1 - 1e-9  # in every draw some config is on the front
    assert np.isnan(found[~known]).all()


# --- the table -----------------------------------------------------------------------------------


def test_means_and_deviations_are_those_of_the_seeds(run_folder: RunFolder) -> None:
    searched(run_folder)
    again(run_folder, AGAIN)
    table = table_of(run_folder)
    assert list(table["trial_id"]) == ["a", "b", "baseline"]
    a = row(table, "a")
    expected = {
        "role": "search",
        "seeds": 3,
        "seeds_complete": 3,
        "perplexity": 290,
        "perplexity_sd": 10,
        "perplexity_searched": 300,
        "recon_loss": pytest.approx(0.22),
        "recon_loss_sd": pytest.approx(0.02),
        "recon_loss_searched": 0.2,
        "active_codes": 292,
        "active_codes_searched": 50,
        "bits_per_frame": pytest.approx(5.3),
        "on_front_searched": True,
        "on_front": True,
        "harmless": True,
        "probability": 1,
    }
    assert {name: a[name] for name in expected} == expected
    base = row(table, "baseline")
    assert (base["role"], base["on_front"], base["probability"]) == ("baseline", False, 0)


def test_no_confirmation_is_none(run_folder: RunFolder) -> None:
    searched(run_folder)
    assert confirmed(read_run(run_folder.path)) is None


def test_harm_is_against_the_baselines_mean(run_folder: RunFolder) -> None:
    """Searched, it did no harm; against the baseline's new seeds it does."""
    searched(run_folder, baseline=(40, 0.5), a=(300, 0.49))
    again(run_folder, {"a": [(300.0, 0.49)] * 2, "baseline": [(40.0, 0.47)] * 2}, seeds=(1, 2))
    table = table_of(run_folder)
    assert not row(table, "a")["harmless"]
    assert row(table, "baseline")["harmless"]


def test_seeds_that_diverged_are_not_counted_and_lower_the_probability(
    run_folder: RunFolder,
) -> None:
    searched(run_folder)
    nan = (math.nan, math.nan)
    ends = AGAIN | {"b": [(198.0, 0.11), nan, (202.0, 0.13)], "c": [nan, nan, nan]}
    again(run_folder, ends)
    table = table_of(run_folder)
    b, c = row(table, "b"), row(table, "c")
    assert (b["seeds"], b["seeds_complete"], b["perplexity"]) == (3, 2, 200)
    assert b["probability"] == pytest.approx(2 / 3)
    assert (c["seeds_complete"], c["probability"], c["on_front"]) == (0, 0, False)
    assert math.isnan(c["perplexity"])
    found = read_confirmation(read_run(run_folder.path))
    assert found is not None
    assert left_out(found) == [
        "Not counted: c-s1, diverged: not finite",
        "Not counted: b-s2, diverged: not finite",
        "Not counted: c-s2, diverged: not finite",
        "Not counted: c-s3, diverged: not finite",
    ]
    _, rows = confirmed_rows(table, [GAIN, HARM])
    seeds = {line[0]: line[1] for line in rows}
    assert seeds == {"a": "3", "b": "2 of 3", "c": "0 of 3", "baseline": "3"}
    assert rows[-2][:6] == ["c", "0 of 3", "100.0 → –", "0.3 → –", "–", "–"]


def test_a_seed_that_is_still_to_come_costs_nothing(run_folder: RunFolder) -> None:
    searched(run_folder)
    folder = again(run_folder, {name: ends[:2] for name, ends in AGAIN.items()})
    folder.trial("a-s3", {"samples": 500}, role="confirm")
    a = row(table_of(run_folder), "a")
    assert (a["seeds"], a["seeds_complete"], a["probability"]) == (3, 2, 1)


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_known_before_the_first_trial(begun: bool, run_folder: RunFolder) -> None:
    searched(run_folder)
    folder = again(run_folder, {name: [] for name in AGAIN})
    if begun:
        folder.trial("a-s1")
    table = table_of(run_folder)
    assert table["seeds_complete"].tolist() == [0, 0, 0]
    assert table["probability"].isna().all()
    assert choice(table) is None
    assert sentences(table, [GAIN, HARM]) == [
        "No finalist is confirmed: none is on the front of the means"
    ]
    assert len(confirmed_rows(table, [GAIN, HARM])[1]) == 3


def test_one_seed_has_no_deviation_and_no_probability(run_folder: RunFolder) -> None:
    searched(run_folder)
    again(run_folder, {name: ends[:1] for name, ends in AGAIN.items()}, seeds=(1,))
    table = table_of(run_folder)
    assert table.filter(like="_sd").isna().all(axis=None)
    assert table["probability"].isna().all()
    _, rows = confirmed_rows(table, [GAIN, HARM])
    assert rows[0][1:5] == ["1", "300.0 → 280.0", "0.2 → 0.2", "yes (–)"]
    last = sentences(table, [GAIN, HARM])[-1]
    assert last == "With one seed there is neither a deviation nor a probability"


def test_without_a_baseline_nobody_is_harmless(run_folder: RunFolder) -> None:
    searched(run_folder, a=(300, 0.2), b=(200, 0.1))
    again(run_folder, {name: AGAIN[name] for name in ("a", "b")})
    table = table_of(run_folder)
    assert not table["harmless"].any()
    _, rows = confirmed_rows(table, [GAIN, HARM])
    assert [line[5] for line in rows] == ["–", "–"]
    assert "× baseline" not in " ".join(sentences(table, [GAIN, HARM]))


def test_a_finalist_that_the_search_has_no_more(run_folder: RunFolder) -> None:
    searched(run_folder, baseline=(40, 0.5), a=(300, 0.2))
    again(run_folder, AGAIN)
    b = row(table_of(run_folder), "b")
    assert math.isnan(b["perplexity_searched"])
    assert (b["perplexity"], b["technique"]) == (200, "")


def test_another_objective_of_the_search_is_told(run_folder: RunFolder) -> None:
    run_folder.spec(objectives={"usage": "max", "recon_loss": "min"})
    searched(run_folder)
    again(run_folder, AGAIN)
    table = table_of(run_folder)
    assert {"usage", "usage_sd", "usage_searched"} <= set(table)
    headers, _ = confirmed_rows(table, [Objective("usage", "max"), HARM])
    assert headers[4] == "usage: searched → confirmed"


@pytest.mark.parametrize(
    "block",
    [
        *(None, "x", {}, {"finalists": ["a"]}, {"finalists": "a", "seeds": [1]}),
        *({"finalists": ["a"], "seeds": ["1"]}, {"finalists": [], "seeds": [1]}),
    ],
)
def test_a_spec_that_is_no_confirmations_is_told(block: Any, run_folder: RunFolder) -> None:
    searched(run_folder)
    again(run_folder, AGAIN, confirm=block)
    with pytest.raises(RunError, match=r"confirm/spec\.yaml: confirm: found .*, allowed: what a "):
        confirmed(read_run(run_folder.path))


# --- the words -----------------------------------------------------------------------------------


def told(run_folder: RunFolder, ends: dict[str, list[tuple[float, float]]]) -> list[str]:
    searched(run_folder)
    again(run_folder, ends)
    return sentences(table_of(run_folder), [GAIN, HARM])


def test_the_winners_curse_is_said(run_folder: RunFolder) -> None:
    """300 to 290 and 200 to 200: 1.7% on average; 0.2 to 0.22 and 0.1 to 0.12: 12.9%."""
    first, second = told(run_folder, AGAIN)
    assert first == (
        "Searched values were better than confirmed by 1.7% in perplexity and 12.9% in "
        "recon_loss, on average over 2 finalists: the winner's curse"
    )
    assert second.startswith(
        "Take a: perplexity 290.0 ± 10.0 (6.9 × baseline), recon_loss 0.22 ± 0.02 (0.423 × "
        "baseline), on the front with a probability of 100%; first by its means: dominates most "
    )


def test_luck_on_one_side_only(run_folder: RunFolder) -> None:
    ends = AGAIN | {"a": [(330.0, 0.25)] * 3, "b": [(220.0, 0.125)] * 3}
    assert told(run_folder, ends)[0] == (
        "Searched values were better than confirmed by 20.0% in recon_loss and worse than "
        "confirmed by 9.1% in perplexity, on average over 2 finalists: the winner's curse"
    )


def test_no_luck_at_all(run_folder: RunFolder) -> None:
    searched(run_folder)
    again(run_folder, {"a": [(330.0, 0.1)] * 3, "baseline": AGAIN["baseline"]})
    assert promised(table_of(run_folder), [GAIN, HARM]) == (
        "Searched values were worse than confirmed by 9.1% in perplexity and 100.0% in recon_loss"
    )


def test_a_finalist_that_fell_off_the_front_is_not_taken(run_folder: RunFolder) -> None:
    ends = AGAIN | {"a": [(190.0, 0.3), (180.0, 0.3), (185.0, 0.3)]}
    assert told(run_folder, ends)[1].startswith("Take b: ")
    table = table_of(run_folder)
    assert not row(table, "a")["on_front"]
    assert row(table, "a")["on_front_searched"]


def test_its_own_records_are_a_run(run_folder: RunFolder) -> None:
    """`vqtune front RUN/confirm` shows the seeds, against the baseline's first."""
    searched(run_folder)
    again(run_folder, AGAIN)
    own = read_run(run_folder.path / "confirm")
    roles = own.trials.set_index("trial_id")["role"]
    assert roles[roles == "baseline"].index.tolist() == ["baseline-s1"]
    assert own.configs["a-s1"] == CONFIG
