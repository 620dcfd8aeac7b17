"""Proposals that join running stacks: of their signature, within the bound, and reproducible."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from tests.vqtune.test_searcher import result_of
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.journal import make_study, open_journal
from vqtune.packing import PACKED, SHARE, shape_parameters
from vqtune.searcher import VQSearch
from vqtune.space_nodes import Option, Parameter, RandomTrial
from vqtune.spaces import Space, available, load_space

SAMPLERS = ["tpe", "nsga2", "random"]
# Lanes of a stack, and trials that run side by side.
LANES, WORKERS = 3, 6
# Of a journal's entries: who wrote them, and when.
UNALIKE = ("worker_id", "datetime_start", "datetime_complete")


def space_of(sampler: str = "tpe", **search: Any) -> Space:
    """Twelve signatures, and lanes that differ in learning rate, beta and decay."""
    updates = {
        "ema": {"kind": "ema", "decay": {"min": 0.9, "max": 0.99}},
        "gradient": {"kind": "gradient"},
        "simvq": {"kind": "simvq"},
    }
    space = load_space("base").with_search(sampler=sampler, trials=60, **search)
    return space.with_overrides(
        {
            "training.batch_size": {"values": [8, 16, 32, 64]},
            "training.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
            "codebook.commitment.beta": {"min": 0.1, "max": 4.0},
            "codebook.update": {"choices": updates},
        }
    )


def signature(config: dict[str, Any]) -> str:
    return TrialConfig.from_dict(config["trial"]).signature()


class Pool:
    """A search whose trials run side by side; the one that has run longest ends first."""

    def __init__(self, space: Space, storage: Any, packed: bool = True) -> None:
        self.study = make_study(storage, space.search.objectives)
        left = [t.number for t in self.study.trials if t.state == TrialState.RUNNING]
        self.running: dict[str, dict[str, Any]] = {}
        self.turns = count()
        self.searcher = VQSearch(
            space,
            storage,
            3,
            {"folder": "trials"},
            unfinished=left,
            lanes_free=self.free if packed else None,
        )
        for _ in left:
            self.start()

    def free(self) -> dict[str, int]:
        lanes = Counter(map(signature, self.running.values()))
        return {name: LANES - n for name, n in lanes.items()}

    def start(self) -> dict[str, Any]:
        asked = f"tune's {next(self.turns)}"
        config = self.searcher.suggest(asked)
        assert isinstance(config, dict)
        self.running[asked] = config
        return config

    def end(self) -> None:
        asked = next(iter(self.running))
        config = self.running.pop(asked)
        turn = int(config["trial_id"][1:])
        self.searcher.on_trial_complete(asked, result_of(config, turn))

    def run(self, trials: int) -> dict[str, dict[str, Any]]:
        """Start so many, each in the place of another; their values by trial_id."""
        started = {}
        for _ in range(trials):
            if len(self.running) == WORKERS:
                self.end()
            config = self.start()
            started[config["trial_id"]] = config["trial"]
        return started


# --- what a signature depends on ------------------------------------------------------------------


class Held(RandomTrial):
    """Draws at random all that is not held."""

    def __init__(self, rng: random.Random, held: dict[str, Option]) -> None:
        super().__init__(rng)
        self.held, self.params = held, dict[str, Option]()

    def pick(self, name: str, parameter: Parameter) -> Option:
        drawn = parameter.suggest(name, self)
        self.params[name] = self.held.get(name, drawn)
        return self.params[name]


def drawn(space: Space, rng: random.Random, held: dict[str, Option]) -> tuple[Any, TrialConfig]:
    while True:
        trial = Held(rng, held)
        values = space._resolve(trial.pick)[0]
        try:
            return trial.params, TrialConfig.from_dict(values)
        except InputError:  # a rare combination
            continue


@pytest.mark.parametrize("space", available(), ids=lambda space: space.name)
def test_trials_whose_shape_parameters_agree_share_a_stack(space: Space) -> None:
    """In every space that comes with vqtune, and each of the parameters counts."""
    rng = random.Random(0)
    for _ in range(15):
        params, config = drawn(space, rng, {})
        held = shape_parameters(params, config)
        others, other = drawn(space, rng, held)
        assert other.signature() == config.signature()
        assert shape_parameters(others, other) == held
        for name in held:
            changed = {k: v for k, v in held.items() if k != name}
            for _ in range(3):
                with_other, found = drawn(space, rng, changed)
                if with_other[name] != held[name]:
                    assert found.signature() != config.signature()


# --- what is proposed -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_packed_proposals_have_a_running_signature_and_all_parameters(sampler: str) -> None:
    space = space_of(sampler)
    pool = Pool(space, optuna.storages.InMemoryStorage())
    for _ in range(50):
        if len(pool.running) == WORKERS:
            pool.end()
        free = pool.free()
        config = pool.start()
        trial = pool.study.trials[-1]
        if PACKED in trial.user_attrs:
            assert signature(config) == trial.user_attrs[PACKED]
            assert free[signature(config)] > 0
        assert (
            TrialConfig.from_dict(space.suggest(FixedTrial(trial.params))).to_dict()
            == (config["trial"])
        )
    rates = [trial.params["training.lr"] for trial in pool.study.trials]
    assert len(set(rates)) > 40  # lanes are no copies of one another


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_sampler_is_free_in_the_rest(sampler: str) -> None:
    """However many lanes are free, at any time."""
    pool = Pool(space_of(sampler), optuna.storages.InMemoryStorage())
    pool.run(40)
    packed = [PACKED in trial.user_attrs for trial in pool.study.trials]
    assert all(sum(packed[:n]) <= SHARE * n for n in range(1, 41))
    assert sum(packed) == SHARE * 40
    assert not packed[0]


def test_stacks_are_fuller() -> None:
    def lanes(packed: bool) -> float:
        pool = Pool(space_of("random"), optuna.storages.InMemoryStorage(), packed)
        stacks = []
        for _ in range(50):
            pool.run(1)
            stacks.append(len(set(map(signature, pool.running.values()))))
        return WORKERS / (sum(stacks[WORKERS:]) / len(stacks[WORKERS:]))

    assert lanes(packed=True) > 1.2 * lanes(packed=False)


def test_full_stacks_and_signatures_that_the_search_has_not_proposed_are_left_alone(
    tmp_path: Path,
) -> None:
    """Nor does it change anything to ask: the journals are equal to the bit."""
    space, told = space_of(), []
    for name in ("without", "full"):
        storage = open_journal(tmp_path / name)
        lanes = {TrialConfig.from_dict({"codebook": {"size": 7}}).signature(): 7}
        searcher = VQSearch(
            space,
            storage,
            3,
            {"folder": "trials"},
            lanes_free=None if name == "without" else lambda lanes=lanes: lanes,
        )
        for turn in range(14):
            config = searcher.suggest(str(turn))
            assert isinstance(config, dict)
            lanes.setdefault(signature(config), 0)
            if turn % 4:
                searcher.on_trial_complete(str(turn), result_of(config, turn))
        entries = map(json.loads, (tmp_path / name).read_text().splitlines())
        told.append([{k: v for k, v in e.items() if k not in UNALIKE} for e in entries])
    assert told[0] == told[1]


def test_starts_come_first_and_the_grid_as_it_is() -> None:
    start = {"codebook.update": "ema", "training.batch_size": 8}
    space = replace(space_of(), starts=(start, start))
    pool = Pool(space, optuna.storages.InMemoryStorage())
    pool.run(4)
    packed = [PACKED in trial.user_attrs for trial in pool.study.trials]
    assert packed[:2] == [False, False]
    assert packed[2]
    sizes = {"training.batch_size": {"values": [8, 16, 32, 64]}}
    grid = load_space("base").with_overrides(sizes).with_search(sampler="grid", trials=5)
    assert len(Pool(grid, optuna.storages.InMemoryStorage()).run(4)) == 4


# --- in pieces ------------------------------------------------------------------------------------


def test_a_search_in_pieces_proposes_what_one_in_one_go_does(tmp_path: Path) -> None:
    """What was running when a session was killed is taken up as it was, and packs as it did."""
    space = space_of()
    through = Pool(space, open_journal(tmp_path / "through")).run(24)
    pieces: dict[str, Any] = {}
    for trials in (WORKERS, 9, 1, 8):
        pool = Pool(space, open_journal(tmp_path / "pieces"))
        for config in pool.running.values():
            assert pieces[config["trial_id"]] == config["trial"]
        pieces |= pool.run(trials)
    assert pieces == through


@pytest.mark.parametrize("cut", [1, 2, 4, 6])
def test_a_session_killed_while_it_packs_goes_on_with_that_trial(cut: int, tmp_path: Path) -> None:
    """After so many entries of the journal, the first says what the trial is to have."""
    space, path = space_of(), tmp_path / "journal"
    pool = Pool(space, open_journal(path))
    pool.run(13)
    before = path.read_bytes().count(b"\n")
    [(name, values)] = pool.run(1).items()
    lines = path.read_bytes().splitlines(keepends=True)
    assert PACKED in pool.study.trials[-1].user_attrs
    packing = next(i for i, line in enumerate(lines) if i >= before and b"fixed_params" in line)
    assert packing + cut <= len(lines)
    path.write_bytes(b"".join(lines[: packing + cut]))
    again = Pool(space, open_journal(path))
    if again.study.trials[-1].state == TrialState.WAITING:
        again.start()
    assert list(again.running.values())[-1]["trial_id"] == name
    assert list(again.running.values())[-1]["trial"] == values
