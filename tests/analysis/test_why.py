"""Whatever a run holds, importance, effects, interactions and curves say what can be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from designed import Config, configs, searched
from run_folder import RunFolder

from analysis import curves, effects, importance, interactions
from analysis.records import Records, read_run

FUNCTIONS: list[tuple[Callable[[Records], pd.DataFrame], tuple[str, ...]]] = [
    (importance.importance, importance.COLUMNS),
    (effects.technique_effects, effects.COLUMNS),
    (interactions.interactions, interactions.COLUMNS),
    (curves.technique_curves, curves.COLUMNS),
]
TOLD = [pytest.param(*function, id=function[0].__name__) for function in FUNCTIONS]


def change(config: Config, chance: np.random.Generator) -> None:
    config["training"]["lr"] = float(10 ** chance.uniform(-4, -2))
    config["codebook"]["respawn"] = {"period": 100} if chance.random() < 0.5 else None


def nothing(_: RunFolder) -> None:
    pass


def baseline_alone(folder: RunFolder) -> None:
    folder.complete("baseline", 40.0, 0.5, role="baseline")


def one_trial(folder: RunFolder) -> None:
    folder.complete("t1", 40.0, 0.5)


def no_reports(folder: RunFolder) -> None:
    for number, config in enumerate(configs(30, change)):
        folder.trial(f"t{number}", config=config)


def all_diverged(folder: RunFolder) -> None:
    for number, config in enumerate(configs(30, change)):
        report = {"samples": 500, "diverged": True, "done": True, "perplexity": math.nan}
        folder.trial(f"t{number}", report, config=config)


def all_alike(folder: RunFolder) -> None:
    for number in range(30):
        folder.complete(f"t{number}", 40.0 + number, 0.5)


def truncated(folder: RunFolder) -> None:
    for number, config in enumerate(configs(30, change)):
        where = folder.complete(f"t{number}", 40.0, 0.5, config=config)
        (where / "result.json").write_text('{"samples": 10, "perp')
        if number % 2:
            (where / "params.json").write_text("{")


@pytest.mark.parametrize(("function", "columns"), TOLD)
@pytest.mark.parametrize(
    "write",
    [nothing, baseline_alone, one_trial, no_reports, all_diverged, all_alike, truncated],
)
def test_what_says_nothing_makes_an_empty_table(
    run_folder: RunFolder,
    write: Callable[[RunFolder], None],
    function: Callable[[Records], pd.DataFrame],
    columns: tuple[str, ...],
) -> None:
    write(run_folder)
    table = function(read_run(run_folder.path))
    assert tuple(table.columns) == columns
    assert table.empty


@pytest.mark.parametrize(("function", "columns"), TOLD)
@pytest.mark.parametrize("trials", [2, 3, 9, 12, 24])
@pytest.mark.parametrize("value", [7.0, math.nan, math.inf])
def test_an_objective_that_is_no_use_leaves_the_others(
    run_folder: RunFolder,
    function: Callable[[Records], pd.DataFrame],
    columns: tuple[str, ...],
    trials: int,
    value: float,
) -> None:
    """There is no baseline in it either."""
    records = searched(
        run_folder,
        configs(trials, change),
        lambda config: {"perplexity": config["training"]["lr"], "recon_loss": value},
    )
    table = function(records)
    assert tuple(table.columns) == columns
    if trials == 24 and function is not interactions.interactions:
        name = "metric" if function is curves.technique_curves else "objective"
        assert "perplexity" in set(table[name])


def test_a_third_objective_is_told_like_the_others(run_folder: RunFolder) -> None:
    run_folder.spec(objectives={"perplexity": "max", "recon_loss": "min", "seconds": "min"})
    records = searched(
        run_folder, configs(40, change), lambda config: {"seconds": config["training"]["lr"]}
    )
    assert set(importance.importance(records)["objective"]) == {"seconds"}
    assert "seconds" in set(effects.technique_effects(records)["objective"])
    assert "seconds" in set(curves.technique_curves(records)["metric"])
