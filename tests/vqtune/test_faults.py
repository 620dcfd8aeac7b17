"""Searches whose disk is full, whose storage is away, whose trials find too little GPU memory."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from analysis.records import read_run
from tests.vqtune.conftest import SMALL, VQTUNE, optuna_states, run_search, vqtune
from tests.vqtune.test_resume import all_reports, wait_for
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from trainables.yaml_file import read_mapping
from vqtune.journal import open_journal

SPACE = f"""
description: Trials that last long enough to meet a fault
extends: base
search: {{trials: 4, samples: 1440, sampler: random, early_stopping: none}}
{SMALL}
  training: {{reports: 30, batch_size: 4}}
"""
NUMBERS = ("samples", "perplexity", "recon_loss", "active_codes")


def check_complete(run: Path) -> None:
    """Every trial is there once, and is the trial that nothing has disturbed."""
    records = read_run(run)
    assert set(records.trials["state"]) == {"complete"}
    assert optuna_states(run) == ["COMPLETE"] * (len(records.trials) - 1)
    reports = all_reports(run)
    for name, found in reports.items():
        assert [report["samples"] for report in found] == [48 * i for i in range(1, 31)], name
    name = records.trials["trial_id"].iloc[1]
    trainer = Trainer(TrialConfig.from_dict(records.configs[name]))
    for report in reports[name]:
        again = trainer.advance()
        assert [report[n] for n in NUMBERS] == [again[n] for n in NUMBERS]


def check_whole(run: Path) -> None:
    """No file of the run is half-written."""
    for path in run.rglob("*"):
        if path.is_dir() or path.name == ".lock":
            continue
        assert not path.name.endswith(".part")
        if path.suffix == ".yaml":
            read_mapping(path)
        elif path.name == "result.json":
            lines = path.read_text().splitlines(keepends=True)
            assert all(line.endswith("\n") and json.loads(line)["trial_id"] for line in lines)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert file.metadata()["vqtune"]
    assert (run / "optuna.journal").read_bytes().endswith(b"\n")
    open_journal(run / "optuna.journal")


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until nothing more fits."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


@pytest.mark.long
def test_a_disk_that_is_full_ends_the_search_until_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    run = disk / "full"
    command = ["search", "space.yaml", "--storage", str(disk), "--name", "full", "--seed", "2"]
    process = subprocess.Popen(
        [*VQTUNE, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def at_work() -> bool:
        """One trial has ended, and another one is midway."""
        reports = all_reports(run).values()
        midway = any(len(r) > 3 and not r[-1]["done"] for r in reports)
        return process.poll() is not None or (any(r[-1]["done"] for r in reports) and midway)

    assert wait_for(at_work, 100)
    ballast = fill(disk)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1, (out, err)
    [line] = err.splitlines()
    assert line.startswith(f"Error: no space left on the disk at {run}")
    assert line.endswith("with the same command (a search with --resume)")
    check_whole(run)
    trials = read_run(run).trials
    assert set(trials["state"]) == {"complete", "running"}
    ended = {name: r for name, r in all_reports(run).items() if r[-1]["done"]}

    still = vqtune(*command, "--resume", cwd=tmp_path)
    assert (still.code, len(still.err.splitlines())) == (1, 1), still.err
    assert "no space left on the disk" in still.err
    check_whole(run)

    ballast.unlink()
    again = vqtune(*command, "--resume", cwd=tmp_path)
    assert again.code == 0, again.err
    check_whole(run)
    check_complete(run)
    assert {name: all_reports(run)[name] for name in ended} == ended


# --- a storage that is away -----------------------------------------------------------------------


@pytest.mark.long
def test_a_storage_that_is_away_is_waited_for(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    storage, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    moments: list[int] = []

    def away(seconds: float, reports: int) -> None:
        def reported() -> bool:
            return sum(map(len, all_reports(storage / "a").values())) >= reports

        if wait_for(reported, 100):
            storage.rename(elsewhere)
            threading.Event().wait(seconds)
            storage.rmdir() if storage.exists() else None
            elsewhere.rename(storage)
            moments.append(reports)

    thread = threading.Thread(
        target=lambda: [away(seconds, reports) for seconds, reports in ((4, 5), (1, 40))]
    )
    thread.start()
    searched = run_search(tmp_path / "space.yaml", cluster, storage=storage, name="a", seed=4)
    thread.join()
    assert moments == [5, 40]
    check_complete(searched.run)
    check_whole(searched.run)
    notes = [line for line in searched.printed.splitlines() if "cannot reach" in line]
    assert 1 <= len(notes) <= 2  # one for each time, unless it was over before anyone looked
    assert notes[0].startswith(f"Note: cannot reach {storage}")


@pytest.mark.long
def test_a_storage_that_stays_away_ends_the_search(tmp_path: Path) -> None:
    """In a process of its own, which has less patience."""
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "hasty.py").write_text(
        "import sys\nfrom trainables import patience\nfrom vqtune import cli\n"
        "patience.PATIENCE = 4.0\ncli.main(sys.argv[1:], prog_name='vqtune')\n"
    )
    command = shlex.split("search space.yaml --name a --seed 4")
    process = subprocess.Popen(
        [VQTUNE[0], "hasty.py", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = tmp_path / "runs" / "a"
    assert wait_for(lambda: any(len(r) > 3 for r in all_reports(run).values()), 100)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1, (out, err)
    assert out.count("Note: cannot reach") == 1
    [line] = err.splitlines()
    assert line.startswith(f"Error: the storage is away at {tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "runs")
    check_whole(run)
    again = vqtune(*command, "--resume", cwd=tmp_path)
    assert again.code == 0, again.err
    check_complete(run)


# --- too little memory on a GPU -------------------------------------------------------------------

MODEL = '''
"""A model for which a GPU has too little memory, at one moment or another."""

import torch
from pathlib import Path
from torch import nn

PLACE = Path("PLACE")


class Decoder(nn.Module):
    def __init__(self, dim, channels, moment):
        super().__init__()
        self.layer, self.moment, self.calls = nn.Conv1d(dim, channels, 1), moment, 0

    def forward(self, z):
        x = self.layer(z)
        self.calls += self.training
        if self.calls > 7 and self.moment == ("step" if self.training else "evaluation"):
            with (PLACE / self.moment).open("a") as file:
                file.write("x")
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of "
                "16.00 GiB of which 1.00 GiB is free. Process 7 has 15.00 GiB memory in use."
            )
        return x


def build(example_shape, dim, moment):
    if moment == "building":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0")
    return nn.Conv1d(example_shape[0], dim, 1), Decoder(dim, example_shape[0], moment)
'''
HUNGRY = """
description: Trials of which some need more memory than there is
extends: base
search: {trials: 9, samples: 320, sampler: grid, early_stopping: none}
parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model:
    kind: factory
    factory: hungry:build
    arguments: {moment: {values: [never, building, step, evaluation, again]}}
  codebook: {size: 16, dim: 4}
  training: {reports: 4}
"""


@pytest.mark.long
def test_too_little_gpu_memory_fails_the_trial_at_once_and_never_the_search(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.yaml").write_text(HUNGRY)
    (tmp_path / "hungry.py").write_text(MODEL.replace('"PLACE"', repr(str(tmp_path))))
    monkeypatch.chdir(tmp_path)
    searched = run_search(tmp_path / "space.yaml", cluster, name="hungry")
    assert searched.states() == {
        "baseline": "complete",
        "t0001": "complete",
        "t0002": "failed",
        "t0003": "failed",
        "t0004": "failed",
        "t0005": "complete",
    }
    reasons: dict[str, Any] = searched.records.trials.set_index("trial_id")["reason"].to_dict()
    assert "CUDA out of memory. Tried to allocate 20.00 GiB" in reasons["t0002"]
    for name, moment in (("t0003", "step"), ("t0004", "evaluation")):
        assert reasons[name].endswith(
            "out of memory at batch_size 16, K=16, d=4 (CUDA out of memory); allowed: a "
            "smaller batch, codebook or model, or more of a GPU by --gpus-per-trial"
        )
        assert (tmp_path / moment).read_text() == "x"  # it was not trained again
    assert "it goes on" not in searched.printed
