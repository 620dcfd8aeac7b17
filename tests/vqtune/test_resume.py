"""Searches that were interrupted or killed go on as if nothing had happened."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from rich.console import Console

from analysis.records import read_run
from tests.vqtune.conftest import (
    SMALL,
    VQTUNE,
    Finished,
    Mixed,
    Searched,
    lines,
    optuna_states,
    study_of,
    vqtune,
)
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.trainer import Trainer
from trainables.yaml_file import read_mapping
from vqtune.journal import open_journal
from vqtune.pareto_asha import ParetoASHA
from vqtune.resume import Past, take_up
from vqtune.run_folder import RunFolder
from vqtune.rung import Arrival
from vqtune.scheduler import make_scheduler
from vqtune.search import Request, search
from vqtune.searcher import VQSearch
from vqtune.session import share
from vqtune.shares import Shares
from vqtune.spaces import SearchSettings, Space, load_space

pytestmark = pytest.mark.cluster  # of its own

# A trial takes a second or two, and is stopped halfway at the earliest.
SAMPLES, REPORTS, TRIALS = 1440, 60, 6
LONG = f"""
description: Trials that last long enough to be interrupted
extends: base
search:
  {{trials: {TRIALS}, samples: {SAMPLES}, sampler: random, grace: 0.5, reduction_factor: 1.5}}
{SMALL}
  training: {{reports: {REPORTS}, batch_size: 4}}
"""


# --- a search that is interrupted, then killed, then finished ------------------------------------


@dataclass(frozen=True)
class Session:
    """What a session printed, and what the run held when it was over."""

    ended: Finished
    reports: dict[str, list[dict[str, Any]]]
    optuna: list[str]
    left: set[Process]  # processes that it had started and that outlived it

    @property
    def done(self) -> set[str]:
        return {trial for trial, reports in self.reports.items() if reports[-1]["done"]}

    @property
    def midway(self) -> set[str]:
        return self.reports.keys() - self.done


def all_reports(run: Path) -> dict[str, list[dict[str, Any]]]:
    found = {path.name: lines(path) for path in (run / "trials").glob("*")}
    return {trial: reports for trial, reports in found.items() if reports}


@dataclass(frozen=True)
class Process:
    """One process, told from a later one of the same number by when it started."""

    pid: int
    started: str

    def at_work(self) -> bool:
        """Whether it could still touch the run.

        Ray's two agents could not; they take about a minute to notice that they are alone.
        """
        fields = stat_fields(self.pid)
        if not fields or fields[19] != self.started or fields[0] == "Z":
            return False
        return b"Agent" not in Path(f"/proc/{self.pid}/cmdline").read_bytes()

    def kill(self) -> None:
        fields = stat_fields(self.pid)
        if fields and fields[19] == self.started:
            os.kill(self.pid, signal.SIGKILL)


def stat_fields(pid: int) -> list[str]:
    """State, parent and so on, from the third field of the kernel's list."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def family(pid: int) -> set[Process]:
    """The process, all that it has started, and all that they have."""
    fields = {int(path.name): stat_fields(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, new = set(), {pid}
    while new:
        found |= new
        new = {pid for pid, values in fields.items() if values and int(values[1]) in new} - found
    return {Process(pid, fields[pid][19]) for pid in found if fields.get(pid)}


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def interrupted(
    arguments: Sequence[str], folder: Path, run: Path, send: Callable[[int], None]
) -> Session:
    """Start a session; end it when one more trial has ended and one is midway."""
    before = all_reports(run)
    ended_before = sum(reports[-1]["done"] for reports in before.values())

    def halfway() -> bool:
        now = all_reports(run)
        done = sum(reports[-1]["done"] for reports in now.values())
        begun = [
            # Far from its end, to be midway yet when the signal has done its work.
            len(before.get(trial, ())) + 3 < len(reports) < REPORTS // 2
            for trial, reports in now.items()
            if not reports[-1]["done"]
        ]
        return process.poll() is not None or (done > ended_before and any(begun))

    process = subprocess.Popen(
        [*VQTUNE, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started = set()
    try:
        assert wait_for(halfway, 100)
        started = family(process.pid)
        send(process.pid)
        out, err = process.communicate(timeout=60)
        wait_for(lambda: not any(each.at_work() for each in started), 30)
        left = {each for each in started if each.at_work()}
    finally:
        for each in started | family(process.pid):
            with suppress(ProcessLookupError):
                each.kill()
    return Session(
        Finished(process.returncode, out, err), all_reports(run), optuna_states(run), left
    )


@dataclass(frozen=True)
class Survivor:
    """Three sessions of one search: Ctrl-C, kill -9 and one to the end."""

    folder: Path
    run: Path
    first: Session
    second: Session
    third: Session
    printed_command: list[str]


@pytest.fixture(scope="module")
def survivor(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Survivor:
    """Each session starts a Ray of its own, as users' searches do."""
    folder = tmp_path_factory.mktemp("a user's folder")
    (folder / "long.yaml").write_text(LONG)
    run = folder / "my runs" / "survivor"
    asked = ["search", "long.yaml", "--storage", "my runs", "--name", "survivor", "--seed", "3"]
    # A terminal sends Ctrl-C to the whole group.
    first = interrupted(asked, folder, run, lambda pid: os.killpg(pid, signal.SIGINT))
    told = first.ended.out.splitlines()[-1]
    command = shlex.split(told.partition("Go on with: ")[2])[1:]
    second = interrupted(command, folder, run, lambda pid: os.kill(pid, signal.SIGKILL))
    ended = vqtune(*command, cwd=folder)
    third = Session(ended, all_reports(run), optuna_states(run), set())
    return Survivor(folder, run, first, second, third, command)


def test_ctrl_c_ends_with_130_and_the_command_to_go_on(survivor: Survivor) -> None:
    first = survivor.first
    assert first.ended.code == 130
    told = first.ended.out.splitlines()[-1]
    assert told.startswith("Interrupted; everything is saved. Go on with: ")
    assert survivor.printed_command[-1] == "--resume"
    assert first.ended.err == ""
    assert first.left == set()
    assert first.done
    assert first.midway


def test_kill_9_leaves_nothing_at_work(survivor: Survivor) -> None:
    assert survivor.second.ended.code == -signal.SIGKILL
    assert survivor.second.left == set()
    assert survivor.second.done > survivor.first.done
    assert survivor.second.midway


def test_interrupted_trials_are_not_told_as_ended(survivor: Survivor) -> None:
    for session in (survivor.first, survivor.second):
        for number, state in enumerate(session.optuna):
            # A killed driver may not have told Optuna the last outcome that it recorded.
            if f"t{number + 1:04d}" not in session.done:
                assert state == "RUNNING"


def test_the_last_session_finishes_the_search(survivor: Survivor) -> None:
    third = survivor.third
    assert third.ended.code == 0, third.ended.err
    assert third.done == {"baseline", *(f"t{n:04d}" for n in range(1, TRIALS))}
    assert set(third.optuna) <= {"COMPLETE", "PRUNED"}
    assert len(third.optuna) == TRIALS - 1
    assert set(read_run(survivor.run).trials["state"]) <= {"complete", "stopped"}
    kept = {path.name for path in survivor.run.iterdir() if path.name != ".lock"}
    assert kept == {"spec.yaml", "optuna.journal", "trials", "tensorboard", "report", "report.html"}


def test_no_finished_trial_runs_twice(survivor: Survivor) -> None:
    for earlier, later in (
        (survivor.first, survivor.second),
        (survivor.first, survivor.third),
        (survivor.second, survivor.third),
    ):
        for trial in earlier.done:
            assert later.reports[trial] == earlier.reports[trial]


def test_unfinished_trials_go_on_from_their_checkpoints(survivor: Survivor) -> None:
    for earlier, later in (
        (survivor.first, survivor.second),
        (survivor.second, survivor.third),
    ):
        for trial in earlier.midway & later.reports.keys():
            before = earlier.reports[trial]
            after = later.reports[trial][len(before) :]
            assert later.reports[trial][: len(before)] == before
            # The report that the checkpoint holds comes again, since it may have been lost.
            assert all(after[0]["samples"] >= report["samples"] for report in before)
            samples = [report["samples"] for report in after]
            assert samples == sorted(set(samples))
            assert {b - a for a, b in pairwise(samples)} <= {SAMPLES // REPORTS}


def test_a_trial_that_was_interrupted_is_the_trial_that_was_not(survivor: Survivor) -> None:
    """To the last digit: the baseline and the trials at the interruptions, trained in one go."""
    records = read_run(survivor.run)
    trial_id = sorted(survivor.second.midway)[0]
    state = records.trials.set_index("trial_id").loc[trial_id]
    torch.set_num_threads(1)  # as the trial had
    trainer = Trainer(TrialConfig.from_dict(records.configs[trial_id]))
    report: dict[str, Any] = {}
    while report.get("samples", 0) < state["samples"]:
        report = trainer.advance()
    assert report["recon_loss"] == state["recon_loss"]
    assert report["perplexity"] == state["perplexity"]


def test_a_resumed_search_does_not_draw_again_what_it_drew(survivor: Survivor) -> None:
    betas = [trial.params["codebook.commitment.beta"] for trial in study_of(survivor.run).trials]
    assert len(set(betas)) == TRIALS - 1


def test_a_finished_run_says_so_and_ends_at_once(survivor: Survivor) -> None:
    before = {path: path.stat().st_mtime_ns for path in survivor.run.rglob("*")}
    started = time.monotonic()
    ended = vqtune(*survivor.printed_command, cwd=survivor.folder)
    assert time.monotonic() - started < 5  # Ray alone would take that
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "survivor is finished: nothing is left to do"
    assert ended.err == ""
    kept = {path: path.stat().st_mtime_ns for path in survivor.run.rglob("*")}
    assert kept.keys() == before.keys()
    for path in (survivor.run / "trials").rglob("*"):
        assert kept[path] == before[path]


# --- what is refused ----------------------------------------------------------------------------


def resumed(finished: Searched, tmp_path: Path, **request: Any) -> None:
    """Resume a copy of the finished run."""
    if not (tmp_path / "runs").exists():
        shutil.copytree(finished.run, tmp_path / "runs" / "demo")
    asked = {"space": str(finished.run.parents[1] / "tiny.yaml"), "name": "demo", "seed": 5}
    asked |= {"storage": tmp_path / "runs", "resume": True, **request}
    outcome = search(Request(**asked), Console(file=io.StringIO()))
    assert outcome.finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "parameters.seed: the run was started with 5, now it is 6"),
        ({"trials": 4}, "--trials: found 4; 5 trials have been begun, allowed: 5 or more"),
        (
            {"samples": 640},
            "parameters.training.samples: the run was started with 320, now it is 640",
        ),
        ({"name": "dem"}, "--resume: there is no run 'dem' in"),
        ({"name": None}, "--resume: needs --name"),
    ],
)
def test_another_search_is_not_resumed(
    change: dict[str, Any], message: str, finished: Searched, tmp_path: Path
) -> None:
    resumed(finished, tmp_path)
    with pytest.raises(InputError) as caught:
        resumed(finished, tmp_path, **change)
    assert message in str(caught.value)


def test_a_changed_space_is_refused_with_the_difference(finished: Searched, tmp_path: Path) -> None:
    text = (finished.run.parents[1] / "tiny.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text(text.replace("max: 10.0", "max: 20.0"))
    with pytest.raises(InputError) as caught:
        resumed(finished, tmp_path, space=str(tmp_path / "tiny.yaml"))
    assert str(caught.value) == (
        "--resume demo: parameters.codebook.commitment.beta.max: the run was started with 10.0, "
        "now it is 20.0; allowed: the same space and flags"
    )


def test_a_trial_takes_what_it_took_before(finished: Searched) -> None:
    """With another number of threads its numbers would change."""
    with pytest.raises(InputError) as caught:
        share(Request("tiny", cpus_per_trial=2), RunFolder(finished.run), Shares())
    assert str(caught.value) == (
        "--cpus-per-trial: found 2; the run was started with 1, allowed: the same"
    )


def test_two_searches_do_not_work_on_one_run(finished: Searched, tmp_path: Path) -> None:
    resumed(finished, tmp_path)
    with (
        RunFolder(tmp_path / "runs" / "demo").locked(),
        pytest.raises(InputError, match="another search is at work in this run"),
    ):
        resumed(finished, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "name: demo", "space: 3", "space: {}"])
def test_a_damaged_spec_is_refused_in_one_line(
    text: str, finished: Searched, tmp_path: Path
) -> None:
    resumed(finished, tmp_path)
    (tmp_path / "runs" / "demo" / "spec.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        resumed(finished, tmp_path)
    assert "\n" not in str(caught.value)


# --- what a killed driver can leave, case by case ------------------------------------------------


@pytest.fixture
def left(finished: Searched, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to be cut back."""
    shutil.copytree(finished.run, tmp_path / "demo")
    return RunFolder(tmp_path / "demo")


def forget_outcome(run: RunFolder, number: int) -> None:
    """Cut from the journal that the trial of this number has ended."""
    kept = []
    for line in run.journal.read_text().splitlines(keepends=True):
        entry = json.loads(line)
        if not (entry.get("trial_id") == number and entry.get("state") in (1, 2, 3)):
            kept.append(line)
    run.journal.write_text("".join(kept))


def test_optuna_is_told_what_it_missed(left: RunFolder) -> None:
    forget_outcome(left, 1)
    assert optuna_states(left.path) == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]
    values = take_up(left, open_journal(left.journal)).ended[2].last
    told = study_of(left.path).trials[1]
    assert told.state == TrialState.COMPLETE
    assert told.values == [values["perplexity"], values["recon_loss"]]


def test_the_constraint_is_told_from_the_records_as_it_was_at_the_time(left: RunFolder) -> None:
    before = [trial.constraints for trial in study_of(left.path).trials]
    forget_outcome(left, 1)
    kept = left.journal.read_text().splitlines(keepends=True)
    kept = [line for line in kept if not ('"trial_id":1,' in line and "constraints:" in line)]
    left.journal.write_text("".join(kept))
    assert study_of(left.path).trials[1].constraints == {}
    take_up(left, open_journal(left.journal))
    assert [trial.constraints for trial in study_of(left.path).trials] == before
    assert all("recon_loss <= 1*baseline" in constraints for constraints in before)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"samples": 240, "complete": False, "done": True}, "PRUNED"),
        ({"recon_loss": float("nan"), "diverged": True, "complete": False}, "FAIL"),
    ],
)
def test_optuna_is_told_of_trials_that_did_not_complete(
    change: dict[str, Any], state: str, left: RunFolder
) -> None:
    forget_outcome(left, 2)
    path = left.trial("t0003") / "result.json"
    *reports, last = lines(left.trial("t0003"))
    reports = [report for report in reports if report["samples"] < change.get("samples", 320)]
    path.write_text("".join(json.dumps(r) + "\n" for r in [*reports, {**last, **change}]))
    past = take_up(left, open_journal(left.journal))
    assert past.unfinished == []
    assert optuna_states(left.path) == ["COMPLETE", "COMPLETE", state, "COMPLETE"]
    assert study_of(left.path).trials[2].values is None


def test_a_failed_trial_without_a_report_is_taken_up_as_ended(left: RunFolder) -> None:
    forget_outcome(left, 3)
    (left.trial("t0004") / "result.json").unlink()
    (left.trial("t0004") / "error.txt").write_text("ValueError: no\n")
    past = take_up(left, open_journal(left.journal))
    assert past.unfinished == []
    assert [(t.state, t.last) for t in past.ended if t.trial_id == "t0004"] == [("failed", {})]
    assert optuna_states(left.path)[3] == "FAIL"


def test_a_trial_goes_on_under_its_own_number_and_parameters(left: RunFolder) -> None:
    given = json.loads((left.trial("t0002") / "params.json").read_text())["trial"]
    forget_outcome(left, 1)
    shutil.rmtree(left.trial("t0002"))  # killed before it had started
    storage = open_journal(left.journal)
    past = take_up(left, storage)
    assert (past.unfinished, past.proposed, past.baseline_ended) == ([1], 4, True)
    searcher = make_searcher(left, storage, past.unfinished, baseline=None)
    config = searcher.suggest("some id of Tune's")
    assert isinstance(config, dict)
    assert (config["trial_id"], config["role"]) == ("t0002", "search")
    assert config["trial"] == given
    assert searcher.suggest("another") == VQSearch.FINISHED
    result = {"perplexity": 3.0, "recon_loss": 0.5, "complete": True, "diverged": False}
    searcher.on_trial_complete("some id of Tune's", result)
    assert study_of(left.path).trials[1].values == [3.0, 0.5]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_resumed_sampler_does_not_draw_again_what_it_drew(sampler: str, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    space = load_space(str(tmp_path / "long.yaml"))
    betas = []
    for proposed, unfinished, count in ((0, [], 3), (3, [2], 3)):
        storage = open_journal(tmp_path / "journal")
        asked = space.with_search(sampler=sampler)
        searcher = VQSearch(asked, storage, 3, {"folder": "trials"}, None, unfinished)
        for n in range(count):
            config = searcher.suggest(f"{proposed} {n}")
            assert isinstance(config, dict)
            betas.append(config["trial"]["codebook"]["commitment"]["beta"])
    assert betas[3] == betas[2]  # the one that was not finished
    assert len(set(betas)) == 5


def test_an_unfinished_baseline_comes_first_again(left: RunFolder) -> None:
    shutil.rmtree(left.trial("baseline"))
    storage = open_journal(left.journal)
    past = take_up(left, storage)
    assert not past.baseline_ended
    baseline = {"seed": 5}
    config = make_searcher(left, storage, past.unfinished, baseline).suggest("an id")
    assert isinstance(config, dict)
    assert (config["trial_id"], config["role"]) == ("baseline", "baseline")


def test_a_run_that_was_killed_before_its_first_trial(left: RunFolder) -> None:
    shutil.rmtree(left.trials)
    left.trials.mkdir()
    left.journal.unlink()
    past = take_up(left, open_journal(left.journal))
    assert (past.ended, past.unfinished, past.proposed) == ([], [], 0)


def make_searcher(
    run: RunFolder,
    storage: optuna.storages.BaseStorage,
    unfinished: Sequence[int],
    baseline: dict[str, Any] | None,
) -> VQSearch:
    space = Space.from_dict(read_mapping(run.spec)["space"])
    return VQSearch(space, storage, 5, {"folder": "trials"}, baseline, unfinished)


# --- rungs --------------------------------------------------------------------------------------


def rungs(scheduler: ParetoASHA) -> dict[float, dict[str, Arrival]]:
    [bracket] = scheduler.rungs
    return {samples: dict(rung.arrivals) for samples, rung in bracket.items()}


def test_the_rungs_of_a_search_are_filled_from_its_records(mixed: Mixed) -> None:
    scheduler = make_scheduler(SearchSettings(grace=0.7, reduction_factor=1.5), 320, seed=3)
    run = RunFolder(mixed.run)
    take_up(run, open_journal(run.journal)).replay(scheduler)
    assert rungs(scheduler) == rungs(mixed.scheduler)
    assert scheduler.stopped == mixed.scheduler.stopped
    held = rungs(scheduler)
    assert {samples: set(trials) for samples, trials in held.items()} == {
        224: {"baseline", "t0001", "t0002", "t0005"}
    }
    assert scheduler.stopped == {"t0002"}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Reports of several trials in the order in which they come."""
    trials = draw(st.integers(1, 6))
    reports = draw(st.integers(1, 10))
    waiting = {
        f"t{n}": [round(320 * (i + 1) / reports) for i in range(reports)] for n in range(trials)
    }
    history = []
    while waiting:
        trial = draw(st.sampled_from(sorted(waiting)))
        samples = waiting[trial].pop(0)
        diverged = draw(st.integers(0, 9)) == 0
        loss = float("nan") if diverged else draw(st.floats(0, 10))
        complete = samples >= 320 and not diverged
        history.append(
            (
                trial,
                {
                    "samples": samples,
                    "recon_loss": loss,
                    "perplexity": float(draw(st.integers(1, 9))),
                    "complete": complete,
                    "diverged": diverged,
                },
            )
        )
        if diverged or not waiting[trial]:
            del waiting[trial]
    return history


@settings(deadline=None, max_examples=200)
@given(histories(), st.data(), st.sampled_from([0.05, 0.125, 0.5]), st.sampled_from([1.5, 2, 3, 4]))
def test_replayed_rungs_are_those_of_a_scheduler_that_was_never_stopped(
    history: list[tuple[str, dict[str, Any]]], data: st.DataObject, grace: float, eta: float
) -> None:
    asked = SearchSettings(grace=grace, reduction_factor=eta)
    cut = data.draw(st.integers(0, len(history)))
    through, resumed_one = make_scheduler(asked, 320), make_scheduler(asked, 320)
    for trial, report in history[:cut]:
        hear(through, trial, report)
    replay(history[:cut], resumed_one)
    assert rungs(resumed_one) == rungs(through)
    # Every trial that is still at work sends its last report again, and then goes on.
    last = dict(history[:cut])
    for trial, report in last.items():
        hear(resumed_one, trial, report)
    assert rungs(resumed_one) == rungs(through)
    for trial, report in history[cut:]:
        assert hear(resumed_one, trial, report) == hear(through, trial, report)
    assert rungs(resumed_one) == rungs(through)


def replay(history: Sequence[tuple[str, dict[str, Any]]], scheduler: Any) -> None:
    """As from a run's records."""
    rows = [
        {"trial_id": trial, "timestamp": float(time), **report}
        for time, (trial, report) in enumerate(history)
    ]
    # The records list them by trial.
    rows.sort(key=lambda row: (str(row["trial_id"]), float(row["samples"])))
    reports = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["trial_id", "timestamp"])
    records: Any = SimpleNamespace(reports=reports)
    Past([], [], 0, records).replay(scheduler)


def hear(scheduler: Any, trial_id: str, report: dict[str, Any]) -> str:
    """A report as Tune passes it on: not to the scheduler when the trial ends with it."""
    if report["complete"] or report["diverged"]:
        return "STOP"
    config = {"trial_id": trial_id, "role": "search"}
    trial = SimpleNamespace(trial_id=f"tune's {trial_id}", config=config)
    return str(scheduler.on_trial_result(None, trial, report))


def test_without_early_stopping_nothing_is_stopped(finished: Searched) -> None:
    scheduler = make_scheduler(SearchSettings(early_stopping="none"), 320)
    run = RunFolder(finished.run)
    take_up(run, open_journal(run.journal)).replay(scheduler)
    report = {"samples": 40, "complete": False, "diverged": False}
    for n in range(9):
        assert hear(scheduler, f"t{n}", {**report, "recon_loss": float(n)}) == "CONTINUE"
