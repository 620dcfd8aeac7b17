"""A search space: what it suggests, its baseline, its grid, its words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.spaces import Space, describe_space, load_space

optuna.logging.set_verbosity(optuna.logging.ERROR)

BETA = "codebook.commitment.beta"
BRANCHED = """
parameters:
  model:
    strides: {values: [[], [2], [2, 2]]}
  codebook:
    size: {values: [64, 128]}
    update:
      choices:
        gradient: {kind: gradient, lr_ratio: {min: 0.5, max: 2}}
        ema: {kind: ema, accumulate: {min: 1, max: 3}}
    respawn:
      choices:
        without: null
        with: {period: {distribution: log_uniform_values, min: 100, max: 1000}}
"""

Load = Callable[[str], Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Space:
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return load_space(str(path))

    return load


@pytest.fixture
def branched(load: Load) -> Space:
    return load(BRANCHED)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "make_sampler",
    [
        lambda: optuna.samplers.TPESampler(
            n_startup_trials=4, multivariate=True, group=True, seed=0
        ),
        lambda: optuna.samplers.NSGAIISampler(population_size=4, seed=0),
        lambda: optuna.samplers.RandomSampler(seed=0),
    ],
    ids=["tpe", "nsga2", "random"],
)
@pytest.mark.parametrize("storage", ["memory", "journal"])
def test_optuna_proposes_configs(
    make_sampler: Callable[[], optuna.samplers.BaseSampler],
    storage: str,
    branched: Space,
    tmp_path: Path,
) -> None:
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=make_sampler(),
        storage=optuna.storages.JournalStorage(backend) if storage == "journal" else None,
    )
    for _ in range(12):
        trial = study.ask()
        config = TrialConfig.from_dict(branched.suggest(trial))
        update = config.codebook.update
        names = set(trial.params)
        assert names <= set(branched.parameter_names())
        assert ("codebook.update[ema].accumulate" in names) == (update.kind == "ema")
        assert ("codebook.update[gradient].lr_ratio" in names) == (update.kind == "gradient")
        assert ("codebook.respawn[with].period" in names) == (config.codebook.respawn is not None)
        assert trial.params["codebook.size"] == config.codebook.size
        study.tell(trial, [float(config.codebook.size), config.codebook.commitment.beta])
    for stored in study.get_trials():
        # What the storage holds is enough to make the same config again.
        config = TrialConfig.from_dict(branched.suggest(optuna.trial.FixedTrial(stored.params)))
        assert config.codebook.size == stored.values[0]


def test_the_parameters_of_the_tree_in_file_order(branched: Space) -> None:
    assert branched.parameter_names() == [
        "model.strides",
        "codebook.size",
        "codebook.update",
        "codebook.update[gradient].lr_ratio",
        "codebook.update[ema].accumulate",
        "codebook.respawn",
        "codebook.respawn[with].period",
    ]


def test_lists_are_stored_as_text(branched: Space) -> None:
    params = {"model.strides": "[2, 2]", "codebook.size": 64, "codebook.respawn": "without"}
    params |= {"codebook.update": "ema", "codebook.update[ema].accumulate": 2}
    assert branched.suggest(optuna.trial.FixedTrial(params)) == {
        "model": {"strides": [2, 2]},
        "codebook": {"size": 64, "update": {"kind": "ema", "accumulate": 2}, "respawn": None},
        "evaluation": {"latents": 25_600},
    }


@pytest.mark.parametrize(
    ("codebook", "given", "expected"),
    [
        ("{size: 512}", None, 25_600),
        ("{size: {values: [64, 1024]}}", None, 51_200),
        ("{size: {min: 64, max: 2048}}", 30_000, 102_400),
        ("{size: 64}", 40_000, 40_000),
        ("{size: 64}", 100, 3200),
        ("{choices: {a: {size: 32}, b: {size: {values: [64, 4096]}}}}", 100, 204_800),
    ],
)
def test_every_trial_counts_50_latents_for_each_code(
    codebook: str, given: int | None, expected: int, load: Load
) -> None:
    text = f"parameters: {{codebook: {codebook}"
    text += "}" if given is None else f", evaluation: {{latents: {given}}}}}"
    space = load(text)
    configs = [*space.draw(5), space.baseline()]
    assert {config.evaluation.latents for config in configs} == {expected}


def test_a_space_is_picklable(branched: Space) -> None:
    assert pickle.loads(pickle.dumps(branched)).draw(5) == branched.draw(5)


def test_a_written_space_is_the_callers_own(branched: Space) -> None:
    branched.to_dict()["parameters"]["codebook"].clear()
    assert "size" in branched.parameters["codebook"]


def test_suggested_values_are_the_callers_own(branched: Space) -> None:
    params = {"model.strides": "[2]", "codebook.size": 64, "codebook.respawn": "without"}
    params |= {"codebook.update": "gradient", "codebook.update[gradient].lr_ratio": 1.0}
    branched.suggest(optuna.trial.FixedTrial(params))["model"]["strides"].append(4)
    again = branched.suggest(optuna.trial.FixedTrial(params))
    assert again["model"]["strides"] == [2]


def test_the_baseline_takes_defaults_where_they_are_allowed(load: Load) -> None:
    space = load(
        "parameters:\n"
        "  seed: 7\n"
        "  model: {width: {values: [256, 32]}, depth: {min: 1, max: 4}}\n"
        "  codebook: {size: {min: 1024, max: 4096}, dim: {values: [8, 64]},"
        " kmeans: {}, commitment: {beta: 4.0}}\n"
        "  training: {lr: {min: 0.002, max: 0.1}, batch_size: {values: [8, 16]}}\n"
    )
    baseline = space.baseline()
    assert baseline.seed == 7
    assert (baseline.model.width, baseline.model.depth) == (256, 2)
    assert (baseline.codebook.size, baseline.codebook.dim) == (1024, 64)
    assert (baseline.training.lr, baseline.training.batch_size) == (0.002, 16)
    assert baseline.codebook.kmeans is None
    assert baseline.codebook.commitment.beta == 0.25


def test_the_grid_has_each_point_of_each_branch_once(load: Load) -> None:
    space = load(
        "search: {sampler: grid}\n"
        "parameters:\n"
        "  model: {strides: {values: [[], [2]]}}\n"
        "  codebook:\n"
        "    commitment: {beta: {distribution: q_uniform, min: 0.5, max: 1.0, q: 0.5}}\n"
        "    update:\n"
        "      choices:\n"
        "        gradient: {kind: gradient}\n"
        "        ema: {kind: ema, accumulate: {min: 1, max: 3}}\n"
    )
    grid = space.enumerate_grid()
    assert len(grid) == 2 * 2 * (1 + 3)
    assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)
    assert grid[0] == {"model.strides": "[]", BETA: 0.5, "codebook.update": "gradient"}
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for point in grid:
        study.enqueue_trial(point)
    configs = []
    for point in grid:
        trial = study.ask()
        configs.append(TrialConfig.from_dict(space.suggest(trial)))
        assert trial.params == point
    assert len({config.to_yaml() for config in configs}) == len(grid)


def test_branches_add_to_a_grid_and_do_not_multiply_it(load: Load) -> None:
    branches = ", ".join(f"{label}: {{width: {{min: 1, max: 200}}}}" for label in "abc")
    space = load(f"parameters: {{model: {{choices: {{{branches}}}}}}}")
    assert len(space.enumerate_grid()) == 3 * 200


def test_a_constant_space_is_a_grid_of_one() -> None:
    assert load_space("base").enumerate_grid() == [{}]


def test_a_grid_of_the_impossible_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r"beta: found 0\.05 to 10, log-uniform; allowed: values"):
        load_space("commitment").enumerate_grid()
    space = load("parameters: {codebook: {size: {min: 1, max: 1000001}}}")
    with pytest.raises(InputError, match="found a grid of 1000001 trials; allowed: at most 10000"):
        space.enumerate_grid()


def test_rows_put_the_parameters_in_words(branched: Space) -> None:
    rows = [tuple(row) for row in describe_space(branched)]
    assert rows == [
        ("model.strides", "[], [2] or [2, 2]", ""),
        ("codebook.size", "64 or 128", ""),
        ("codebook.update", "gradient or ema", ""),
        (
            "codebook.update[gradient].lr_ratio",
            "0.5 to 2, uniform",
            "codebook.update = gradient",
        ),
        (
            "codebook.update[ema].accumulate",
            "1 to 3, uniform integers",
            "codebook.update = ema",
        ),
        ("codebook.respawn", "without or with", ""),
        (
            "codebook.respawn[with].period",
            "100 to 1000, log-uniform integers",
            "codebook.respawn = with",
        ),
    ]


def test_a_branch_inside_a_branch_is_told_in_full(load: Load) -> None:
    space = load(
        "parameters:\n"
        "  codebook:\n"
        "    choices:\n"
        "      plain: {update: {kind: gradient}}\n"
        "      seeded: {kmeans: {choices: {on: {iterations: {min: 1, max: 9}}}}}\n"
    )
    assert describe_space(space)[-1] == (
        "codebook[seeded].kmeans[on].iterations",
        "1 to 9, uniform integers",
        "codebook = seeded and codebook.kmeans = on",
    )


# --- choices beside other keys -------------------------------------------------------------------

BESIDE = """
parameters:
  training: {lr: {values: [0.001, 0.002]}}
  codebook:
    update: {kind: gradient, lr_ratio: 2.0}
    commitment: {beta: {values: [0.25, 1.0]}}
    choices:
      one: {}
      many:
        size: 8
        update: {kind: ema}
        groups: {count: {values: [2, 4]}}
  choices:
    flat: {codebook: {dim: 32}}
    deep:
      model: {kind: hierarchical}
      choices:
        coarse: {model: {kind: hierarchical, top_strides: [4]}}
        fine: {codebook: {entropy: {weight: {values: [0.1, 0.2]}}}}
"""


def test_a_branch_is_laid_over_the_keys_beside_it(load: Load) -> None:
    space = load(BESIDE)
    assert space.parameter_names() == [
        "training.lr",
        "codebook.commitment.beta",
        "codebook",
        "codebook[many].groups.count",
        "parameters",
        "parameters[deep]",
        "parameters[deep][fine].codebook.entropy.weight",
    ]
    shared = {"training.lr": 0.001, "codebook.commitment.beta": 1.0}
    many = {"codebook": "many", "codebook[many].groups.count": 4}
    fine = {"parameters": "deep", "parameters[deep]": "fine"}
    fine |= {"parameters[deep][fine].codebook.entropy.weight": 0.2}
    assert space.suggest(optuna.trial.FixedTrial(shared | many | fine)) == {
        "training": {"lr": 0.001},
        "model": {"kind": "hierarchical"},
        "codebook": {
            "size": 8,
            "update": {"kind": "ema"},  # of another kind: nothing of the other's is left
            "commitment": {"beta": 1.0},
            "groups": {"count": 4},
            "entropy": {"weight": 0.2},
        },
        "evaluation": {"latents": 25_600},
    }
    flat = {"codebook": "one", "parameters": "flat"}
    assert space.suggest(optuna.trial.FixedTrial(shared | flat))["codebook"] == {
        "update": {"kind": "gradient", "lr_ratio": 2.0},
        "commitment": {"beta": 1.0},
        "dim": 32,
    }
    assert space.baseline().codebook.dim == 32
    assert space.baseline().model.kind == "conv"


def test_optuna_is_asked_for_the_parameters_of_the_branch_only(load: Load) -> None:
    space = load(BESIDE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        config = TrialConfig.from_dict(space.suggest(trial))
        names = set(trial.params)
        assert {"training.lr", "codebook.commitment.beta", "codebook", "parameters"} <= names
        assert ("codebook[many].groups.count" in names) == (config.codebook.groups is not None)
        assert ("parameters[deep]" in names) == (config.model.kind == "hierarchical")
        seen |= names
    assert seen == set(space.parameter_names())


def test_a_grid_multiplies_by_the_branches_beside_the_keys(load: Load) -> None:
    grid = load(BESIDE).enumerate_grid()
    assert len(grid) == 2 * 2 * (1 + 2) * (1 + 1 + 2)
    assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)


def test_branches_beside_keys_are_put_in_words(load: Load) -> None:
    rows = {row.parameter: row.branch for row in describe_space(load(BESIDE))}
    assert rows["training.lr"] == rows["codebook"] == rows["parameters"] == ""
    assert rows["codebook[many].groups.count"] == "codebook = many"
    assert rows["parameters[deep]"] == "parameters = deep"
    assert rows["parameters[deep][fine].codebook.entropy.weight"] == "parameters = deep, fine"


def test_a_space_may_be_one_choice(load: Load) -> None:
    choices = "{a: {codebook: {size: 64}}, b: {model: {width: 32}}}"
    space = load(f"extends: base\nparameters: {{choices: {choices}}}")
    assert {draw.codebook.size for draw in space.draw(9)} == {64, 512}
    assert {draw.data.files for draw in space.draw(9) if draw.data.kind == "synthetic"} == {400}
    assert space.baseline().codebook.size == 64
