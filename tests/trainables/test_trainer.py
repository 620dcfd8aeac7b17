"""A trial gives the same numbers again, also when it was stopped or killed on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import trainables
from analysis.reported import REPORTED
from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.errors import InputError
from trainables.trainer import CHECKPOINT, Trainer, weights_of

CPU = torch.device("cpu")
TIMES = ("seconds", "cpu_seconds", "gpu_seconds", "steps_per_second")


def trainer(config: TrialConfig, dataset: Dataset | None = None) -> Trainer:
    return Trainer(config, dataset or make_dataset(), CPU)


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """A report without the times it took."""
    return {name: value for name, value in report.items() if name not in TIMES}


def run(config: TrialConfig) -> list[dict[str, Any]]:
    trial, reports = trainer(config), []
    while not trial.done:
        reports.append(numbers(trial.advance()))
    return reports


# --- reports -------------------------------------------------------------------------------------


def test_a_report_says_how_far_how_good_and_how_it_went() -> None:
    trial = trainer(make_config(MIXES["all"]))
    report = trial.advance()
    assert report["samples"] == 40
    assert report["recon_loss"] > 0
    assert report["perplexity"] >= 1
    assert {"training/recon_loss", "training/commitment", "training/entropy"} <= report.keys()
    assert (report["complete"], report["diverged"], report["reason"]) == (False, False, "")
    assert 0 < report["seconds"] == trial.seconds
    assert 0 < report["cpu_seconds"] == trial.cpu_seconds
    assert report["gpu_seconds"] == 0
    assert report["steps_per_second"] > 0
    last = trial.advance()
    assert last["cpu_seconds"] > report["cpu_seconds"]
    assert (last["samples"], last["complete"], trial.done) == (80, True, True)


def test_a_trial_has_its_share_of_a_gpus_time() -> None:
    """Told, since there need not be one: the seconds are the same wherever they pass."""
    trial = Trainer(make_config(), make_dataset(), CPU, gpus=0.25)
    for _ in range(2):
        report = trial.advance()
        assert report["gpu_seconds"] == pytest.approx(0.25 * report["seconds"])


def test_every_report_has_what_a_search_can_go_by() -> None:
    assert set(REPORTED) <= trainer(make_config()).advance().keys()


def test_training_losses_are_the_mean_over_the_steps_since_the_last_report() -> None:
    whole, steps = trainer(make_config()), trainer(make_config())
    report = whole.advance()
    losses = []
    for _ in range(10):
        steps.stack.advance(1)
        losses.append(steps.stack.totals["recon_loss"].item())
    assert report["training/recon_loss"] == pytest.approx(np.mean(losses), rel=1e-6)


@settings(deadline=None, max_examples=12)
@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 12),
    reports=st.integers(1, 12),
)
def test_reports_come_with_the_first_step_that_reaches_their_share(
    samples: int, batch: int, reports: int
) -> None:
    config = make_config(samples=samples, batch_size=batch, reports=reports)
    seen = [report["samples"] for report in run(config)]
    steps = math.ceil(samples / batch)
    assert seen[-1] == steps * batch  # the budget, and less than a step more
    if reports <= steps:
        goals = [samples * (i + 1) / reports for i in range(reports)]
        assert seen == [math.ceil(goal / batch - 1e-9) * batch for goal in goals]
    else:  # one after every step
        assert seen == [batch * (i + 1) for i in range(steps)]


@pytest.mark.parametrize(
    ("samples", "batch", "reports", "expected"),
    [
        (100, 7, 3, [35, 70, 105]),
        (80, 4, 2, [40, 80]),
        (10, 4, 8, [4, 8, 12]),
        (1, 16, 5, [16]),
        (30, 10, 2, [20, 30]),
    ],
)
def test_reports_worked_out_by_hand(
    samples: int, batch: int, reports: int, expected: list[int]
) -> None:
    config = make_config(samples=samples, batch_size=batch, reports=reports)
    seen = run(config)
    assert [report["samples"] for report in seen] == expected
    assert [report["complete"] for report in seen] == [False] * (len(seen) - 1) + [True]


def test_progress_is_told_on_the_way() -> None:
    told: list[int] = []
    config = make_config(samples=1200, batch_size=4, reports=2)
    trainer(config).advance(told.append)
    assert told[-1] == 600
    assert told == sorted(told)
    assert len(told) > 1


def test_warnings_of_data_and_evaluation_are_passed_on() -> None:
    values = make_config().to_dict()
    values["evaluation"]["latents"] = 10_000
    trial = trainer(TrialConfig.from_dict(values))
    [warning] = trial.warnings
    assert "120 latents, 10000 were asked for" in warning
    assert trainer(make_config()).warnings == []


# --- the same numbers again ----------------------------------------------------------------------


@pytest.mark.parametrize("mix", ["plain", "all", "all gradient"])
def test_the_same_config_and_seed_give_the_same_numbers(mix: str) -> None:
    config = make_config(MIXES[mix])
    torch.manual_seed(1)  # what happened before in the process does not matter
    first = run(config)
    torch.manual_seed(2)
    assert run(config) == first
    other = TrialConfig.from_dict(config.to_dict() | {"seed": 1})
    assert run(other)[-1]["recon_loss"] != first[-1]["recon_loss"]


def test_the_largest_seed_is_a_seed() -> None:
    config = make_config(MIXES["all"])
    largest = TrialConfig.from_dict(config.to_dict() | {"seed": 2**31 - 1})
    assert run(largest)[-1]["complete"]


@pytest.mark.parametrize("mix", MIXES)
def test_a_trial_resumed_at_any_report_ends_the_same(mix: str, tmp_path: Path) -> None:
    config = make_config(MIXES[mix], reports=4)
    through = trainer(config)
    while not through.done:
        through.advance()
        through.save(tmp_path)
        resumed = trainer(config)  # the one that was saved is forgotten
        resumed.load(tmp_path)
        assert resumed.done == through.done
        assert resumed.report == through.report
        assert resumed.seconds == through.seconds
        assert resumed.cpu_seconds == through.cpu_seconds
    reference = run(config)
    assert numbers(through.report) == reference[-1]
    # And one process after another, a report each.
    first = trainer(config)
    first.advance()
    first.save(tmp_path)
    for i in range(1, 4):
        following = trainer(config)
        following.load(tmp_path)
        assert numbers(following.advance()) == reference[i]
        following.save(tmp_path)


DROPOUT = """
import torch
from torch import nn

def build(example_shape, dim):
    encoder = nn.Sequential(nn.Conv1d(example_shape[0], dim, 3, padding=1), nn.Dropout(0.5))
    return encoder, nn.Conv1d(dim, example_shape[0], 3, padding=1)
"""


def test_noise_of_a_users_own_modules_is_the_same_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_with_dropout.py").write_text(DROPOUT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    model = {"kind": "factory", "factory": "made_with_dropout:build"}
    config = TrialConfig.from_dict(make_config().to_dict() | {"model": model})
    through, stopped, resumed = trainer(config), trainer(config), trainer(config)
    through.advance()
    stopped.advance()
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    torch.rand(100)
    assert numbers(resumed.advance()) == numbers(through.advance())


# --- killed --------------------------------------------------------------------------------------

DATA = """
import numpy as np

def arrays(files):
    rng = np.random.default_rng(0)
    return {f"{i}": rng.standard_normal((40, 6)).cumsum(0) for i in range(files)}
"""

# Trains, saving after every report, and ends itself with SIGKILL at a moment given by name.
DOOMED = """
import os, signal, sys
from pathlib import Path
import torch
from trainables.config import TrialConfig
from trainables.stack import Stack
from trainables.trainer import CHECKPOINT, Trainer

moment, count = sys.argv[1], int(sys.argv[2])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
trainer = Trainer(TrialConfig.from_yaml("trial.yaml"), device=torch.device("cpu"))
if Path(CHECKPOINT).exists():
    trainer.load(Path())
step = Stack.step

def counted(stack, x):
    step(stack, x)
    if moment == "step" and stack.steps[0] == count:
        die()

Stack.step = counted
while not trainer.done:
    trainer.advance()
    if moment == "write" and trainer.reports == count:
        os.fsync = die
    trainer.save(Path())
    print("report", trainer.reports, flush=True)
    if moment == "report" and trainer.reports == count:
        die()
"""


def test_a_trial_killed_again_and_again_ends_as_one_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"kind": "factory", "factory": "made_arrays:arrays", "arguments": {"files": 12}}
    data |= {"clip_frames": 8}
    values = make_config(MIXES["all"], reports=4, samples=160).to_dict() | {"data": data}
    config = TrialConfig.from_dict(values)
    (tmp_path / "trial.yaml").write_text(config.to_yaml())
    (tmp_path / "made_arrays.py").write_text(DATA)
    (tmp_path / "doomed.py").write_text(DOOMED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("VQTUNE_CACHE", str(tmp_path / "cache"))

    root = str(Path(trainables.__file__).parents[1])
    reported: list[list[str]] = []
    count = 0
    # Between two reports; at a report; while a checkpoint is on its way to the disk.
    for moment in (("step", "17"), ("report", "2"), ("write", "3")):
        done = subprocess.run(
            [sys.executable, "doomed.py", *moment],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        reported.append(done.stdout.splitlines())
        count += len(reported[-1])
        tensors, header = read_tensors(tmp_path / CHECKPOINT)  # whole at every moment
        assert header["reports"] == count
        assert tensors["samples"] == header["samples"]
    assert reported == [["report 1"], ["report 2"], []]
    assert list(tmp_path.glob("*.part")) != []

    last = Trainer(config, device=CPU)
    last.load(tmp_path)
    assert last.reports == 2
    while not last.done:
        last.advance()
        last.save(tmp_path)
    assert list(tmp_path.glob("*.part")) == []
    through = Trainer(config, device=CPU)
    while not through.done:
        through.advance()
    assert through.report["complete"]
    assert numbers(last.report) == numbers(through.report)
    mine, theirs = last.stack.lane_state(0), through.stack.lane_state(0)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoint of `make_config()` after its first report."""
    trial = trainer(make_config())
    trial.advance()
    trial.save(tmp_path)
    return tmp_path


def test_the_checkpoint_is_one_file_that_tells_what_it_is(saved: Path) -> None:
    assert [path.name for path in saved.iterdir()] == [CHECKPOINT]
    tensors, header = read_tensors(saved / CHECKPOINT)
    assert TrialConfig.from_dict(header["trial"]) == make_config()
    assert (header["samples"], header["reports"]) == (40, 1)
    assert header["report"]["samples"] == 40
    assert header["made"]["data_fingerprint"] == "tiny"
    assert header["made"]["versions"]["torch"] == torch.__version__
    weights = weights_of(tensors)
    stack = trainer(make_config()).stack
    assert weights.keys() == {*stack.weights, "codebook"}
    assert weights["codebook"].shape == (16, 4)


def loading(folder: Path, config: TrialConfig | None = None) -> str:
    """The one line with which loading is refused."""
    trial = trainer(config or make_config())
    before = trial.stack.lane_state(0)
    with pytest.raises(InputError) as caught:
        trial.load(folder)
    after = trial.stack.lane_state(0)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (trial.reports, trial.report) == (0, {})
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_checkpoint_cut_short_anywhere_is_refused(saved: Path) -> None:
    path = saved / CHECKPOINT
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, *range(200, len(whole), 997), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a checkpoint of vqtune"):
            read_tensors(path)
    assert loading(saved).startswith(f"{path}: not a checkpoint of vqtune: ")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"\xff" * 100, b"samples: 3\n" * 20], ids=repr
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert "not a checkpoint of vqtune" in loading(tmp_path)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_file({"x": torch.zeros(3)}, path)
    assert loading(tmp_path).startswith(f"{path}: not a checkpoint of vqtune")
    for metadata in ("no json", "3", "null", '"text"', "[1]"):
        save_file({"x": torch.zeros(3)}, path, metadata={"vqtune": metadata})
        assert loading(tmp_path).startswith(f"{path}: not a checkpoint of vqtune")
    write_tensors(path, {"x": torch.zeros(3)}, {"trial": make_config().to_dict(), "run": "x"})
    expected = "found weights, allowed: the checkpoint of a trial"
    assert loading(tmp_path) == f"{path}: {expected}"


def test_no_checkpoint_is_told_by_its_path(tmp_path: Path) -> None:
    assert loading(tmp_path).startswith(f"{tmp_path / CHECKPOINT}: not a checkpoint of vqtune")
    (tmp_path / CHECKPOINT).mkdir()
    assert loading(tmp_path).startswith(f"{tmp_path / CHECKPOINT}: not a checkpoint of vqtune")


@pytest.mark.parametrize("change", [{"seed": 1}, {"training": {"lr": 1e-4}}])
def test_a_checkpoint_of_another_config_is_refused(change: dict[str, Any], saved: Path) -> None:
    values = make_config().to_dict()
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    line = loading(saved, TrialConfig.from_dict(values))
    assert line == f"{saved / CHECKPOINT}: was written by another config"


def test_a_checkpoint_of_before_cpu_time_was_counted_is_gone_on_with(saved: Path) -> None:
    tensors, header = read_tensors(saved / CHECKPOINT)
    write_tensors(
        saved / CHECKPOINT, tensors, {k: v for k, v in header.items() if "pu_seconds" not in k}
    )
    resumed = trainer(TrialConfig.from_dict(header["trial"]))
    resumed.load(saved)
    assert (resumed.cpu_seconds, resumed.gpu_seconds) == (0.0, 0.0)
    assert resumed.seconds == header["seconds"]


def test_a_checkpoint_over_other_data_is_refused(saved: Path) -> None:
    other = dataclasses.replace(make_dataset(), fingerprint="other")
    with pytest.raises(InputError, match="was written with other data than there are now"):
        Trainer(make_config(), other).load(saved)


def test_tensors_of_another_shape_are_refused(saved: Path) -> None:
    path = saved / CHECKPOINT
    tensors, header = read_tensors(path)
    write_tensors(path, tensors | {"samples": torch.zeros(2)}, header)
    assert "tensor 'samples' has shape (2,), allowed: ()" in loading(saved)
    del tensors["samples"]
    write_tensors(path, tensors, header)
    assert "tensor 'samples' is on one side only" in loading(saved)


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_checkpoint_whole(
    moment: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved / CHECKPOINT
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    trial = trainer(make_config())
    trial.load(saved)
    trial.advance()
    with monkeypatch.context() as patch:
        match moment:
            case "write":
                patch.setattr("trainables.checkpoint.save", full)
            case "fsync":
                patch.setattr(os, "fsync", full)
            case "replace":
                patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            trial.save(saved)
    assert path.read_bytes() == before
    assert list(saved.iterdir()) == [path]  # and nothing that fills the disk
    trial.save(saved)
    assert read_tensors(path)[1]["samples"] == 80


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    header=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=4),
    kind=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
)
def test_tensors_and_header_come_back_as_they_were(
    sizes: list[list[int]],
    header: dict[str, Any],
    kind: torch.dtype,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    tensors = {f"t{i}": torch.randn(size).to(kind) for i, size in enumerate(sizes)}
    # Not laid out in order either, and with views of one another.
    tensors["turned"] = torch.arange(6).reshape(2, 3).t()
    tensors["part"] = tensors["turned"][1:]
    write_tensors(path, tensors, header)
    found, told = read_tensors(path)
    assert told == header
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


# --- divergence ----------------------------------------------------------------------------------


def test_a_step_far_too_large_ends_the_trial_as_diverged() -> None:
    config = make_config({"commitment": {"beta": 1000.0}}, lr=10.0, samples=8000, reports=100)
    values = config.to_dict()
    values["model"]["depth"] = 4
    trial = trainer(TrialConfig.from_dict(values))
    while not trial.done:
        report = trial.advance()
    assert report["samples"] < 8000
    assert (report["diverged"], report["complete"], trial.complete) == (True, False, False)
    samples = report["samples"]
    assert report["reason"] == f"diverged: the loss is not finite after {samples} samples"


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_poisoned_weights_end_the_trial_as_diverged_for_good(poison: float, saved: Path) -> None:
    trial = trainer(make_config())
    trial.load(saved)
    assert not trial.done
    with torch.no_grad():
        trial.stack.adam.parameters["encoder.in.bias"][0, 0] = poison
    report = trial.advance()
    assert (report["diverged"], report["complete"], trial.done) == (True, False, True)
    assert report["perplexity"] >= 1  # counts are counts, whatever was counted
    trial.save(saved)
    again = trainer(make_config())
    again.load(saved)
    assert (again.done, again.complete) == (True, False)
    assert again.stack.finite.tolist() == [False]
    assert json.dumps(again.report) == json.dumps(report)


def test_a_loss_that_was_not_finite_in_any_step_counts_as_diverged() -> None:
    trial = trainer(make_config())
    step = trial.stack.step

    def one_bad_batch(x: torch.Tensor) -> None:
        before, bad = trial.stack.lane_state(0), trial.stack.steps[0] == 3
        step(x * math.inf if bad else x)
        if bad:  # and all is well afterwards
            kept = before | {"finite": trial.stack.finite[0]}
            trial.stack.load_lane(0, kept, trial.stack.samples[0])

    trial.stack.step = one_bad_batch  # type: ignore[method-assign]
    report = trial.advance()
    assert math.isfinite(report["recon_loss"])
    assert (report["diverged"], report["complete"], trial.done) == (True, False, True)
