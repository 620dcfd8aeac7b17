"""`vqtune confirm`: the best of a search and its baseline, really trained again by Ray."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.confirmed import confirmed
from analysis.ranking import ranking
from analysis.records import Records, read_run
from tests.vqtune.conftest import VQTUNE, Finished, Mixed, Searched, digest, lines, vqtune
from tests.vqtune.test_cli import refused
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune import lease
from vqtune.lease import leased
from vqtune.run_folder import RunFolder

# The search's seed is 5.
SEEDS = (6, 7)


@dataclass(frozen=True)
class Confirmed:
    """A search that was confirmed, and what the command printed."""

    folder: Path
    ended: Finished

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "demo"

    @property
    def records(self) -> Records:
        return read_run(self.run / "confirm")


def finalists(run: Path, top: int) -> list[str]:
    """The first of the ranking, behind the front too, without the baseline and what harms."""
    ranked = ranking(read_run(run))
    chosen = ranked[ranked["feasible"] & (ranked["role"] != "baseline")]
    return chosen["trial_id"].tolist()[:top]


def copied(run: Path, folder: Path) -> Path:
    """The folder in which `runs/demo` is a copy of a run."""
    shutil.copytree(run, folder / "runs" / "demo")
    return folder


def confirm(folder: Path, cluster: str, *flags: object) -> Finished:
    return vqtune("confirm", "demo", "--address", cluster, *flags, cwd=folder)


@pytest.fixture(scope="module")
def done(cluster: str, finished: Searched, tmp_path_factory: pytest.TempPathFactory) -> Confirmed:
    """The first finalist and the baseline with two seeds; tests only read it."""
    folder = copied(finished.run, tmp_path_factory.mktemp("confirmed"))
    ended = confirm(folder, cluster, "--top", 1, "--seeds", len(SEEDS))
    assert ended.code == 0, ended.err
    return Confirmed(folder, ended)


def test_finalists_and_baseline_are_trained_with_new_seeds(
    done: Confirmed, finished: Searched
) -> None:
    [first] = finalists(finished.run, 1)
    spec = yaml.safe_load((done.run / "confirm" / "spec.yaml").read_text())
    assert spec["confirm"] == {
        "run": "demo",
        "finalists": [first, "baseline"],
        "seeds": list(SEEDS),
    }
    assert spec["objectives"] == finished.records.spec["objectives"]
    trials = done.records.trials
    assert trials["trial_id"].tolist() == [f"{t}-s{s}" for s in SEEDS for t in (first, "baseline")]
    assert set(trials["state"]) == {"complete"}
    for trial_id, config in done.records.configs.items():
        trial, _, seed = trial_id.rpartition("-s")
        assert config == finished.records.configs[trial] | {"seed": int(seed)}
    roles = dict(zip(trials["trial_id"], trials["role"], strict=True))
    assert [t for t, role in roles.items() if role == "baseline"] == [f"baseline-s{SEEDS[0]}"]


def test_a_trial_gives_the_numbers_of_a_plain_training(done: Confirmed) -> None:
    records = done.records
    for trial in records.trials.to_dict("records"):
        trainer = Trainer(TrialConfig.from_dict(records.configs[trial["trial_id"]]))
        while not trainer.done:
            report = trainer.advance()
        for metric in ("perplexity", "recon_loss", "active_codes"):
            assert report[metric] == trial[metric]


def test_the_search_is_left_as_it_was(done: Confirmed, finished: Searched) -> None:
    kept = {k: v for k, v in digest(done.run).items() if not k.startswith("confirm/")}
    assert kept == digest(finished.run)
    left = {path.name for path in (done.run / "confirm").iterdir() if path.name != ".lock"}
    assert left == {"spec.yaml", "trials", "tensorboard", "confirmed.csv"}


def test_the_table_is_written_and_printed(done: Confirmed) -> None:
    table = confirmed(read_run(done.run))
    assert table is not None
    written = pd.read_csv(done.run / "confirm" / "confirmed.csv", keep_default_na=True)
    assert written["trial_id"].tolist() == table["trial_id"].tolist()
    assert written["perplexity"].to_numpy() == pytest.approx(table["perplexity"].to_numpy())
    assert written["seeds_complete"].tolist() == [2, 2]
    out = done.ended.out.splitlines()
    assert done.ended.err == ""
    assert "demo/confirm: 2 configs with 2 seeds, 4 trials" in out
    after = out[out.index("demo/confirm: 4 complete") + 1 :]
    assert after[0].split()[:2] == ["trial", "seeds"]
    assert [line.split()[0] for line in after[1:3]] == table["trial_id"].tolist()
    for line, mean in zip(after[1:3], table["perplexity"], strict=True):
        assert f"→ {mean:.1f} ± " in line
    assert any(line.startswith("Searched values were ") for line in after)
    assert any(line.startswith(f"Take {table['trial_id'][0]}: ") for line in after)
    assert after[-2] == "Records: runs/demo/confirm   Table: runs/demo/confirm/confirmed.csv"
    assert after[-1].endswith(" export runs/demo")


@pytest.mark.parametrize("flags", [("--top", 1, "--seeds", 2), ("--top", 1, "--seeds", 1)])
def test_a_finished_confirmation_is_shown_again(done: Confirmed, flags: tuple[object, ...]) -> None:
    """Nothing that is there is left out where less is asked for; nor is a cluster needed."""
    before = digest(done.run)
    again = vqtune("confirm", "demo", *flags, cwd=done.folder)
    assert again.code == 0
    first, second = done.ended.out.splitlines(), again.out.splitlines()
    assert second[0] == "demo/confirm is finished: nothing is left to do"
    assert second[1:] == first[first.index("demo/confirm: 4 complete") :]
    assert digest(done.run) == before


@pytest.mark.long
def test_more_finalists_and_seeds_are_added(
    cluster: str, done: Confirmed, finished: Searched, tmp_path: Path
) -> None:
    folder = copied(done.run, tmp_path)
    before = digest(folder / "runs" / "demo" / "confirm" / "trials")
    chosen = finalists(finished.run, 2)
    ended = confirm(folder, cluster, "--top", 2, "--seeds", 3)
    assert ended.code == 0, ended.err
    run = folder / "runs" / "demo" / "confirm"
    after = digest(run / "trials")
    assert {name: after[name] for name in before} == before
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    assert spec["confirm"]["seeds"] == [6, 7, 8]
    assert spec["confirm"]["finalists"] == [*chosen, "baseline"]
    assert spec["trials"] == 3 * len(spec["confirm"]["finalists"])
    trials = read_run(run).trials
    assert set(trials["state"]) == {"complete"}
    assert len(trials) == spec["trials"]
    assert len(pd.read_csv(run / "confirmed.csv")) == 1 + len(chosen)


def test_data_that_have_changed_are_told(done: Confirmed, tmp_path: Path) -> None:
    folder = copied(done.run, tmp_path)
    for checkpoint in (folder / "runs" / "demo" / "trials").glob("*/checkpoint.safetensors"):
        tensors, header = read_tensors(checkpoint)
        header["made"]["data_fingerprint"] = "another"
        write_tensors(checkpoint, tensors, header)
    again = vqtune("confirm", "demo", "--top", 1, "--seeds", 2, cwd=folder)
    assert "Note: the data are not those of the search" in again.out
    assert "Note: the data are not those" not in done.ended.out


def ended_trials(run: Path) -> dict[str, list[dict[str, Any]]]:
    found = {path.name: lines(path) for path in (run / "trials").glob("*")}
    return {trial: reports for trial, reports in found.items() if reports and reports[-1]["done"]}


def stopped(asked: list[str], folder: Path, run: Path, sent: int) -> Finished:
    """Start a session, and send it a signal when two more trials have ended."""
    ended_before = len(ended_trials(run))
    with subprocess.Popen(
        [*VQTUNE, *asked], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        limit = time.monotonic() + 60
        while len(ended_trials(run)) < ended_before + 2:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.kill(process.pid, sent)
        out, err = process.communicate(timeout=60)
    return Finished(process.returncode, out, err)


@pytest.mark.long
def test_an_interrupted_confirmation_goes_on(
    cluster: str, finished: Searched, done: Confirmed, tmp_path: Path
) -> None:
    """Ctrl-C, kill -9, and to the end; what two seeds have in common with one go is the same."""
    folder = copied(finished.run, tmp_path)
    run = folder / "runs" / "demo" / "confirm"
    asked = ["confirm", "demo", "--top", "1", "--seeds", "8", "--address", cluster]
    first = stopped(asked, folder, run, signal.SIGINT)
    assert (first.code, first.err) == (130, "")
    told = first.out.splitlines()[-1]
    assert told.startswith("Interrupted; everything is saved. Go on with: ")
    command = shlex.split(told.partition("Go on with: ")[2])[1:]
    assert not (run / "confirmed.csv").exists()
    after_first = ended_trials(run)
    assert stopped(command, folder, run, signal.SIGKILL).code == -signal.SIGKILL
    after_second = ended_trials(run)
    last = vqtune(*command, cwd=folder)
    assert last.code == 0, last.err
    after = ended_trials(run)
    assert len(after_first) < len(after_second) < len(after) == 16
    for earlier in (after_first, after_second):
        assert {trial: after[trial] for trial in earlier} == earlier
    for trial, reports in ended_trials(done.run / "confirm").items():
        assert after[trial][-1]["recon_loss"] == reports[-1]["recon_loss"]


@pytest.mark.long
def test_a_finalist_that_diverges_counts_and_is_named(
    cluster: str, mixed: Mixed, tmp_path: Path
) -> None:
    folder = copied(mixed.run, tmp_path)
    (folder / "models.py").write_text((mixed.run.parents[1] / "models.py").read_text())
    params = folder / "runs" / "demo" / "trials" / "t0001" / "params.json"
    values = json.loads(params.read_text())
    values["trial"]["model"]["arguments"]["ending"] = "diverges"
    params.write_text(json.dumps(values))
    for trial in ("t0002", "t0003", "t0004", "t0005"):
        shutil.rmtree(folder / "runs" / "demo" / "trials" / trial)
    ended = confirm(folder, cluster, "--seeds", 1)
    assert ended.code == 0, ended.err
    out = ended.out.splitlines()
    [row] = [line.split() for line in out if line.startswith(" t0001")]
    assert row[1:4] == ["0", "of", "1"]
    [told] = [line for line in out if line.startswith("Not counted: ")]
    assert told.startswith("Not counted: t0001-s4, diverged: ")
    assert any(line.startswith("No finalist is confirmed") for line in out)


@pytest.mark.long
def test_a_run_at_a_uri_is_confirmed_there(
    cluster: str, finished: Searched, tmp_path: Path
) -> None:
    """From one machine, and then on from another."""
    far, here, there = (tmp_path / name for name in ("far", "here", "there"))
    shutil.copytree(finished.run, far / "demo", ignore=shutil.ignore_patterns(".lock"))
    uri = f"file://{far}/demo"
    machines = (here, there)
    for machine in machines:
        machine.mkdir()

    def confirmed_on(machine: Path, *flags: object) -> Finished:
        ended = vqtune("confirm", uri, "--top", 1, "--address", cluster, *flags, cwd=machine)
        assert ended.code == 0, ended.err
        assert digest(machine / "runs" / "demo") == digest(far / "demo")
        assert f"Stored: {uri}/confirm" in ended.out.splitlines()
        return ended

    confirmed_on(here, "--seeds", 1)
    first = digest(far / "demo" / "confirm" / "trials")
    assert {name.partition("/")[2] for name in first} >= {"result.json", "checkpoint.safetensors"}
    again = confirmed_on(there, "--seeds", 1)
    assert "demo/confirm is finished: nothing is left to do" in again.out.splitlines()
    confirmed_on(there, "--seeds", 2)
    after = digest(far / "demo" / "confirm" / "trials")
    assert {name: after[name] for name in first} == first
    assert set(read_run(far / "demo" / "confirm").trials["state"]) == {"complete"}
    assert len(ended_trials(far / "demo" / "confirm")) == 4
    kept = {k: v for k, v in digest(far / "demo").items() if not k.startswith("confirm/")}
    assert kept == digest(finished.run)
    confirmed_on(here, "--seeds", 2)


# --- what is refused -----------------------------------------------------------------------------


@pytest.fixture
def folder(finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder, with a search that is not confirmed."""
    monkeypatch.chdir(tmp_path)
    return copied(finished.run, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no run 'nothing': looked for nothing/spec.yaml or runs/nothing/spec.yaml"),
        (["demo", "--top", "0"], "Invalid value for '--top': 0 is not in the range"),
        (["demo", "--seeds", "0"], "Invalid value for '--seeds': 0 is not in the range"),
        (["demo", "--address", "127.0.0.1:1"], "--address: no Ray cluster answers"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], message: str, folder: Path) -> None:
    assert refused("confirm", *arguments).startswith(message)
    assert not (folder / "runs" / "demo" / "confirm").exists()


def test_a_search_that_is_at_work_is_not_confirmed(folder: Path) -> None:
    run = RunFolder(folder / "runs" / "demo")
    with run.locked():
        line = refused("confirm", "demo")
    assert line == "runs/demo: a search is at work in this run"


def test_a_search_that_is_at_work_elsewhere_is_not_confirmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{folder}/runs/demo"
    monkeypatch.setattr(lease, "SETTLED", 0.0)
    with leased(RunFolder(folder, uri)):
        monkeypatch.chdir(folder / "runs" / "demo")
        line = refused("confirm", uri)
    assert line.startswith(f"{uri}: a search is at work in this run, on ")


def test_two_confirmations_do_not_meet(folder: Path) -> None:
    run = RunFolder(folder / "runs" / "demo" / "confirm")
    run.trials.mkdir(parents=True)
    with run.locked():
        line = refused("confirm", "demo")
    assert line == f"{run.path}: another confirmation is at work in this run"


def test_a_run_without_a_complete_trial_is_not_confirmed(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "demo" / "trials")
    assert refused("confirm", "demo") == (
        "runs/demo: no trial has reached its full budget, so there is nothing to confirm"
    )


def test_a_confirmation_is_not_confirmed(done: Confirmed, folder: Path) -> None:
    shutil.copytree(done.run / "confirm", folder / "runs" / "demo" / "confirm")
    assert refused("confirm", "demo/confirm") == (
        "runs/demo/confirm: is a confirmation, allowed: the run of a search"
    )


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    (folder / "runs" / "demo" / "confirm" / "mine").mkdir(parents=True)
    line = refused("confirm", "demo")
    assert line == "runs/demo/confirm: is no confirmation; allowed: move it away"


def test_a_finalist_that_is_gone_is_named(done: Confirmed, folder: Path) -> None:
    shutil.copytree(done.run / "confirm", folder / "runs" / "demo" / "confirm")
    [first] = finalists(done.run, 1)
    shutil.rmtree(folder / "runs" / "demo" / "trials" / first)
    line = refused("confirm", "demo")
    assert line.startswith(f"runs/demo: {first} was confirmed, but is no trial of the search any ")
