"""Tiny spaces, a Ray cluster that the tests share, and finished runs that they only read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from ray._raylet import Config
from rich.console import Console

from analysis.records import Records, read_run
from vqtune.journal import STUDY, open_journal
from vqtune.search import Outcome, Request, search

VQTUNE = [sys.executable, "-m", "vqtune.cli"]

# What most trials of the tests are: small, on embedded data, with one number to search.
SMALL = """parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model: {width: 8, depth: 1}
  codebook:
    size: 16
    dim: 4
    commitment:
      beta: {distribution: log_uniform_values, min: 0.05, max: 10.0}"""
# A trial takes about a tenth of a second.
TINY = f"""
description: Two techniques on a model for tests
extends: base
search: {{trials: 5, samples: 320, early_stopping: none}}
{SMALL}
    update:
      choices:
        gradient: {{kind: gradient, lr_ratio: {{min: 0.5, max: 2.0}}}}
        ema: {{kind: ema, decay: {{min: 0.9, max: 0.99}}}}
  training: {{reports: 4}}
"""

# One point of the grid for each way in which a trial can end; reports come every 5 steps. All but
# `idle` train alike, so eta lets three of four equal trials go on from the one rung.
MIXED = """
description: Every way in which a trial can end
extends: base
search: {trials: 99, samples: 320, sampler: grid, grace: 0.7, reduction_factor: 1.5}
parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model:
    kind: factory
    factory: models:build
    arguments: {ending: {values: [well, idle, raises, diverges, dies]}}
  codebook: {size: 16, dim: 4}
  training: {reports: 4}
"""
ENDINGS = {
    "baseline": "complete",
    "t0001": "complete",  # well: the same config as the baseline's
    "t0002": "stopped",
    "t0003": "failed",
    "t0004": "diverged",
    "t0005": "complete",  # dies once, and goes on from its checkpoint
}
MODELS = '''
"""A user's own encoder and decoder, with a switch for each way in which a trial can end."""

import os
import secrets
import signal
from pathlib import Path

import torch
from torch import nn

DIED = Path(__file__).with_name("died")


class Decoder(nn.Module):
    def __init__(self, dim, channels, ending):
        super().__init__()
        self.layer, self.ending, self.calls = nn.Conv1d(dim, channels, 1), ending, 0

    def forward(self, z):
        x = self.layer(z)
        if self.ending == "idle":
            return 0 * x + 3
        if not self.training:
            return x
        self.calls += 1
        if self.ending == "diverges" and self.calls > 7:
            return x * torch.inf
        if self.ending == "dies" and self.calls > 12 and not DIED.exists():
            DIED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


def build(example_shape, dim, ending):
    if ending == "raises":
        raise ValueError("there is no such model")
    return nn.Conv1d(example_shape[0], dim, 1), Decoder(dim, example_shape[0], ending)
'''


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the shared cluster; modules that start others mark themselves."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's: neither cache nor cluster nor login."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # By a shell that runs this in the background: what is started here would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        Config.initialize("")  # Ray reads its settings when it is imported, which is done
        for name in ("RAY_ADDRESS", "WANDB_API_KEY", "WANDB_BASE_URL", "COLUMNS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


CLUSTER = """
import logging, os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
context = ray.init(
    "local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def cluster(own_environment: None) -> Iterator[str]:
    """Address of a Ray cluster with one CPU, so of one trial at a time, in a process of its own."""
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@dataclass(frozen=True)
class Searched:
    """A search that has ended."""

    run: Path
    outcome: Outcome
    printed: str

    @property
    def records(self) -> Records:
        return read_run(self.run)

    def states(self) -> dict[str, str]:
        trials = self.records.trials
        return dict(zip(trials["trial_id"], trials["state"], strict=True))

    def reports(self, trial_id: str) -> list[dict[str, Any]]:
        return lines(self.run / "trials" / trial_id)


def lines(trial: Path) -> list[dict[str, Any]]:
    """The lines of a trial's result.json, but for one that is being written."""
    try:
        text = (trial / "result.json").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run_search(space: Path, address: str, **request: Any) -> Searched:
    """`vqtune search` without the command line."""
    console = Console(file=io.StringIO(), width=160)
    outcome = search(Request(space=str(space), address=address, **request), console)
    assert isinstance(console.file, io.StringIO)
    return Searched(outcome.run.path, outcome, console.file.getvalue())


def study_of(run: Path) -> optuna.Study:
    """The run's Optuna study."""
    return optuna.load_study(study_name=STUDY, storage=open_journal(run / "optuna.journal"))


def optuna_states(run: Path) -> list[str]:
    """States of the study's trials, t0001 first."""
    return [trial.state.name for trial in study_of(run).get_trials(deepcopy=False)]


def digest(folder: Path) -> dict[str, str]:
    """All files below a folder, but for locks: names and what they hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="session")
def finished(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Five complete trials of TINY, one after another."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    return run_search(
        folder / "tiny.yaml",
        cluster,
        storage=folder / "runs",
        name="demo",
        seed=5,
    )


@dataclass(frozen=True)
class Mixed(Searched):
    """The search of MIXED, with the scheduler that it used."""

    scheduler: Any


@pytest.fixture(scope="session")
def mixed(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """One trial after another, tracked by W&B, in the folder that holds the user's module."""
    from vqtune import scheduler

    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.yaml").write_text(MIXED)
    (folder / "models.py").write_text(MODELS)
    made = []

    def make(*arguments: Any) -> Any:
        made.append(scheduler_of(*arguments))
        return made[-1]

    scheduler_of = scheduler.make_scheduler
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(scheduler, "make_scheduler", make)
        searched = run_search(folder / "mixed.yaml", cluster, name="mixed", seed=3, wandb="vq")
    return Mixed(searched.run, searched.outcome, searched.printed, made[0])


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


def vqtune(*arguments: object, cwd: Path, **environment: str) -> Finished:
    """Run the command in a process of its own."""
    return _run([*VQTUNE, *map(str, arguments)], cwd, environment)


def python(program: str, cwd: Path, **environment: str) -> Finished:
    """Run a program in a process of its own."""
    return _run([sys.executable, "-c", program], cwd, environment)


def _run(command: list[str], cwd: Path, environment: dict[str, str]) -> Finished:
    # W&B's helper of this process is not to be that one's.
    inherited = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Finished(done.returncode, done.stdout, done.stderr)
