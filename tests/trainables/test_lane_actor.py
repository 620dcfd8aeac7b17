"""The process of a lane pool, asked as the search asks it but without Ray."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from tests.trainables.test_lane_pool import TIMES, assert_same
from trainables import search_trial
from trainables.checkpoint import read_trial
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.kept import Kept
from trainables.lane_actor import LaneActor
from trainables.patience import StorageError
from trainables.search_trial import NOTE, SNAPSHOT, SearchTrial, TuneConfig
from trainables.stack import Stack
from trainables.trainer import CHECKPOINT, Trainer

# What of a report is the process's own.
ADDED = {"training_iteration", "time_this_iter_s", "time_total_s", "timestamp", "pid", "hostname"}
Reports = dict[int, list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials get the tiny data set."""
    dataset = make_dataset()
    monkeypatch.setattr(search_trial, "load_dataset", lambda config: dataset)


def tune_config(folder: Path, seed: int, **more: Any) -> TuneConfig:
    trial = make_config(MIXES["all"], samples=160, reports=4, precision="float64").to_dict()
    trial["seed"] = seed
    trial["training"]["lr"] = 1e-4 * (1 + seed)
    config = TuneConfig(
        trial_id=f"t{seed}",
        role="searched",
        trial=trial,
        folder=str(folder / f"t{seed}"),
        threads=1,
        gpus=0.0,
    )
    return {**config, **more}  # type: ignore[typeddict-item]


def alone(config: TuneConfig, elsewhere: Path) -> list[dict[str, Any]]:
    """The reports of a plain trial."""
    trial, reports = SearchTrial({**config, "folder": str(elsewhere)}), list[dict[str, Any]]()
    while not (reports and reports[-1]["done"]):
        reports.append(trial.step())
    return reports


def check(reports: list[dict[str, Any]], config: TuneConfig, elsewhere: Path) -> None:
    """Compare them with those of a plain trial."""
    expected = alone(config, elsewhere)
    assert len(reports) == len(expected)
    for report, theirs in zip(reports, expected, strict=True):
        mine = {key: value for key, value in report.items() if key not in ADDED}
        assert_same(mine, theirs, 1e-7)


async def until_done(
    actor: LaneActor, key: str, count: int = 100, then: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """The next reports of a trial, up to its last; `then` is called after each."""
    reports: list[dict[str, Any]] = []
    while len(reports) < count and not (reports and reports[-1]["done"]):
        reports.append(await actor.report(key))
        then()
    return reports


async def one(actor: LaneActor, config: TuneConfig, count: int = 100) -> list[dict[str, Any]]:
    """All reports of a trial that joins, and leaves at its end."""
    key = config["trial_id"]
    await actor.join(key, config)
    reports = await until_done(actor, key, count)
    await actor.leave(key)
    return reports


def together(*work: Awaitable[Any]) -> list[Any]:
    async def gathered() -> list[Any]:
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(gathered())


def test_trials_together_report_what_each_reports_alone(tmp_path: Path) -> None:
    """More than there are lanes in a stack, and one that leaves before its end."""
    actor = LaneActor(4, 1)
    configs = [tune_config(tmp_path, seed) for seed in range(6)]
    found = together(*(one(actor, c, 2 if i == 3 else 100) for i, c in enumerate(configs)))
    assert len(found[3]) == 2
    for i, (reports, config) in enumerate(zip(found, configs, strict=True)):
        if i != 3:
            check(reports, config, tmp_path / f"alone{i}")
            assert [report["training_iteration"] for report in reports] == [1, 2, 3, 4]
    assert actor._pool.seats == 0
    assert not actor._guests


def test_the_checkpoint_is_on_the_disk_before_its_report_is_given(tmp_path: Path) -> None:
    actor, config = LaneActor(4, 1), tune_config(tmp_path, 1)

    async def asked() -> None:
        await asyncio.gather(actor.join("a", config), actor.join("b", tune_config(tmp_path, 2)))
        for _ in range(4):
            report, _ = await asyncio.gather(actor.report("a"), actor.report("b"))
            saved = Trainer(TrialConfig.from_dict(config["trial"]), make_dataset())
            saved.load(Path(config["folder"]))
            assert saved.report["samples"] == report["samples"]
            assert saved.done == report["done"]

    asyncio.run(asked())


def test_a_trial_goes_on_from_its_checkpoint_and_in_the_place_of_itself(tmp_path: Path) -> None:
    """In another process, and where its handle is lost in the same one."""
    config = tune_config(tmp_path, 1)
    first = LaneActor(4, 1)

    async def begun() -> list[dict[str, Any]]:
        await first.join("a", config)
        return await until_done(first, "a", 2)

    async def again(actor: LaneActor, key: str, count: int) -> list[dict[str, Any]]:
        await actor.join(key, config)
        assert len(actor._guests) == 1
        return await until_done(actor, key, count)

    reports = asyncio.run(begun())
    for actor, key, count in ((first, "b", 2), (LaneActor(4, 1), "a", 100)):
        resent, *more = asyncio.run(again(actor, key, count))
        plain = {k: v for k, v in resent.items() if k not in ADDED}
        assert plain == {k: v for k, v in reports[-1].items() if k not in ADDED}
        reports += more
    check(reports, config, tmp_path / "alone")
    # It was at its end: nothing is left but to say so again.
    [last] = asyncio.run(again(LaneActor(4, 1), "c", 100))
    assert last["done"]
    with pytest.raises(LookupError, match="no such trial here: a"):
        asyncio.run(first.report("a"))


def test_what_is_wrong_with_a_trial_only_that_one_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config that will not do, a step that raises in the lane of one, a disk that is full."""
    actor = LaneActor(4, 1)
    bad = tune_config(tmp_path, 1)
    bad["trial"]["codebook"]["size"] = 0
    run, save = Stack.run, Kept.save

    def step(self: Stack, *given: Any) -> None:
        if any(trial.seed == 3 for trial in self.trials) and max(self.steps) > 15:
            raise ZeroDivisionError("of the third")
        run(self, *given)

    def full(self: Kept, trainer: Trainer) -> None:
        if trainer.config.seed == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.last))
        save(self, trainer)

    monkeypatch.setattr(Stack, "run", step)
    monkeypatch.setattr(Kept, "save", full)
    configs = [tune_config(tmp_path, 2), bad, *(tune_config(tmp_path, n) for n in (3, 4, 5))]
    found = together(*(one(actor, config) for config in configs))
    assert [type(one) for one in found] == [list, InputError, ZeroDivisionError, StorageError, list]
    assert str(found[1]).startswith("trial t1: codebook.size: found 0")
    assert str(found[2]) == "of the third"
    for i in (0, 4):
        check(found[i], configs[i], tmp_path / f"alone{i}")
    with pytest.raises(ZeroDivisionError):  # it gets no better
        asyncio.run(actor.report("t3"))


def test_neighbours_of_a_trial_that_is_lost_and_comes_again_do_not_change_by_a_bit(
    tmp_path: Path,
) -> None:
    """In float32, and in the same steps of the stack, as sizes of stacks may differ in rounding."""

    def final(folder: Path, lost: bool) -> list[dict[str, Any]]:
        folder.mkdir()
        actor = LaneActor(4, 1)
        configs = [tune_config(folder, seed) for seed in range(4)]
        for config in configs:
            config["trial"]["training"]["precision"] = "float32"
        rounds: list[Any] = []

        async def asked() -> None:
            keys = [config["trial_id"] for config in configs]
            for key, config in zip(keys, configs, strict=True):
                await actor.join(key, config)
            for number in range(4):
                if lost and number == 2:
                    await actor.leave(keys[1])
                    await actor.join("again", configs[1])
                    keys[1] = "again"
                    await actor.report("again")  # sent once more
                rounds.append(await asyncio.gather(*(actor.report(key) for key in keys)))

        asyncio.run(asked())
        added = {*ADDED, *TIMES}
        return [
            {key: value for key, value in report.items() if key not in added}
            for found in rounds
            for report in found
        ]

    assert final(tmp_path / "a", lost=True) == final(tmp_path / "b", lost=False)


def test_pictures_are_those_of_the_trial_itself(tmp_path: Path) -> None:
    actor = LaneActor(4, 1)
    configs = [tune_config(tmp_path, seed, snapshots=True) for seed in (1, 2, 3)]
    found = together(*(one(actor, config, 2) for config in configs))
    for config, reports in zip(configs, found, strict=True):
        plain = SearchTrial({**config, "folder": str(tmp_path / f"alone{config['trial_id']}")})
        for report in reports:
            mine, theirs = report[SNAPSHOT], plain.step()[SNAPSHOT]
            assert NOTE not in report
            assert len(mine.outputs) == len(theirs.outputs) > 0
            for a, b in zip(mine.outputs, theirs.outputs, strict=True):
                assert abs(a.astype(int) - b.astype(int)).max() <= 1


def test_the_first_of_trials_that_cannot_share_a_stack_says_why(tmp_path: Path) -> None:
    actor = LaneActor(4, 1)
    configs = [tune_config(tmp_path, seed) for seed in (1, 2)]
    for config in configs:
        config["trial"]["model"] = {
            "kind": "factory",
            "factory": "tests.trainables.test_calibrate:unruly",
        }
    found = together(*(one(actor, config) for config in configs))
    notes = [report[NOTE] for reports in found for report in reports if NOTE in report]
    assert notes == [
        "trains in a lane without a stack, since its model cannot share one: decoder: Decoder "
        "takes a value to the host (.item(), float())"
    ]
    for config, reports in zip(configs, found, strict=True):
        plain = [{k: v for k, v in report.items() if k != NOTE} for report in reports]
        check(plain, config, tmp_path / f"alone{config['trial_id']}")


def test_after_deaths_trials_are_trained_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until each has reported: whoever ends the process then ends it alone."""
    actor, at_work = LaneActor(4, 1), set[frozenset[str]]()
    turn = actor._pool.turn

    def watched() -> Any:
        guests = actor._guests.items()
        at_work.add(frozenset(key for key, g in guests if g.seat is not None and g.seat.asked))
        return turn()

    monkeypatch.setattr(actor._pool, "turn", watched)

    async def asked() -> None:
        for seed, deaths in ((1, 2), (2, 0), (3, 3)):
            await actor.join(f"t{seed}", tune_config(tmp_path, seed), deaths)
        await asyncio.gather(*(actor.report(f"t{seed}") for seed in (1, 2, 3)))
        assert not any({"t1", "t3"} <= keys for keys in at_work)
        await asyncio.gather(*(actor.report(f"t{seed}") for seed in (1, 2, 3)))

    asyncio.run(asked())
    assert frozenset({"t1", "t2", "t3"}) in at_work


def test_it_trains_on_the_threads_it_was_given(tmp_path: Path) -> None:
    asyncio.run(one(LaneActor(4, 2), tune_config(tmp_path, 1), 1))
    assert read_trial(tmp_path / "t1" / CHECKPOINT)[1]["made"]["threads"] == 2
    assert torch.get_num_threads() == 1  # of this thread
