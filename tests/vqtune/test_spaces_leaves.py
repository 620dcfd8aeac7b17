"""The leaves of a space file: their types, what Optuna is asked for them, and bad ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.space_nodes import RandomTrial
from vqtune.space_parser import LEAF_KEYS
from vqtune.spaces import Space, load_space

BETA, DIM = "codebook.commitment.beta", "codebook.dim"
DIM_IS = "parameters: {codebook: {dim: %s}}"
RATE_IS = "parameters: {training: {lr: %s}}"
Load = Callable[[str], Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Space:
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return load_space(str(path))

    return load


def test_a_factory_takes_searched_arguments(load: Load) -> None:
    space = load(
        "parameters: {model: {kind: factory, factory: 'm:f', arguments: {"
        "heads: {min: 1, max: 4}, rate: {min: 0.0, max: 1.0}, act: {values: [gelu, relu]}, "
        "inner: {width: {distribution: q_uniform, min: 8, max: 32, q: 8}}}}}"
    )
    for values in (space.suggest(RandomTrial(random.Random(seed))) for seed in range(20)):
        arguments = values["model"]["arguments"]
        assert type(arguments["heads"]) is int
        assert type(arguments["rate"]) is float
        assert arguments["act"] in ("gelu", "relu")
        assert arguments["inner"]["width"] in (8, 16, 24, 32)
        assert type(arguments["inner"]["width"]) is int


RANGES = [
    # the leaf, where it stands, what Optuna is asked for, what the baseline takes
    ("{min: 0.5, max: 2.0}", BETA, FloatDistribution(0.5, 2.0), 0.5),
    ("{min: 0, max: 2}", BETA, FloatDistribution(0, 2), 0.25),
    ("{distribution: uniform, min: 0, max: 2}", BETA, FloatDistribution(0, 2), 0.25),
    ("{distribution: int_uniform, min: 1, max: 3}", BETA, IntDistribution(1, 3), 1),
    (
        "{distribution: log_uniform_values, min: 0.1, max: 4}",
        BETA,
        FloatDistribution(0.1, 4, log=True),
        0.25,
    ),
    (
        "{distribution: q_uniform, min: 0.25, max: 1.0, q: 0.25}",
        BETA,
        FloatDistribution(0.25, 1.0, step=0.25),
        0.25,
    ),
    (
        "{distribution: q_uniform, min: 0.2, max: 0.6, q: 0.2}",
        BETA,
        FloatDistribution(0.2, 0.6, step=0.2),
        0.2,
    ),
    ("{distribution: q_uniform, min: 1, max: 3}", BETA, FloatDistribution(1, 3, step=1), 1),
    ("{min: 8, max: 128}", DIM, IntDistribution(8, 128), 64),
    ("{min: 8, max: 32}", DIM, IntDistribution(8, 32), 8),
    (
        "{distribution: log_uniform_values, min: 8, max: 128}",
        DIM,
        IntDistribution(8, 128, log=True),
        64,
    ),
    (
        "{distribution: q_uniform, min: 16, max: 64, q: 16}",
        DIM,
        IntDistribution(16, 64, step=16),
        64,
    ),
    ("{values: [8, 64]}", DIM, CategoricalDistribution([8, 64]), 64),
    ("{distribution: categorical, values: [8, 16]}", DIM, CategoricalDistribution([8, 16]), 8),
    (
        "{values: [5, 1, 3]}",
        "model.kernel",
        CategoricalDistribution([5, 1, 3]),
        3,
    ),
    ("{values: [[2], []]}", "model.strides", CategoricalDistribution(["[2]", "[]"]), "[]"),
]


@pytest.mark.parametrize(("leaf", "path", "distribution", "plain"), RANGES)
def test_optuna_is_asked_for_what_the_leaf_says(
    leaf: str, path: str, distribution: BaseDistribution, plain: object, load: Load
) -> None:
    space = load(f"parameters: {nest(path, leaf)}")
    trial = optuna.create_study().ask()
    space.suggest(trial)
    assert trial.distributions == {path: distribution}
    assert space.searched()[path].plain == plain


@pytest.mark.parametrize("leaf", ["16", "{value: 16}", "{distribution: constant, value: 16}"])
def test_a_constant_is_not_searched(leaf: str, load: Load) -> None:
    space = load(f"parameters: {nest('codebook.dim', leaf)}")
    assert space.parameter_names() == []
    assert space.constants() == {"codebook.dim": 16}


def test_random_draws_have_the_distribution_that_optuna_gives() -> None:
    trial = RandomTrial(random.Random(0))
    n = 4000
    log = [trial.suggest_float("x", 1e-3, 1.0, log=True) for _ in range(n)]
    assert min(log) >= 1e-3 and max(log) <= 1.0
    assert sum(x < math.sqrt(1e-3) for x in log) / n == pytest.approx(0.5, abs=0.03)
    steps = [trial.suggest_float("x", 0.0, 0.3, step=0.1) for _ in range(n)]
    assert sum(x == 0.0 for x in steps) / n == pytest.approx(0.25, abs=0.03)
    whole = [trial.suggest_int("x", 1, 4) for _ in range(n)]
    assert all(whole.count(k) / n == pytest.approx(0.25, abs=0.03) for k in (1, 2, 3, 4))
    logs = [trial.suggest_int("x", 1, 4, log=True) for _ in range(n)]
    # As in Optuna, log(k - 1/2) to log(k + 1/2) is the share of k.
    for k in (1, 2, 3, 4):
        share = math.log((k + 0.5) / (k - 0.5)) / math.log(4.5 / 0.5)
        assert logs.count(k) / n == pytest.approx(share, abs=0.03)


def test_no_field_of_a_config_is_named_like_a_leaf_key() -> None:
    reserved = LEAF_KEYS | {"choices"}
    assert not [block for block in blocks(TrialConfig) if reserved & block.model_fields.keys()]


def blocks(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from blocks(part)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from blocks(field.annotation)


def nest(path: str, value: str) -> str:
    for key in reversed(path.split(".")):
        value = f"{{{key}: {value}}}"
    return value


CASES = {
    "min above max": (
        RATE_IS % "{min: 2.0, max: 1.0}",
        "training.lr.min: found 2.0 with max 1.0",
        "a min below max",
    ),
    "min equal to max": (
        DIM_IS % "{min: 8, max: 8}",
        "codebook.dim.min: found 8 with max 8",
        "a min below max",
    ),
    "min without max": (
        RATE_IS % "{min: 2.0}",
        "training.lr: found min",
        "max and min",
    ),
    "text for min": (
        RATE_IS % "{min: low, max: 1.0}",
        "training.lr.min: found 'low'",
        "a number",
    ),
    "bool for max": (
        RATE_IS % "{min: 0, max: true}",
        "training.lr.max: found True",
        "a number",
    ),
    "float bounds for an integer": (
        DIM_IS % "{min: 1, max: 2.5}",
        "codebook.dim.max: found 2.5",
        "an integer",
    ),
    "infinite max": (
        RATE_IS % "{min: 0.1, max: .inf}",
        "training.lr.max: found inf",
        "a finite number",
    ),
    "range for a word": (
        "parameters: {training: {precision: {min: 1, max: 2}}}",
        "training.precision: found a range",
        "value or values, for this is not a number",
    ),
    "uniform for an integer": (
        DIM_IS % "{distribution: uniform, min: 1, max: 2}",
        "codebook.dim.distribution: found 'uniform'",
        "int_uniform or q_uniform for an integer",
    ),
    "unknown distribution": (
        RATE_IS % "{distribution: log_uniform_value, min: 1, max: 2}",
        "training.lr.distribution: found 'log_uniform_value'",
        "constant, categorical, int_uniform, uniform, q_uniform, log_uniform_values; did you mean",
    ),
    "distribution of W&B that Optuna lacks": (
        RATE_IS % "{distribution: q_log_uniform_values, min: 1, max: 2, q: 1}",
        "training.lr.distribution: found 'q_log_uniform_values'",
        "constant, categorical, int_uniform, uniform, q_uniform, log_uniform_values "
        "(Optuna has no range that is both log and quantised)",
    ),
    "keys of another distribution": (
        RATE_IS % "{distribution: uniform, values: [1.0]}",
        "training.lr: found values",
        "max and min for uniform",
    ),
    "distribution alone": (
        RATE_IS % "{distribution: categorical}",
        "training.lr: found no value",
        "values for categorical",
    ),
    "value and values": (
        DIM_IS % "{value: 1, values: [1, 2]}",
        "codebook.dim: found value, values",
        "value for constant",
    ),
    "q without its distribution": (
        RATE_IS % "{min: 1, max: 2, q: 1}",
        "training.lr: found q without a distribution",
        "q with distribution: q_uniform",
    ),
    "q that is no divisor": (
        RATE_IS % "{distribution: q_uniform, min: 0.1, max: 1.0, q: 0.25}",
        "training.lr.q: found 0.25 with min 0.1 and max 1.0",
        "a divisor of both, with at most 1000000 steps between",
    ),
    "q far too small": (
        RATE_IS % "{distribution: q_uniform, min: 0.1, max: 1.0, q: 1e-30}",
        "training.lr.q: found 1e-30 with min 0.1 and max 1.0",
        "a divisor of both, with at most 1000000 steps between",
    ),
    "q of 0": (
        RATE_IS % "{distribution: q_uniform, min: 0, max: 1, q: 0}",
        "training.lr.q: found 0",
        "greater than 0",
    ),
    "log from 0": (
        RATE_IS % "{distribution: log_uniform_values, min: 0, max: 1}",
        "training.lr.min: found 0",
        "greater than 0 for log_uniform_values",
    ),
    # values
    "no values": (
        DIM_IS % "{values: []}",
        "codebook.dim.values: found an empty list",
        "a list of at",
    ),
    "values that are no list": (
        DIM_IS % "{values: 8}",
        "codebook.dim.values: found 8",
        "a list of at",
    ),
    "a value twice": (
        DIM_IS % "{values: [8, 8]}",
        "codebook.dim.values: found 8 twice",
        "distinct",
    ),
}


@pytest.mark.parametrize(("text", "found", "allowed"), CASES.values(), ids=CASES)
def test_one_line_says_where_what_and_what_is_allowed(
    text: str, found: str, allowed: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: {found}; allowed: {allowed}")
