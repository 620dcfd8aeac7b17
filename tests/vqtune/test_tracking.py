"""What W&B gets of a search: one run a trial with everything in it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.vqtune.conftest import ENDINGS, Mixed
from tests.vqtune.wandb_files import WandbRun, read_runs

REASONS = {
    "t0002": "stopped at the rung of 224 samples",
    "t0003": "InputError: model.factory models:build: raised ValueError:…",
    "t0004": "diverged: the loss is not finite after 160 samples",
}


@pytest.fixture(scope="module")
def runs(mixed: Mixed) -> dict[str, WandbRun]:
    """The W&B runs of the mixed search, by trial."""
    return {run.run[0].display_name: run for run in read_runs(mixed.run)}


def reports(mixed: Mixed, trial_id: str) -> list[dict[str, float]]:
    return mixed.reports(trial_id) if ENDINGS[trial_id] != "failed" else []


def test_every_trial_has_one_run(mixed: Mixed) -> None:
    """Also the one that could not be built, and the one whose process died and began again."""
    assert sorted(run.run[0].display_name for run in read_runs(mixed.run)) == sorted(ENDINGS)


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_a_run_knows_its_search_config_and_state(
    trial_id: str, runs: dict[str, WandbRun], mixed: Mixed
) -> None:
    run, state = runs[trial_id], ENDINGS[trial_id]
    assert run.run[0].project == "vq"
    assert run.run[0].run_group == "mixed"
    assert trial_id in run.run[0].run_id
    config = {key: value for key, value in run.config.items() if key != "_wandb"}
    assert config == mixed.records.configs[trial_id]
    assert run.summary["state"] == state
    assert run.exit_code == (1 if state == "failed" else 0)


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_state_and_reason_are_tags(trial_id: str, runs: dict[str, WandbRun], mixed: Mixed) -> None:
    run, reason = runs[trial_id], REASONS.get(trial_id)
    role = "baseline" if trial_id == "baseline" else "search"
    assert run.tags == {role, ENDINGS[trial_id]} | ({reason} if reason else set())
    trials = mixed.records.trials.set_index("trial_id")
    assert run.summary["reason"] == trials.loc[trial_id, "reason"]


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_a_run_has_every_report(trial_id: str, runs: dict[str, WandbRun], mixed: Mixed) -> None:
    written, logged = reports(mixed, trial_id), runs[trial_id].history
    assert [row["samples"] for row in logged] == [report["samples"] for report in written]
    assert [row["_step"] for row in logged] == [report["samples"] for report in written]
    for row, report in zip(logged, written, strict=True):
        for name in ("perplexity", "active_codes", "usage", "seconds", "training/recon_loss"):
            assert row[name] == pytest.approx(report[name], rel=0, abs=0, nan_ok=True)
        assert not row.keys() & {"trial_id", "reason", "timestamp", "config", "done"}
        assert not row.keys() & {"training_iteration", "pid", "snapshot"}
    for name in ("seconds", "cpu_seconds", "gpu_seconds"):
        assert (name in runs[trial_id].summary) == bool(written)


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_every_report_has_a_histogram_of_its_codes(
    trial_id: str, runs: dict[str, WandbRun], mixed: Mixed
) -> None:
    for row, report in zip(runs[trial_id].history, reports(mixed, trial_id), strict=True):
        values = row["code_use.values"]
        assert row["code_use._type"] == "histogram"
        assert row["code_use.bins"] == list(range(17))
        assert values == sorted(values, reverse=True)
        assert np.count_nonzero(values) == report["hit_codes"]
        p = np.array(values) / sum(values)
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        assert np.exp(entropy) == pytest.approx(report["perplexity_plugin"])


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_pictures_come_with_every_report_and_sound_at_the_end(
    trial_id: str, runs: dict[str, WandbRun], mixed: Mixed
) -> None:
    run = runs[trial_id]
    for row, report in zip(run.history, reports(mixed, trial_id), strict=True):
        assert ("reconstructions.path" in row) == (not report["diverged"])
        assert ("sound/example.path" in row) == bool(report["complete"])
        if not report["diverged"]:
            image = Image.open(run.folder / "files" / row["reconstructions.path"])
            # Three examples of 2 s or what there is, in two rows of 64 bands.
            assert image.size[1] == 2 * 64 + 4
        if report["complete"]:
            sounds = [
                soundfile.read(run.folder / "files" / row[f"sound/{name}.path"])
                for name in ("example", "reconstruction")
            ]
            assert [rate for _, rate in sounds] == [16_000, 16_000]
            assert len(sounds[0][0]) == len(sounds[1][0]) == 512 + 31 * 160
            assert np.abs(sounds[0][0]).max() > 0.001


def test_a_trial_s_records_hold_no_pictures(mixed: Mixed) -> None:
    for trial_id in ENDINGS:
        assert all("snapshot" not in report for report in mixed.reports(trial_id))


def test_runs_of_two_searches_of_one_name_do_not_meet(runs: dict[str, WandbRun]) -> None:
    """Ids differ by more than the name of the search."""
    assert all(run.run[0].run_id != f"mixed-{name}" for name, run in runs.items())
    assert len({run.run[0].run_id for run in runs.values()}) == len(runs)


def test_the_folder_is_one_that_wandb_knows(mixed: Mixed) -> None:
    names = {path.name for path in (mixed.run / "wandb").iterdir() if path.is_dir()}
    assert all(name.startswith(("offline-run-", "latest-run")) for name in names)
