"""Space files over space files, overrides over both, and specs read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.errors import InputError
from vqtune.spaces import Space, load_space

BETA = "codebook.commitment.beta"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "space.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_is_merged_over_what_it_extends(write: Write) -> None:
    write(
        "extends: base\n"
        "search: {trials: 5, grace: 0.5}\n"
        "parameters:\n"
        "  codebook:\n"
        "    dim: {values: [8, 16]}\n"
        "    commitment: {beta: {min: 1.0, max: 2.0}}\n"
        "    update: {choices: {a: {kind: gradient}, b: {kind: ema, decay: {values: [0.9]}}}}\n"
        "    respawn: {period: 100, threshold: {min: 0.1, max: 0.2}}\n"
        "    kmeans: {latents: 4096, iterations: 3}\n",
        "middle.yaml",
    )
    leaf = write(
        "extends: middle.yaml\n"
        "search: {trials: 7}\n"
        "parameters:\n"
        "  codebook:\n"
        "    dim: {min: 32, max: 64}\n"  # a leaf replaces a leaf
        "    commitment: {beta: 0.5}\n"  # a constant replaces a leaf
        "    update: {choices: {c: {kind: ema}}}\n"  # choices replace choices
        "    respawn: {period: 200}\n"  # a block merges into a block
        "    kmeans: null\n"  # null replaces
    )
    space = load_space(str(leaf))
    assert (space.search.trials, space.search.grace) == (7, 0.5)
    assert space.parameters["codebook"] == {
        "size": 512,
        "dim": {"min": 32, "max": 64},
        "update": {"choices": {"c": {"kind": "ema"}}},
        "commitment": {"beta": 0.5},
        "entropy": None,
        "respawn": {"period": 200, "threshold": {"min": 0.1, "max": 0.2}},
        "kmeans": None,
        "growth": None,
    }
    assert space.parameters["training"] == load_space("base").parameters["training"]


def test_a_block_of_another_kind_replaces(write: Write) -> None:
    write("parameters: {codebook: {update: {kind: gradient, lr_ratio: 2.0}}}", "a.yaml")
    other = "extends: a.yaml\nparameters: {codebook: {update: {kind: ema, decay: 0.9}}}"
    same = "extends: a.yaml\nparameters: {codebook: {update: {weight: 3.0}}}"
    codebook = load_space(str(write(other, "b.yaml"))).parameters["codebook"]
    assert codebook["update"] == {"kind": "ema", "decay": 0.9}
    codebook = load_space(str(write(same, "c.yaml"))).parameters["codebook"]
    assert codebook["update"] == {"kind": "gradient", "lr_ratio": 2.0, "weight": 3.0}


def test_choices_beside_keys_replace_choices_and_leave_the_keys(write: Write) -> None:
    write(
        "parameters:\n"
        "  codebook: {dim: 8, choices: {a: {size: 16}, b: {size: 32}}}\n"
        "  choices: {x: {training: {lr: 0.1}}, y: {}}\n",
        "a.yaml",
    )
    child = write(
        "extends: a.yaml\n"
        "parameters: {codebook: {size: 64, choices: {a: {dim: 4}}}, choices: {z: {}}}\n"
    )
    assert load_space(str(child)).parameters == {
        "codebook": {"dim": 8, "size": 64, "choices": {"a": {"dim": 4}}},
        "choices": {"z": {}},
    }


def test_extends_is_relative_to_the_file(tmp_path: Path, write: Write) -> None:
    (tmp_path / "sub").mkdir()
    write("parameters: {seed: 3}", "top.yaml")
    path = write("extends: ../top.yaml", "sub/leaf.yaml")
    assert load_space(str(path)).baseline().seed == 3


def test_samples_have_one_home(write: Write) -> None:
    write("search: {samples: 1000}", "a.yaml")
    child = write("extends: a.yaml\nparameters: {training: {samples: 2000}}", "b.yaml")
    grandchild = write("extends: b.yaml\nsearch: {samples: 3000}", "c.yaml")
    found = [load_space(str(p)).baseline().training.samples for p in (child, grandchild)]
    assert found == [2000, 3000]
    assert "samples" not in load_space(str(grandchild)).to_dict()["search"]


def test_overrides_merge_like_a_file() -> None:
    space = load_space("quickstart")
    data = {"kind": "audio", "path": "clips"}
    changed = space.with_overrides(
        {"data": data, "training.samples": 640, BETA: 1.5, "codebook.respawn": None}
    ).with_search(trials=3, sampler="random")
    assert changed.parameters["data"] == data
    assert changed.baseline().training.samples == 640
    assert (changed.search.trials, changed.search.sampler) == (3, "random")
    assert not [n for n in changed.parameter_names() if n.startswith((BETA, "codebook.respawn"))]
    assert space == load_space("quickstart")  # the original stays as it was
    again = changed.with_overrides({"data.heldout": 0.2})
    assert again.parameters["data"] == {**data, "heldout": 0.2}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"training.samples": 0}, "training.samples: found 0; allowed: greater than or equal to 1"),
        ({"codebook.sise": 8}, "codebook.sise: found an unknown key; allowed: size, dim, "),
        ({"data": {"kind": "audio"}}, "data.path: required and missing"),
        ({"data": "clips"}, "data: found 'clips'; allowed: "),
    ],
)
def test_bad_overrides_are_refused(overrides: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_space("quickstart").with_overrides(overrides, "command line")
    assert str(caught.value).startswith(f"command line: {words}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trials": 0}, "search.trials: found 0; allowed: greater than or equal to 1"),
        ({"trails": 3}, "search.trails: found an unknown key; allowed: trials, "),
        ({"sampler": "grid"}, "codebook.update[ema].decay: found 0.95 to 0.999, uniform; allowed"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_space("quickstart").with_search("command line", **settings)
    assert str(caught.value).startswith(f"command line: {words}")


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    with pytest.raises(InputError) as caught:
        load_space(str(tmp_path / "a.yaml"))
    assert str(caught.value) == (
        f"{tmp_path / 'b.yaml'}: extends: found the cycle a.yaml -> b.yaml -> a.yaml; "
        "allowed: a chain that ends"
    )


def test_the_file_at_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("parameters: {codebook: {dim: 0}}")
    (tmp_path / "above.yaml").write_text("extends: below.yaml")
    with pytest.raises(InputError) as caught:
        load_space(str(tmp_path / "above.yaml"))
    assert str(caught.value).startswith(f"{tmp_path / 'below.yaml'}: codebook.dim:")


def test_an_unknown_space_is_answered_with_the_names() -> None:
    with pytest.raises(InputError) as caught:
        load_space("quickstrat")
    line = str(caught.value)
    assert line.startswith(
        "space: found 'quickstrat', which is no file; allowed: a file, or one of"
    )
    assert line.endswith("did you mean 'quickstart'?")
    assert "base, batch, codebook_lr" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nam": "a"}, "spec.yaml: nam: found an unknown key; allowed: name, "),
        ({"search": None}, "spec.yaml: search: found null; allowed: a mapping"),
        ({"search": {"trials": "a"}}, "spec.yaml: search.trials: found 'a'; allowed: "),
        ({"parameters": {"seed": -1}}, "spec.yaml: seed: found -1; allowed: "),
        ({"parameters": {3: 4}}, "spec.yaml: 3: found an unknown key; allowed: seed, "),
    ],
)
def test_a_damaged_spec_is_refused(change: dict[str, object], words: str) -> None:
    values = load_space("base").to_dict() | change
    with pytest.raises(InputError) as caught:
        Space.from_dict(values, "spec.yaml")
    assert str(caught.value).startswith(words)


def test_a_spec_with_a_part_missing_is_refused() -> None:
    values = load_space("base").to_dict()
    del values["source"]
    with pytest.raises(InputError, match="spec: source: found null; allowed: a string"):
        Space.from_dict(values, "spec")


# --- starts --------------------------------------------------------------------------------------

STARTS = """
extends: base
starts:
  - {codebook.update: ema, "codebook.update[ema].decay": 0.95}
  - {codebook.commitment.beta: 2}
parameters:
  codebook:
    commitment: {beta: {min: 0.25, max: 4.0}}
    update:
      choices:
        gradient: {kind: gradient, lr_ratio: {min: 0.5, max: 2.0}}
        ema: {kind: ema, decay: {min: 0.9, max: 0.99}}
"""


def test_starts_are_the_baseline_but_for_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STARTS)
    (tmp_path / "below.yaml").write_text("extends: mine.yaml\n")
    space = load_space(str(tmp_path / "mine.yaml"))
    plain = {"codebook.commitment.beta": 0.25, "codebook.update": "gradient"}
    ema = {"codebook.update": "ema", "codebook.update[ema].decay": 0.95}
    ratio = {"codebook.update[gradient].lr_ratio": 1.0}
    assert space.first_points() == [
        plain | ema,
        plain | ratio | {"codebook.commitment.beta": 2},
    ]
    assert Space.from_dict(space.to_dict()) == space
    assert space.with_search(trials=3).starts == space.starts
    assert load_space(str(tmp_path / "below.yaml")).first_points() == []


@pytest.mark.parametrize(
    ("starts", "line"),
    [
        ("3", "starts: found 3; allowed: a list of mappings"),
        ("[]\n  - 3", "not YAML"),
        ("[3]", "starts.0: found 3; allowed: a mapping"),
        ("[{}]", "starts.0: found a mapping; allowed: a mapping"),
        ("[{codebook.bata: 1}]", "starts.0.codebook.bata: found an unknown key; allowed: "),
        ("[{codebook.commitment.beta: 9.0}]", "starts.0.codebook.commitment.beta: found 9.0; "),
        ("[{codebook.commitment.beta: true}]", "starts.0.codebook.commitment.beta: found True; "),
        ("[{codebook.update: emma}]", "starts.0.codebook.update: found 'emma'; allowed: gradient"),
        (
            '[{"codebook.update[ema].decay": 0.95}]',
            "starts.0.codebook.update[ema].decay: found a branch that the start does not take; ",
        ),
    ],
)
def test_starts_that_will_not_do_are_one_line(starts: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    head, _, tail = STARTS.partition("starts:")
    path.write_text(f"{head}starts: {starts}\n{tail[tail.index('parameters:') :]}")
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(str(path))
    if line != "not YAML":
        assert told.startswith(f"{path}: {line}"), told
