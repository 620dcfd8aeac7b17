"""The W&B run that sums up a search, as W&B itself wrote it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from analysis.ranking import ranking
from analysis.records import read_run
from tests.vqtune.conftest import Searched
from tests.vqtune.wandb_files import WandbRun, read_wandb
from trainables.config import TrialConfig
from trainables.trainer import CHECKPOINT
from vqtune import summary_run
from vqtune.report import Report, report
from vqtune.summary_run import log_summary


@pytest.fixture(scope="module", autouse=True)
def _own_data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """W&B stages artifacts in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("wandb")))
        yield


@pytest.fixture(scope="module")
def reported(finished: Searched, tmp_path_factory: pytest.TempPathFactory) -> Report:
    run = shutil.copytree(finished.run, tmp_path_factory.mktemp("summary") / "demo")
    return report(read_run(Path(run)), "vqtune", "demo")


@pytest.fixture(scope="module")
def folder(reported: Report) -> Path:
    told: list[str] = []
    where = log_summary(reported, "vq", told.append)
    assert told == []
    assert where is not None
    return Path(where)


def written(folder: Path) -> WandbRun:
    """What W&B wrote; its own process may still be at it when the run is finished here."""
    until = time.monotonic() + 30
    while True:
        try:
            return WandbRun(folder)
        except (AssertionError, IndexError, StopIteration):  # half a record, no run, no exit yet
            assert time.monotonic() < until
            time.sleep(0.05)


def artifacts(folder: Path) -> dict[str, Any]:
    written(folder)
    [path] = folder.glob("*.wandb")
    found = [r for r in read_wandb(path) if r.HasField("artifact")]
    return {r.artifact.name: r.artifact for r in found}


@pytest.fixture(scope="module")
def logged(folder: Path) -> WandbRun:
    return written(folder)


def test_it_stands_beside_the_trials(logged: WandbRun, folder: Path, reported: Report) -> None:
    run, spec = logged.run[0], reported.findings.records.spec
    assert (run.project, run.run_group, run.display_name) == ("vq", "demo", "summary")
    assert (run.job_type, run.run_id) == ("summary", f"demo-{spec['token']}-summary")
    assert logged.tags == {"summary"}
    assert logged.exit_code == 0
    assert folder.parent == reported.findings.records.run / "wandb"
    assert folder.name.startswith("offline-run-")  # as `wandb sync` takes it


def test_the_figures_are_those_of_the_ranking(logged: WandbRun, reported: Report) -> None:
    ranked = ranking(reported.findings.records)
    best = ranked[ranked["role"] != "baseline"].iloc[0]
    baseline = ranked[ranked["role"] == "baseline"].iloc[0]
    summary = logged.summary
    assert summary["headline"] == reported.headline
    assert summary["best/trial"] == best["trial_id"]
    for name in ("perplexity", "recon_loss", "active_codes", "usage", "bits_per_frame"):
        assert summary[f"best/{name}"] == best[name]
        assert summary[f"baseline/{name}"] == baseline[name]
    assert summary["best/recon_loss_x"] == best["recon_loss_x"]
    assert (summary["trials"], summary["trials/complete"]) == (5, 5)
    assert summary["front/trials"] == ranked["on_front"].sum()


def test_the_front_is_a_table_a_plot_and_a_picture(
    logged: WandbRun, folder: Path, reported: Report
) -> None:
    shown = {key: value for row in logged.history for key, value in row.items()}
    table = json.loads((folder / "files" / shown["front.path"]).read_text())
    front = reported.findings.ranked
    front = front[front["on_front"] | (front["role"] == "baseline")]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial_id"] for row in rows] == front["trial_id"].tolist()
    assert [row["perplexity"] for row in rows] == front["perplexity"].tolist()
    assert [row["on_front"] for row in rows] == front["on_front"].tolist()
    assert all(row["reason"] for row in rows)
    picture = folder / "files" / shown["front_picture.path"]
    assert picture.read_bytes() == (reported.page.parent / "report" / "front.png").read_bytes()
    plotted = json.loads((folder / "files" / shown["front_plot_table.path"]).read_text())
    assert plotted["data"] == table["data"]


def test_the_report_and_the_best_configs_are_artifacts(folder: Path, reported: Report) -> None:
    kept, ranked = artifacts(folder), reported.findings.ranked
    best = ranked[ranked["on_front"]]["trial_id"].tolist()[:3]
    made = {name: artifact for name, artifact in kept.items() if artifact.type != "run_table"}
    assert {name: artifact.type for name, artifact in made.items()} == {
        "demo-report": "report",
        **{f"demo-{trial}": "model" for trial in best},
    }
    for position, trial in enumerate(best, start=1):
        artifact = made[f"demo-{trial}"]
        assert f"top-{position}" in artifact.aliases
        assert sorted(entry.path for entry in artifact.manifest.contents) == [
            f"{position:02d}-{trial}.safetensors",
            f"{position:02d}-{trial}.yaml",
        ]
    [page] = made["demo-report"].manifest.contents
    assert page.path == "report.html"
    # What `wandb sync` will read, whenever that is.
    for artifact in made.values():
        for entry in artifact.manifest.contents:
            path = Path(entry.local_path)
            assert path.stat().st_size == entry.size
            assert reported.findings.records.run in path.parents
            if path.suffix == ".yaml":
                assert TrialConfig.from_yaml(path).provenance["run"] == "demo"


def test_a_second_summary_goes_on_with_the_first(
    folder: Path, logged: WandbRun, reported: Report
) -> None:
    again = log_summary(reported, "vq", pytest.fail)
    assert again is not None
    assert written(Path(again)).run[0].run_id == logged.run[0].run_id
    for artifact in artifacts(folder).values():  # the first can still be sent
        assert all(Path(e.local_path).exists() for e in artifact.manifest.contents)


# --- when it does not work ----------------------------------------------------------------------


def test_a_missing_checkpoint_leaves_out_the_configs(finished: Searched, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "demo"))
    for path in run.glob(f"trials/*/{CHECKPOINT}"):
        path.unlink()
    told: list[str] = []
    where = log_summary(report(read_run(run), "vqtune", "demo"), "vq", told.append)
    assert where is not None
    assert len(told) == 1
    assert told[0].startswith("the best configs are not in W&B's summary: ")
    assert "demo-report" in artifacts(Path(where))
    assert written(Path(where)).summary["trials"] == 5


def test_a_run_without_a_complete_trial(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    where = log_summary(report(read_run(tmp_path), "vqtune", "x"), "vq", pytest.fail)
    assert where is not None
    assert written(Path(where)).summary["trials"] == 0


def test_a_wandb_that_raises_is_told_in_a_line(
    reported: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def init(**arguments: Any) -> Any:
        raise OSError("there is\nno room")

    monkeypatch.setattr(wandb, "init", init)
    told: list[str] = []
    assert log_summary(reported, "vq", told.append) is None
    assert told == ["W&B: OSError: there is no room"]


def test_a_wandb_that_does_not_answer_is_not_waited_for(
    reported: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    go = threading.Event()

    def init(**arguments: Any) -> Any:
        go.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(summary_run, "_ALL", 0.1)
    told: list[str] = []
    assert log_summary(reported, "vq", told.append) is None
    go.set()
    assert told == ["W&B: no answer within 0.1 s; the summary is left out"]


def test_the_time_to_wait_is_limited(reported: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    given: dict[str, Any] = {}

    def init(**arguments: Any) -> Any:
        given.update(arguments)
        raise OSError

    monkeypatch.setattr(wandb, "init", init)
    log_summary(reported, "vq", lambda line: None)
    assert 0 < given["settings"].init_timeout < given["settings"].finish_timeout < 600
    assert given["resume"] == "allow"


@pytest.mark.parametrize("mode", ["disabled", "online"])
def test_it_follows_what_the_trials_did(
    mode: str, reported: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disabled is nothing at all; where nobody let the trials in, nobody is asked again."""
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(summary_run, "choose_mode", pytest.fail)
    where = log_summary(reported, "vq", pytest.fail, offline=True)
    if mode == "disabled":
        assert where is None
    else:
        assert where is not None
        assert Path(where).name.startswith("offline-run-")
