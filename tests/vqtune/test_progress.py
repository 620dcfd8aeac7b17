"""What a running search shows: on a terminal a table, elsewhere one line a trial."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from trainables.config import TrialConfig
from vqtune.progress import LiveTable


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("vqtune.progress.time", clock)
    return clock


def make_table(trials: int = 8, terminal: bool = False) -> LiveTable:
    console = Console(
        file=io.StringIO(), width=140, record=True, force_terminal=terminal, markup=False
    )
    return LiveTable(console, "demo", trials, 1000)


def shown(table: LiveTable) -> list[str]:
    """The table's lines as they stand."""
    console = Console(file=io.StringIO(), width=140, record=True, markup=False)
    console.print(table.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


def printed(table: LiveTable) -> list[str]:
    assert isinstance(table.console.file, io.StringIO)
    return table.console.file.getvalue().splitlines()


def config_of(**codebook: Any) -> dict[str, Any]:
    return TrialConfig.from_dict({"codebook": codebook}).to_dict()


def trial_of(trial_id: str, config: dict[str, Any] | None = None) -> Any:
    return SimpleNamespace(config={"trial_id": trial_id, "trial": config or config_of()})


def report(
    samples: int, perplexity: float = 50.0, recon_loss: float = 0.5, **more: Any
) -> dict[str, Any]:
    metrics = {"samples": samples, "perplexity": perplexity, "recon_loss": recon_loss}
    return metrics | {"active_codes": 60, "complete": samples >= 1000} | more


def run(table: LiveTable, trial: Any, *reports: dict[str, Any], failed: bool = False) -> None:
    """A trial from start to end, as Tune tells of it."""
    table.on_trial_start(0, [], trial)
    for each in reports:
        table.on_trial_result(0, [], trial, each)
    (table.on_trial_error if failed else table.on_trial_complete)(0, [], trial)


def test_an_empty_search(clock: Clock) -> None:
    head, columns = shown(make_table())
    assert head == "demo   0/8 trials      0 samples   0 s so far"
    assert columns.split() == ["trial", "perplexity", "recon_loss", "active", "techniques"]


def test_trials_are_counted_by_state(clock: Clock) -> None:
    table = make_table()
    run(table, trial_of("baseline"), report(500), report(1000))
    run(table, trial_of("t0001"), report(1000))
    run(table, trial_of("t0002"), report(125))
    run(table, trial_of("t0003"), report(250, float("nan"), float("nan"), diverged=True))
    run(table, trial_of("t0004"), failed=True)
    table.on_trial_start(0, [], trial_of("t0005"))
    table.on_trial_result(0, [], trial_of("t0005"), report(375))
    head = shown(table)[0]
    assert head.startswith(
        "demo   5/8 trials   1 running  2 complete  1 stopped  1 diverged  1 failed   2,750 samples"
    )


def test_a_failed_trial_that_never_started_counts(clock: Clock) -> None:
    """One that could not be built ends without a start."""
    table = make_table()
    table.on_trial_error(0, [], trial_of("t0001"))
    assert "1/8 trials   1 failed" in shown(table)[0]


def test_the_front_is_shown_with_the_baseline_above_it(clock: Clock) -> None:
    table = make_table()
    run(table, trial_of("baseline"), report(1000, 40.0, 0.5))
    run(table, trial_of("worse"), report(1000, 45.0, 0.6))  # than `best`, in both
    run(table, trial_of("early"), report(500, 400.0, 0.01))  # not at full budget
    best = config_of(update={"kind": "ema", "decay": 0.95}, commitment={"beta": 2.0})
    run(table, trial_of("best", best), report(1000, 90.0, 0.4))
    run(table, trial_of("other", config_of(size=1024)), report(1000, 99.0, 0.45))
    rows = [line.split() for line in shown(table)[2:]]
    assert [row[0] for row in rows] == ["baseline", "best", "other"]
    assert rows[0][1:] == ["40.0", "0.5000", "60", "baseline"]
    assert rows[1][1:] == ["90.0", "0.4000", "60", "ema", "decay=0.95,", "β=2"]
    assert rows[2][4:] == ["K=1024"]


def test_a_baseline_on_the_front_is_shown_once(clock: Clock) -> None:
    table = make_table()
    run(table, trial_of("t0001"), report(1000, 60.0, 0.6))
    run(table, trial_of("baseline"), report(1000, 50.0, 0.5))
    assert [line.split()[0] for line in shown(table)[2:]] == ["baseline", "t0001"]


def test_a_long_front_is_cut(clock: Clock) -> None:
    table = make_table(30)
    for n in range(20):
        run(table, trial_of(f"t{n:04d}"), report(1000, 50.0 + n, 0.5 + n / 100))
    assert [line.split()[0] for line in shown(table)[2:]] == [f"t{n:04d}" for n in range(8)]


def test_time_left_is_what_the_trials_to_come_will_draw(clock: Clock) -> None:
    """Two trials drew 1500 samples in 60 s, so six more draw 4500 in 180 s."""
    table = make_table()
    clock.now += 60
    run(table, trial_of("t0001"), report(1000))
    run(table, trial_of("t0002"), report(500))
    assert shown(table)[0].endswith("   about 3 min left")
    clock.now -= 40
    assert shown(table)[0].endswith("   about 60 s left")


def test_time_left_counts_what_running_trials_have_drawn(clock: Clock) -> None:
    table = make_table(3)
    clock.now += 30
    run(table, trial_of("t0001"), report(1000))
    table.on_trial_start(0, [], trial_of("t0002"))
    table.on_trial_result(0, [], trial_of("t0002"), report(500))
    # 1500 of 3000 expected samples in 30 s.
    assert shown(table)[0].endswith("   about 30 s left")


def test_what_an_earlier_session_drew_took_no_time_in_this_one(clock: Clock) -> None:
    table = make_table(4)
    for trial_id in ("baseline", "t0001"):
        table.carry_over(trial_id, "complete", report(1000), config_of())
    table.carry_over("t0002", "failed", {}, config_of())
    assert shown(table)[0] == (
        "demo   3/4 trials   2 complete  1 failed   2,000 samples   0 s so far"
    )
    clock.now += 10
    table.on_trial_start(0, [], trial_of("t0003"))
    table.on_trial_result(0, [], trial_of("t0003"), report(500))
    # Those that ended drew 667 on average, four of them draw 2667; 500 came in 10 s.
    assert shown(table)[0].endswith("   about 3 s left")


def test_a_finished_search_has_no_time_left(clock: Clock) -> None:
    table = make_table(1)
    clock.now += 12
    run(table, trial_of("t0001"), report(1000))
    assert shown(table)[0].endswith("   12 s so far")


def test_without_a_terminal_each_trial_is_one_line_when_it_ends(clock: Clock) -> None:
    table = make_table(4)
    with table:
        run(table, trial_of("baseline"), report(500), report(1000, 40.26, 0.51239))
        run(table, trial_of("t0001"), report(125))
        run(table, trial_of("t0002"), failed=True)
        diverged = report(250, float("nan"), float("nan"), diverged=True)
        run(table, trial_of("t0003"), diverged)
    assert printed(table) == [
        "[1/4] baseline complete: perplexity 40.3, recon_loss 0.5124, 1,000 samples",
        "[2/4] t0001 stopped: perplexity 50.0, recon_loss 0.5000, 125 samples",
        "[3/4] t0002 failed: no report",
        "[4/4] t0003 diverged: perplexity nan, recon_loss nan, 250 samples",
    ]


def test_on_a_terminal_the_table_is_drawn_and_taken_away() -> None:
    table = make_table(2, terminal=True)
    with table:
        run(table, trial_of("baseline"), report(1000))
        table._live.refresh()
    text = "\n".join(printed(table))
    assert "1/2 trials" in text
    assert "[1/2]" not in text
    assert text.rstrip().endswith("\x1b[2K")  # the last thing is to erase a line


def test_the_front_is_that_of_the_searchs_own_objectives(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=140)
    table = LiveTable(console, "demo", 8, 1000, objectives={"usage": "max", "recon_loss": "min"})
    run(table, trial_of("baseline"), report(1000, 5.0, 0.5, usage=0.1))
    run(table, trial_of("t0001"), report(1000, 9.0, 0.5, usage=0.05))  # more perplexity only
    run(table, trial_of("t0002"), report(1000, 4.0, 0.6, usage=0.23456))
    _head, columns, *rows = shown(table)
    assert columns.split()[:5] == ["trial", "perplexity", "recon_loss", "usage", "active"]
    assert [row.split()[:4] for row in rows] == [
        ["baseline", "5.0", "0.5000", "0.1"],
        ["t0002", "4.0", "0.6000", "0.2346"],
    ]
