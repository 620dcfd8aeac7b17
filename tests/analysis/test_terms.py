"""A user's own terms: what is read, what is left to the run, and what is refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from run_folder import SPEC, RunFolder

from analysis.constraint import Constraint
from analysis.errors import RunError
from analysis.front import Objective
from analysis.records import read_run
from analysis.terms import metric_names, terms

TWO = (Objective("perplexity", "max"), Objective("recon_loss", "min"))


def searched(constraint: Any) -> dict[str, Any]:
    return SPEC | {"space": {"search": {"constraint": constraint}}}


def test_what_a_user_leaves_open_is_the_searchs() -> None:
    found = terms(searched("recon_loss <= 0.9*baseline"))
    assert found.objectives == TWO
    assert found.constraint == Constraint("recon_loss", "<=", 0.9, relative=True)
    assert found.weights == {}
    assert terms(searched(None)).constraint is None


@pytest.mark.parametrize("space", [{}, {"search": {}}, {"search": 3}, None, "full"])
def test_a_spec_without_a_constraint_asks_for_no_harm(space: Any) -> None:
    expected = Constraint("recon_loss", "<=", 1.0, relative=True)
    assert terms(SPEC | {"space": space}).constraint == expected
    assert terms({"objectives": SPEC["objectives"]}).constraint == expected


def test_a_users_terms_come_first() -> None:
    found = terms(
        searched("recon_loss <= 1.0*baseline"),
        "usage>=0.5",
        ["bits_per_frame:min", "perplexity: max"],
        ["perplexity=2", "bits_per_frame = 0"],
    )
    assert found.objectives == (*TWO, Objective("bits_per_frame", "min"))
    assert found.constraint == Constraint("usage", ">=", 0.5, relative=False)
    assert found.weights == {"perplexity": 2, "recon_loss": 1, "bits_per_frame": 0}
    assert terms(SPEC, " None ").constraint is None


def test_terms_in_words() -> None:
    held = "those that hold recon_loss <= 1*baseline, by non-dominated rank and "
    assert str(terms(SPEC)) == f"{held}hypervolume of perplexity:max, recon_loss:min"
    weighted = terms(SPEC, "none", weights=["perplexity=2"])
    assert str(weighted) == "by non-dominated rank and weights perplexity=2, recon_loss=1"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"constraint": "recon_loss"}, "constraint: found 'recon_loss', allowed: METRIC <= "),
        ({"constraint": ""}, "constraint: found '', allowed: METRIC <= .*, or none"),
        ({"objectives": ["usage"]}, "objective: found 'usage', allowed METRIC:max or METRIC:min"),
        ({"objectives": [":min"]}, "objective: found ':min', allowed METRIC:max"),
        ({"objectives": ["usage:up"]}, "objective: found 'usage:up', allowed METRIC:max"),
        ({"objectives": ["perplexity:min"]}, "but perplexity:max is one already"),
        ({"objectives": ["usage:min", "usage:max"]}, "but usage:min is one already"),
        ({"weights": ["usage=1"]}, "found 'usage=1', .* each of perplexity, recon_loss"),
        ({"weights": ["perplexity"]}, "weight: found 'perplexity', allowed METRIC=NUMBER"),
        ({"weights": ["perplexity=-1"]}, "a number of 0 or more"),
        ({"weights": ["perplexity=nan"]}, "found 'perplexity=nan'"),
        ({"weights": ["perplexity=inf"]}, "found 'perplexity=inf'"),
        ({"weights": ["perplexity=1", "perplexity=2"]}, "found 'perplexity=2', .* once for each"),
        ({"weights": ["perplexity=0", "recon_loss=0"]}, "allowed: one above 0"),
    ],
)
def test_bad_terms_are_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError) as caught:
        terms(SPEC, **asked)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_bad_constraint_in_a_spec_says_where() -> None:
    with pytest.raises(RunError, match=r"spec.yaml: space.search.constraint: found 'low', allowed"):
        terms(searched("low"))


def test_the_metrics_of_a_run(run_folder: RunFolder) -> None:
    run_folder.complete("a", 1.0, 1.0)
    names = metric_names(read_run(run_folder.path))
    assert {"perplexity", "recon_loss", "seconds", "samples"} <= set(names)
    assert not {"trial_id", "state", "role", "folder", "reason"} & set(names)
    assert not any(name.startswith("config.") for name in names)
