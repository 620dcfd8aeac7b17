"""Bad space files: one line with the file, the key path, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainables.config_codebook import CodebookConfig
from trainables.errors import InputError
from vqtune.spaces import load_space

EMA = "parameters: {codebook: {update: {choices: {ema: {kind: ema, %s}}}}}"
DIM = "parameters: {codebook: {dim: %s}}"
BETA = "parameters: {codebook: {commitment: {beta: %s}}}"
DECAY = "codebook.update[ema].decay"

# The file, then the start of the message, then the start of what is allowed.
CASES = {
    # keys
    "unknown top-level key": (
        "paramters: {}",
        "paramters: found an unknown key",
        "description, extends, search, parameters, starts, resources; did you mean 'parameters'?",
    ),
    "unknown block": (
        "parameters: {codebok: {}}",
        "codebok: found an unknown key",
        "seed, data, model, codebook, training, evaluation, choices; did you mean 'codebook'?",
    ),
    "unknown key": (
        "parameters: {codebook: {comitment: {beta: 1.0}}}",
        "codebook.comitment: found an unknown key",
        f"{', '.join(CodebookConfig.model_fields)}, choices; did you mean 'commitment'?",
    ),
    "unknown key in a branch": (
        EMA % "decya: 0.9",
        "codebook.update[ema].decya: found an unknown key",
        "kind, decay, accumulate, choices; did you mean 'decay'?",
    ),
    "key of another kind": (
        EMA % "lr_ratio: 0.9",
        "codebook.update[ema].lr_ratio: found an unknown key",
        "kind, decay, accumulate, choices",
    ),
    "misspelt leaf key": (
        DIM % "{valuess: [8]}",
        "codebook.dim.valuess: found an unknown key",
        "distribution, max, min, q, value, values; did you mean 'values'?",
    ),
    "misspelt choices": (
        "parameters: {codebook: {entropy: {choises: {a: null}}}}",
        "codebook.entropy.choises: found an unknown key",
        "weight, temperature, choices; did you mean 'choices'?",
    ),
    "provenance": (
        "parameters: {provenance: {run: a}}",
        "provenance: found an unknown key",
        "seed, data",
    ),
    "probabilities": (
        DIM % "{values: [8, 16], probabilities: [0.5, 0.5]}",
        "codebook.dim.probabilities: found a key mixed with values",
        "either leaf keys only (distribution, max, min, q, value, values) or none",
    ),
    "leaf keys among block keys": (
        "parameters: {codebook: {entropy: {weight: 0.1, min: 3}}}",
        "codebook.entropy.weight: found a key mixed with min",
        "either leaf keys only",
    ),
    "unknown kind": (
        "parameters: {codebook: {update: {kind: emma}}}",
        "codebook.update.kind: found 'emma'",
        "gradient, ema, simvq, fsq, lfq; did you mean 'ema'?",
    ),
    "searched kind": (
        "parameters: {codebook: {update: {kind: {values: [gradient, ema]}}}}",
        "codebook.update.kind: found a searched kind",
        "a constant; `choices` searches kinds",
    ),
    # types
    "description": ("description: [a]", "description: found ['a']", "a string"),
    "parameters": ("parameters: 3", "parameters: found 3", "a mapping"),
    "search": ("search:", "search: found null", "a mapping"),
    "string for a number": (DIM % "wide", "codebook.dim: found 'wide'", "a valid integer"),
    "float for an integer": (DIM % "8.5", "codebook.dim: found 8.5", "a valid integer"),
    "block for a number": (DIM % "{}", "codebook.dim: found an empty mapping", "a constant, value"),
    "number for a block": (
        "parameters: {codebook: {respawn: 3}}",
        "codebook.respawn: found 3",
        "a block or choices, or null",
    ),
    "null for a block that is needed": (
        "parameters: {codebook: {update: null}}",
        "codebook.update: found null",
        "a block or choices",
    ),
    "leaf for a block": (
        "parameters: {codebook: {respawn: {values: [null, 3]}}}",
        "codebook.respawn: found a leaf (values)",
        "a block, null or choices",
    ),
    # limits of the fields
    "constant below its limit": (
        BETA % "-1.0",
        "codebook.commitment.beta: found -1.0",
        "greater than or equal to 0",
    ),
    "second value below its limit": (
        BETA % "{values: [1.0, -1.0]}",
        "codebook.commitment.beta: found -1.0",
        "greater than or equal to 0",
    ),
    "no codes": (
        "parameters: {codebook: {size: {values: [512, 0]}}}",
        "codebook.size: found 0",
        "greater than or equal to 1",
    ),
    "end of a range above its limit": (
        EMA % "decay: {min: 0.9, max: 1.0}",
        f"{DECAY}: found 1.0",
        "less than 1",
    ),
    "value of another type": (
        EMA % "decay: {values: [0.9, high]}",
        f"{DECAY}: found 'high'",
        "a valid number",
    ),
    "element of a list": (
        "parameters: {model: {strides: {values: [[2], [2, 0]]}}}",
        "model.strides.1: found 0",
        "greater than or equal to 1",
    ),
    # choices
    "no choices": (
        "parameters: {codebook: {update: {choices: {}}}}",
        "codebook.update.choices: found nothing to choose from",
        "a mapping of at least one label",
    ),
    "choices in a list": (
        "parameters: {codebook: {update: {choices: [ema]}}}",
        "codebook.update.choices: found ['ema']",
        "a mapping of at least one label",
    ),
    "label with a dot": (
        "parameters: {codebook: {update: {choices: {a.b: {kind: ema}}}}}",
        "codebook.update.choices: found label 'a.b'",
        "a string of letters",
    ),
    "scalar branch": (
        "parameters: {codebook: {update: {choices: {ema: 3}}}}",
        "codebook.update[ema]: found 3",
        "a block or null",
    ),
    "leaf as branch": (
        "parameters: {codebook: {dim: {choices: {a: {value: 3}}}}}",
        "codebook.dim[a]: found a mapping",
        "a block or null",
    ),
    "choices beside other keys": (
        "parameters: {codebook: {update: {kind: ema, choices: {a: {}}}}}",
        "codebook.update: found choices mixed with 'kind'",
        "choices alone",
    ),
    "no choices beside other keys": (
        "parameters: {codebook: {size: 64, choices: {}}}",
        "codebook.choices: found nothing to choose from",
        "a mapping of at least one label",
    ),
    "label with a bracket beside other keys": (
        "parameters: {seed: 1, choices: {'a]': {}}}",
        "parameters.choices: found label 'a]'",
        "a string of letters",
    ),
    "null branch beside other keys": (
        "parameters: {codebook: {size: 64, choices: {a: {dim: 8}, b: null}}}",
        "codebook[b]: found null",
        "a block; {} for nothing",
    ),
    "leaf as a branch at the root": (
        "parameters: {choices: {a: {values: [1, 2]}}}",
        "parameters[a]: found a mapping",
        "a block; {} for nothing",
    ),
    "unknown key in a branch at the root": (
        "parameters: {choices: {a: {codebook: {siz: 8}}}}",
        "parameters[a].codebook.siz: found an unknown key",
        "size, dim, ",
    ),
    "bad value in a branch at the root": (
        "parameters: {choices: {a: {}, b: {choices: {c: {codebook: {dim: 0}}}}}}",
        "parameters[b][c].codebook.dim: found 0",
        "greater than or equal to 1",
    ),
    "branch over what is searched": (
        "parameters: {codebook: {dim: {values: [8, 16]}, choices: {a: {dim: 4}, b: {}}}}",
        "codebook[a].dim: found a value in a branch, with dim searched beside `choices`",
        "one of the two",
    ),
    "branch that ends a searched block": (
        "parameters: {codebook: {respawn: {period: {values: [8, 16]}}},"
        " choices: {a: {codebook: {respawn: null}}}}",
        "parameters[a].codebook.respawn: found a value in a branch,"
        " with codebook.respawn.period searched beside `choices`",
        "one of the two",
    ),
    "branch inside a searched block": (
        "parameters: {codebook: {respawn: {choices: {on: {}, off: null}}, choices:"
        " {a: {respawn: {period: 8}}}}}",
        "codebook[a].respawn.period: found a value in a branch,"
        " with respawn searched beside `choices`",
        "one of the two",
    ),
    "branch of another kind than what is searched": (
        "parameters: {model: {width: {values: [8, 16]}},"
        " choices: {a: {choices: {b: {model: {kind: hierarchical}}}}}}",
        "parameters[a].model.kind: found a value in a branch,"
        " with model.width searched beside `choices`",
        "one of the two",
    ),
    "null where a block is needed": (
        "parameters: {codebook: {update: {choices: {a: {kind: ema}, b: null}}}}",
        "codebook.update[b]: found null",
        "a block or choices",
    ),
    # what trials share
    "searched budget": (
        "parameters: {training: {samples: {values: [100, 200]}}}",
        "training.samples: found a search",
        "a constant, so that trials are comparable",
    ),
    "budget in a branch": (
        "parameters: {training: {choices: {a: {samples: 1}, b: {samples: 2}}}}",
        "training: found a search",
        "a constant, so that trials are comparable",
    ),
    "seed in a branch": (
        "parameters: {choices: {a: {seed: 1}, b: {seed: 2}}}",
        "parameters[a].seed: found a search",
        "a constant, so that trials are comparable",
    ),
    "data in a branch": (
        "parameters: {choices: {a: {data: {kind: digits}}, b: {}}}",
        "parameters[a].data.kind: found a search",
        "a constant, so that trials are comparable",
    ),
    "searched evaluation": (
        "parameters: {evaluation: {latents: {min: 1, max: 9}}}",
        "evaluation.latents: found a search",
        "a constant, so that trials are comparable",
    ),
    # search
    "unknown setting": (
        "search: {trails: 3}",
        "search.trails: found an unknown key",
        "trials, sampler, objectives, constraint, early_stopping, grace, reduction_factor, "
        "brackets, samples; did you mean 'trials'?",
    ),
    "no trials": ("search: {trials: 0}", "search.trials: found 0", "greater than or equal to 1"),
    "unknown sampler": (
        "search: {sampler: tpee}",
        "search.sampler: found 'tpee'",
        "'tpe', 'nsga2', 'random' or 'grid'",
    ),
    "unknown early stopping": (
        "search: {early_stopping: loss}",
        "search.early_stopping: found 'loss'",
        "'pareto', 'recon_loss', 'perplexity' or 'none'",
    ),
    "unknown objective": (
        "search: {objectives: {recon_los: min}}",
        "search.objectives: found 'recon_los', which no trial reports",
        "recon_loss, recon_loss_unquantized,",
    ),
    "no objectives": (
        "search: {objectives: {}}",
        "search.objectives: found none",
        "one metric or more, each max or min",
    ),
    "no direction": (
        "search: {objectives: {recon_loss: down}}",
        "search.objectives.recon_loss: found 'down'",
        "'max' or 'min'",
    ),
    "a constraint on nothing": (
        "search: {constraint: loss <= 1}",
        "search.constraint: found 'loss', which no trial reports",
        "recon_loss, recon_loss_unquantized,",
    ),
    "grace of 1": ("search: {grace: 1.0}", "search.grace: found 1.0", "less than 1"),
    "eta of 1": (
        "search: {reduction_factor: 1}",
        "search.reduction_factor: found 1",
        "greater than 1",
    ),
    "no samples": ("search: {samples: 0}", "search.samples: found 0", "greater than or equal to 1"),
    "samples twice": (
        "search: {samples: 10}\nparameters: {training: {samples: 20}}",
        "search.samples: found 10 beside training.samples",
        "one of the two",
    ),
    "samples for no block": (
        "search: {samples: 10}\nparameters: {training: 20}",
        "training: found 20",
        "a block",
    ),
    "continuous grid": (
        f"search: {{sampler: grid}}\n{EMA % 'decay: {min: 0.8, max: 0.9}'}",
        f"{DECAY}: found 0.8 to 0.9, uniform",
        "values, integers or q_uniform in a grid",
    ),
    # extends
    "unknown base": (
        "extends: bas",
        "extends: found 'bas', which is no file",
        "a file, or one of base, batch,",
    ),
    "extends that is no string": ("extends: 3", "extends: found 3", "a string"),
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


def test_a_constraint_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("search: {constraint: recon_loss below 1}")
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert str(caught.value) == (
        f"{path}: search.constraint: found 'recon_loss below 1', allowed: METRIC <= NUMBER or "
        "METRIC <= NUMBER*baseline, with <= or >="
    )


def test_an_impossible_combination_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "parameters:\n"
        "  codebook:\n"
        "    size: {values: [64, 512]}\n"
        "    growth: {choices: {off: null, on: {start: {values: [16, 128]}}}}\n"
    )
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert str(caught.value) == (
        f"{path}: codebook.growth[on].start: found 128, allowed at most codebook.size = 64"
    )


def test_a_combination_of_ends_is_refused(tmp_path: Path) -> None:
    """Each end is possible with the first of all others, and so is nearly all between."""
    path = tmp_path / "space.yaml"
    path.write_text(
        "parameters:\n"
        "  codebook:\n"
        "    size: {values: [2000, 1000]}\n"
        "    growth: {start: {min: 1, max: 1001}}\n"
    )
    with pytest.raises(InputError, match=r"start: found 1001, allowed at most .* = 1000"):
        load_space(str(path))


def test_one_bad_value_among_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"parameters: {{codebook: {{dim: {{values: {[*range(500, -1, -1)]}}}}}}}")
    with pytest.raises(InputError, match=r"codebook\.dim: found 0; allowed: "):
        load_space(str(path))


@pytest.mark.parametrize(
    "path", ["seed", "data.split_seed", "training.reports", "training.precision"]
)
def test_what_would_make_trials_incomparable_is_not_searched(tmp_path: Path, path: str) -> None:
    leaf: object = {"values": ["float32", "float64"] if path.endswith("precision") else [1, 2]}
    for key in reversed(path.split(".")):
        leaf = {key: leaf}
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump({"extends": "base", "parameters": leaf}))
    with pytest.raises(InputError, match="a constant, so that trials are comparable") as error:
        load_space(str(file))
    assert path in str(error.value)
