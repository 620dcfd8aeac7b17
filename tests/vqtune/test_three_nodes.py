"""A search on a cluster of three nodes that loses one of them, and trials, and gets another one."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from analysis.ranking import ranking
from tests.vqtune.conftest import SMALL, Searched, lines, optuna_states, run_search
from tests.vqtune.losses import Node
from tests.vqtune.test_resume import wait_for
from trainables.config import TrialConfig
from trainables.trainer import Trainer

TRIALS, REPORTS = 24, 8
# A second or so a trial. Proposals do not depend on the order in which results come, nor does
# anything end early, so that whatever is lost the search is to be the same.
SPACE = f"""
description: Deterministic trials for a cluster that loses nodes
extends: base
search: {{trials: {TRIALS}, samples: 640, sampler: random, early_stopping: none}}
{SMALL}
  training: {{reports: {REPORTS}, batch_size: 4}}
"""


class Nodes:
    """A head without CPUs for trials, and workers with one each."""

    def __init__(self) -> None:
        self.head = Node(0)
        self.address = self.head.cluster
        self.workers = [Node(1, f"127.0.0.{i}", self.address) for i in (2, 3)]

    def add(self) -> None:
        self.workers.append(Node(1, "127.0.0.4", self.address))

    def stop(self) -> None:
        for node in [*self.workers, self.head]:
            node.stop()


@pytest.fixture
def nodes(own_environment: None) -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.stop()


def reported(run: Path) -> int:
    """How many reports there are in all."""
    return sum(len(lines(trial)) for trial in run.glob("trials/*"))


class Losses(threading.Thread):
    """Does each of some things when a search has come to a number of reports of its own."""

    def __init__(self, run: Path, things: dict[int, Callable[[], None]]) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.things = run, things
        self.done: list[int] = []

    def run(self) -> None:
        for moment, thing in sorted(self.things.items()):
            if not wait_for(lambda at=moment: reported(self.run_folder) >= at, 120):
                return
            thing()
            self.done.append(moment)


def kill_a_trial(nodes: Nodes, chance: random.Random) -> None:
    """SIGKILL, as the kernel does where memory has run out."""
    found: list[Any] = []
    wait_for(lambda: found.extend(t for n in nodes.workers for t in n.trials()) or found, 60)
    with suppress(ProcessLookupError):
        os.kill(chance.choice(found).pid, signal.SIGKILL)


def kill_a_node(nodes: Nodes, chance: random.Random) -> None:
    nodes.workers.pop(chance.randrange(len(nodes.workers))).kill()


@pytest.mark.long
@pytest.mark.parametrize("seed", [0])
def test_whatever_is_lost_the_search_is_the_same(nodes: Nodes, tmp_path: Path, seed: int) -> None:
    """One node and three processes of trials killed, another node added, at moments of chance."""
    (tmp_path / "space.yaml").write_text(SPACE)
    asked = {"storage": tmp_path / "runs", "seed": seed}
    quiet = run_search(tmp_path / "space.yaml", nodes.address, name="quiet", **asked)
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(5, TRIALS * REPORTS - 40), 5))
    deeds = [lambda: kill_a_trial(nodes, chance)] * 3 + [lambda: kill_a_node(nodes, chance)]
    chance.shuffle(deeds)
    deeds.insert(chance.randrange(5), nodes.add)
    check(quiet, quiet.records.configs)
    losses = Losses(tmp_path / "runs" / "disturbed", dict(zip(moments, deeds, strict=True)))
    losses.start()
    disturbed = run_search(tmp_path / "space.yaml", nodes.address, name="disturbed", **asked)
    assert losses.done == moments
    check(disturbed, quiet.records.configs)
    assert disturbed.records.configs == quiet.records.configs
    for name in quiet.states():
        assert numbers(disturbed, name) == numbers(quiet, name)
    fronts = [
        ranking(searched.records)[["trial_id", "on_front"]] for searched in (disturbed, quiet)
    ]
    assert fronts[0].equals(fronts[1])


@pytest.mark.long
def test_a_node_that_is_killed_takes_no_trial_with_it(nodes: Nodes, tmp_path: Path) -> None:
    """The trials that it had go on elsewhere, to the numbers of trials that nothing disturbs."""
    (tmp_path / "space.yaml").write_text(SPACE)
    losses = Losses(tmp_path / "runs" / "few", {13: lambda: kill_a_node(nodes, random.Random(0))})
    losses.start()
    few = run_search(
        tmp_path / "space.yaml", nodes.address, storage=tmp_path / "runs", name="few", trials=6
    )
    assert losses.done == [13]
    check(few, few.records.configs)
    for name, config in few.records.configs.items():
        trainer = Trainer(TrialConfig.from_dict(config))
        assert numbers(few, name) == [kept(trainer.advance()) for _ in range(REPORTS)]


def check(searched: Searched, configs: Iterable[str]) -> None:
    """Every trial is complete, and each of its reports is there once."""
    assert searched.outcome.finished, searched.printed
    names = ["baseline", *(f"t{n:04d}" for n in range(1, len(list(configs))))]
    assert searched.states() == dict.fromkeys(names, "complete")
    assert optuna_states(searched.run) == ["COMPLETE"] * (len(names) - 1)
    for name in names:
        reports = searched.reports(name)
        assert [report["samples"] for report in reports] == [80 * i for i in range(1, REPORTS + 1)]
        assert [report["done"] for report in reports] == [False] * (REPORTS - 1) + [True]


def numbers(searched: Searched, trial_id: str) -> list[tuple[float, ...]]:
    return [kept(report) for report in searched.reports(trial_id)]


def kept(report: dict[str, Any]) -> tuple[float, ...]:
    return tuple(report[n] for n in ("samples", "perplexity", "recon_loss", "active_codes"))
