"""`vqtune report`, and the report at the end of a search: it is written, or it is said why not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from analysis.errors import RunError
from analysis.records import read_run
from tests.analysis.run_folder import RunFolder
from tests.vqtune.conftest import TINY, Mixed, Searched, vqtune
from vqtune.cli import main
from vqtune.commands.reporting import end_with_report
from vqtune.export import export
from vqtune.report import Report, report
from vqtune.wandb_link import FILE, read_urls, write_urls


def made(run: Path) -> Report:
    return report(read_run(run), "vqtune", str(run))


def invoked(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture
def copied(finished: Searched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.run, tmp_path / "runs" / "demo"))


# --- the command --------------------------------------------------------------------------------


def test_the_command_says_what_was_found_and_where_it_is(copied: Path, tmp_path: Path) -> None:
    ended = vqtune("report", "demo", cwd=tmp_path, WANDB_MODE="offline")
    assert (ended.code, ended.err) == (0, "")
    headline, where = ended.out.splitlines()
    assert "baseline" in headline or "plain VQ-VAE" in headline
    assert where == "Report: runs/demo/report.html   Pictures: runs/demo/report"
    page = (copied / "report.html").read_text()
    assert headline.split(":")[0] in page
    assert (copied / "report" / "front.png").read_bytes().startswith(b"\x89PNG")
    # With what is inside the codebooks: their pictures and sounds.
    assert "data:image/png;base64," in page
    assert "data:audio/wav;base64," in page
    assert (copied / "report.html").stat().st_size < 5_000_000


@pytest.mark.long
def test_a_search_ends_with_its_report(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ["search", "tiny.yaml", "--name", "x", "--trials", "2", "--address", cluster]
    ended = vqtune(
        *arguments, "--wandb", "vq", cwd=tmp_path, WANDB_DATA_DIR=str(tmp_path / "wandb")
    )
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert "Report: runs/x/report.html" in lines
    assert (tmp_path / "runs" / "x" / "report.html").exists()
    [summary] = [line for line in lines if line.startswith("W&B summary")]
    assert Path(tmp_path, summary.split()[-1]).is_dir()


def test_a_search_does_not_fail_with_its_report(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "report").write_text("in the way")
    end_with_report(read_run(copied), wandb="vq")
    [note] = capsys.readouterr().out.splitlines()
    assert note.startswith("Note: the report could not be written: ")
    assert str(copied) in note


def test_a_report_stands_until_there_is_more_to_tell(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = made(copied).page.stat().st_mtime_ns
    end_with_report(read_run(copied), wandb=None)
    assert (copied / "report.html").stat().st_mtime_ns == written
    (copied / "trials" / "t0001" / "result.json").touch()
    end_with_report(read_run(copied), wandb=None)
    assert (copied / "report.html").stat().st_mtime_ns > written
    said = capsys.readouterr().out.splitlines()
    assert said == [f"Report: {copied}/report.html"] * 2


def test_the_page_names_commands_that_work(copied: Path, tmp_path: Path) -> None:
    """The config that it tells to retrain is the first that `export` writes."""
    page = made(copied).page.read_text()
    first = export(read_run(copied), 3, tmp_path / "exported" / "demo")[0]
    assert f"train {first.config.relative_to(tmp_path)}" in page
    for command in ("export", "confirm", "front"):
        assert f"vqtune {command} {copied}" in page


def test_a_report_by_the_users_own_terms_hands_them_on(copied: Path) -> None:
    flags = ["--constraint", "none", "--weight", "recon_loss=1", "--weight", "perplexity=0"]
    ended = invoked("report", copied, *flags)
    assert ended.exit_code == 0, ended.output
    trials = read_run(copied).trials
    assert ended.output.startswith(trials.loc[trials["recon_loss"].idxmin(), "trial_id"])
    page = (copied / "report.html").read_text()
    for command in ("export", "confirm", "front"):
        [line] = re.findall(rf" {command} {copied}[^<]*", page)
        assert line.strip().endswith(" ".join(flags))
    refused = invoked("report", copied, "--objective", "depth:max")
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: metric: found 'depth', allowed in this run: active")


def test_a_second_report_replaces_the_first(copied: Path) -> None:
    first = made(copied)
    shutil.rmtree(copied / "trials" / first.findings.cast.get("baseline").trial_id)  # type: ignore[union-attr]
    again = made(copied)
    assert again.page == first.page
    assert again.headline != first.headline
    assert not list(copied.rglob("*.part"))


# --- runs that have little to show --------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "demo").spec()


def nothing(folder: RunFolder) -> None:
    """A search that has just begun."""


def only_the_baseline(folder: RunFolder) -> None:
    folder.complete("baseline", 40, 0.5, role="baseline")


def one_trial_without_a_baseline(folder: RunFolder) -> None:
    folder.complete("t0001", 90, 0.4)


def all_diverged(folder: RunFolder) -> None:
    for trial_id, role in (("baseline", "baseline"), ("t0001", "search")):
        fields = {"samples": 500, "diverged": True, "done": True, "recon_loss": float("nan")}
        folder.trial(trial_id, fields, role=role)


def all_failed(folder: RunFolder) -> None:
    (folder.trial("t0001") / "error.txt").write_text("ValueError: there is no such model\n")


def a_metric_of_all_nan(folder: RunFolder) -> None:
    for trial_id, role in (("baseline", "baseline"), ("t0001", "search"), ("t0002", "search")):
        fields = {"samples": 1000, "done": True, "perplexity": float("nan")}
        folder.trial(trial_id, fields, role=role)


def a_truncated_record(folder: RunFolder) -> None:
    folder.complete("baseline", 40, 0.5, role="baseline")
    path = folder.complete("t0001", 90, 0.4) / "result.json"
    path.write_text(path.read_text()[:-30])


def params_that_are_none(folder: RunFolder) -> None:
    folder.complete("baseline", 40, 0.5, role="baseline")
    (folder.complete("t0001", 90, 0.4) / "params.json").write_text("{")


@pytest.mark.parametrize(
    "fill",
    [
        nothing,
        only_the_baseline,
        one_trial_without_a_baseline,
        all_diverged,
        all_failed,
        a_metric_of_all_nan,
        a_truncated_record,
        params_that_are_none,
    ],
)
def test_any_run_has_a_report(fill: Any, folder: RunFolder) -> None:
    fill(folder)
    found = made(folder.path)
    assert found.page.stat().st_size > 1000
    assert len(found.headline.splitlines()) == 1
    assert found.headline in found.page.read_text().replace("&#39;", "'")


def test_what_cannot_be_looked_into_is_told(folder: RunFolder) -> None:
    """Records alone, as after the checkpoints were deleted."""
    folder.complete("baseline", 40, 0.5, role="baseline")
    folder.complete("t0001", 90, 0.4)
    page = made(folder.path).page.read_text()
    assert "No codebook of this run can be looked into here." in page
    assert "not a checkpoint" in page


def test_a_user_s_own_model_that_is_elsewhere(mixed: Mixed, tmp_path: Path) -> None:
    run = Path(shutil.copytree(mixed.run, tmp_path / "mixed"))
    assert "models" in made(run).page.read_text()


@pytest.mark.parametrize(
    ("kind", "said"), [("ablation", "is an ablation"), ("confirm", "is a confirmation")]
)
def test_it_is_for_searches(kind: str, said: str, folder: RunFolder) -> None:
    folder.spec(**{kind: {"seeds": [0]}})
    with pytest.raises(RunError, match=said):
        made(folder.path)
    ended = invoked("report", folder.path)
    assert ended.exit_code == 2
    assert ended.output.startswith(f"Error: {folder.path}: {said}")
    assert len(ended.output.splitlines()) == 1


def test_a_run_that_is_not_there() -> None:
    ended = invoked("report", "nothing")
    assert ended.exit_code == 2
    assert "no run 'nothing'" in ended.output


def test_a_folder_that_cannot_be_written(folder: RunFolder) -> None:
    (folder.path / "report").write_text("in the way")
    ended = invoked("report", folder.path)
    assert ended.exit_code == 2
    assert "cannot be written" in ended.output
    assert len(ended.output.splitlines()) == 1


# --- links to W&B -------------------------------------------------------------------------------


def test_points_lead_to_the_trials_at_wandb(copied: Path) -> None:
    write_urls(copied, {"t0001": "https://wandb.ai/me/vq/runs/demo-t0001"})
    assert 'href="https://wandb.ai/me/vq/runs/demo-t0001"' in made(copied).page.read_text()


@pytest.mark.parametrize(
    "kept",
    ["", "[]", "{}", '{"urls": 3}', '{"urls": {"t1": 4, "t2": "javascript:alert(1)"}}', "\x00"],
)
def test_damaged_addresses_are_none(kept: str, tmp_path: Path) -> None:
    assert read_urls(tmp_path) == {}
    (tmp_path / FILE).write_text(kept)
    assert read_urls(tmp_path) == {}


def test_addresses_come_back(tmp_path: Path) -> None:
    urls = {"baseline": "https://wandb.ai/1", "t0001": "http://own.server/2"}
    write_urls(tmp_path, urls)
    assert read_urls(tmp_path) == urls
    assert json.loads((tmp_path / FILE).read_text()) == {"urls": urls}
