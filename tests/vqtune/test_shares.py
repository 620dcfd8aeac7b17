"""What a trial takes: rules over its config, the space file's block, and how many run at once."""

from __future__ import annotations

import json
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import InputError
from vqtune.cluster import Resources
from vqtune.fixed_list import FixedList
from vqtune.room import Room
from vqtune.shares import Shares
from vqtune.spaces import Space, load_space

BLOCK = {
    "gpus": 0.125,
    "rules": [
        {"where": {"codebook.size": {"min": 4096}}, "gpus": 0.5},
        {"where": {"model.width": [128, 256], "codebook.groups": 2}, "gpus": 0.25, "cpus": 2.0},
        {"where": {"model.width": {"max": 16}}, "cpus": 0.5},
    ],
}


def config(size: int = 512, width: int = 64, groups: object = 1) -> dict[str, Any]:
    return {"codebook": {"size": size, "groups": groups}, "model": {"width": width}}


@pytest.mark.parametrize(
    ("given", "cpus", "gpus", "weight"),
    [
        (config(), 1, 0.125, 1),
        (config(size=4096), 1, 0.5, 4),
        (config(size=8192, width=128, groups=2), 1, 0.5, 4),  # the first rule that fits
        (config(width=128, groups=2), 2, 0.25, 2),
        (config(width=128), 1, 0.125, 1),  # one condition of two
        (config(width=128, groups=True), 1, 0.125, 1),
        (config(width=16), 0.5, 0.125, 1),
        (config(width=8), 0.5, 0.125, 1),
        ({"codebook": {"size": True}, "model": None}, 1, 0.125, 1),
        ({}, 1, 0.125, 1),
    ],
)
def test_the_first_rule_that_fits_a_config_counts(
    given: dict[str, Any], cpus: float, gpus: float, weight: float
) -> None:
    taken = Resources(1, 0.125, 8, tuple(Shares.parse(BLOCK).rules))
    assert taken.of(given) == Resources(cpus, gpus, 8)
    assert taken.weight(given) == weight


def test_a_block_is_read_back() -> None:
    assert Shares.parse(BLOCK).plain() == {**BLOCK, "rules": BLOCK["rules"]}
    assert Shares.parse({}).plain() == {}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"gpu": 1}, "resources.gpu: unknown key; allowed: cpus, gpus, rules"),
        ({"gpus": "half"}, "resources.gpus: found 'half'; allowed: a valid number"),
        ({"gpus": 1.5}, "resources.gpus: found 1.5; allowed: up to 1, or whole GPUs"),
        ({"gpus": -1}, "resources.gpus: found -1; allowed: greater than or equal to 0"),
        ({"cpus": float("inf")}, "resources.cpus: found inf; allowed: a finite number"),
        ({"cpus": 1e-5}, "resources.cpus: found 1e-05; allowed: 0, or at least 0.0001"),
        ({"rules": {}}, "resources.rules: found dict; allowed: a valid list"),
        ({"rules": [3]}, "resources.rules.0: found 3; allowed: a valid dictionary"),
        ({"rules": [{"gpus": 1}]}, "resources.rules.0.where: required and missing"),
        (
            {"rules": [{"where": {}, "gpus": 1}]},
            "resources.rules.0.where: found none; allowed: one",
        ),
        (
            {"rules": [{"where": {"seed": 1}}]},
            "resources.rules.0.gpus: found neither cpus nor gpus",
        ),
        (
            {"rules": [{"where": {"seed": {}}, "gpus": 1}]},
            "resources.rules.0.where: found seed: an empty range; allowed: min, max or both",
        ),
        (
            {"rules": [{"where": {"seed": {"min": 2, "max": 1}}, "gpus": 1}]},
            "resources.rules.0.where: found seed: min 2 above max 1; allowed: the reverse",
        ),
        (
            {"rules": [{"where": {"seed": {"least": 1}}, "gpus": 1}]},
            "resources.rules.0.where: found seed: least: unknown key; allowed: min, max",
        ),
        (
            {"rules": [{"where": {"seed": [1, None]}, "gpus": 1}]},
            "resources.rules.0.where: found seed: [1, None]; allowed: a value, a list of values, ",
        ),
        (
            {"rules": [{"where": {"codebook.siz": 16}, "gpus": 1}]},
            "resources.rules.0.where: found 'codebook.siz'; allowed: a key path of a config; did "
            "you mean 'codebook.size'?",
        ),
        ([], "resources: found []; allowed: a mapping"),
    ],
)
def test_anything_else_is_refused_when_the_space_is_loaded(
    block: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: base\nresources: {json.dumps(block)}\n".replace("Infinity", ".inf"))
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_space_has_its_shares_and_those_that_it_extends(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(
        "extends: base\nresources: {gpus: 0.5, rules: [{where: {codebook.size: 512}, gpus: 1}]}"
    )
    (tmp_path / "second.yaml").write_text("extends: first.yaml\nresources: {cpus: 2, gpus: 0.25}")
    (tmp_path / "third.yaml").write_text("extends: second.yaml\nresources: {rules: []}")
    space = load_space(str(tmp_path / "second.yaml"))
    rules = [{"where": {"codebook.size": 512}, "gpus": 1.0}]
    assert space.to_dict()["resources"] == {"cpus": 2.0, "gpus": 0.25, "rules": rules}
    assert Space.from_dict(space.to_dict()) == space
    assert load_space(str(tmp_path / "third.yaml")).resources.rules == []
    assert "resources" not in load_space("base").to_dict()


NUMBERS = count()


def room(sizes: list[int], slots: list[int]) -> Room:
    """Trials of these codebook sizes; `slots` is how many fit, and may change."""
    configs = [{"trial": config(size=size), "threads": 1, "gpus": 0.125} for size in sizes]
    taken = Resources(1, 0.125, slots[0], tuple(Shares.parse(BLOCK).rules))
    return Room(FixedList(configs), taken, lambda: slots[0])


def proposed(limiter: Room) -> int:
    """Ask until there is no more room; how many came."""
    names = (f"trial{next(NUMBERS)}" for _ in range(100))
    return len(list(takewhile(lambda name: isinstance(limiter.suggest(name), dict), names)))


def test_no_more_trials_are_proposed_than_fit() -> None:
    assert proposed(room([512] * 20, [8])) == 8
    assert proposed(room([4096] * 20, [8])) == 2
    assert proposed(room([512, 4096, 512, 512, 512], [8])) == 5
    assert proposed(room([4096, 512, 512, 512, 512, 4096, 512], [8])) == 5
    # Where none fits, one waits for the node that is to come.
    assert proposed(room([512] * 20, [0])) == 1
    # More of those that take less.
    small = Resources(1, 0, 4, tuple(Shares.parse(BLOCK).rules))
    configs = [{"trial": config(width=8)} for _ in range(20)]
    assert proposed(Room(FixedList(configs), small, lambda: 4)) == 7  # the next may be a whole one


def test_a_trial_that_ends_makes_room_for_what_it_took() -> None:
    limiter = room([4096, 4096, 512, 512, 512, 512, 512], [8])
    first = limiter.suggest("first")
    assert (first["gpus"], first["threads"]) == (0.5, 1)
    assert limiter.suggest("second")["gpus"] == 0.5
    assert limiter.suggest("third") is None
    limiter.on_trial_complete("first", {})
    assert limiter.suggest("third")["gpus"] == 0.125
    assert proposed(limiter) == 3


def test_the_nodes_are_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = [1]
    limiter = room([512] * 20, slots)
    assert proposed(limiter) == 1
    slots[0] = 3
    assert proposed(limiter) == 0  # the last count is still good
    monkeypatch.setattr("vqtune.room._GOOD", 0.0)
    assert proposed(limiter) == 2
    slots[0] = 2
    assert proposed(limiter) == 0
