"""A run's folder: its name, what is written whole or not at all, its journal, its lock."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.errors import InputError
from vqtune.journal import open_journal
from vqtune.run_folder import RunFolder, existing_run, new_run, read_spec, write_text, write_yaml


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "quickstart-20260102-030405", "9" * 100])
def test_a_new_run_is_an_empty_folder(name: str, tmp_path: Path) -> None:
    run = new_run(tmp_path / "deep" / "runs", name)
    assert run.path == tmp_path / "deep" / "runs" / name
    assert list(run.path.iterdir()) == [run.trials]
    assert list(run.trials.iterdir()) == []


@given(st.text(max_size=8))
def test_a_name_never_leads_out_of_the_storage(name: str) -> None:
    try:
        existing_run(Path("/nowhere/runs"), name)
    except InputError as error:
        assert "\n" not in str(error)
        if str(error).startswith("--resume: "):
            path = Path("/nowhere/runs") / name
            assert path.parent == Path("/nowhere/runs")
            assert path.name == name
            assert not name.startswith(".")


@pytest.mark.parametrize("left", ["spec.yaml", "trials/baseline/params.json", "notes.txt"])
def test_a_folder_with_something_in_it_is_taken(left: str, tmp_path: Path) -> None:
    (tmp_path / "x" / "trials").mkdir(parents=True)
    (tmp_path / "x" / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x" / left).write_text("")
    with pytest.raises(InputError, match=r"^--name: the run 'x' exists in .*another name, or"):
        new_run(tmp_path, "x")
    assert (tmp_path / "x" / left).exists()


def test_a_file_of_the_runs_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match=r"^--name: the run 'x' exists"):
        new_run(tmp_path, "x")
    assert (tmp_path / "x").read_text() == "mine"


def test_one_search_at_a_time(tmp_path: Path) -> None:
    run = new_run(tmp_path, "x")
    with (
        run.locked(),
        pytest.raises(InputError, match="another search is at work in this run"),
        RunFolder(run.path).locked(),
    ):
        pytest.fail("two searches")
    with RunFolder(run.path).locked():
        pass


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "first β\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second \ud800\n")
    assert path.read_text(encoding="utf-8") == "first β\n"


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = new_run(tmp_path, "x")
    values = {"b": [1, 1e-5, "on", None], "a": {"β": True, "date": "2026-01-02"}}
    write_yaml(run.spec, values)
    assert read_spec(run) == values
    assert list(read_spec(run)) == ["b", "a"]


@pytest.mark.parametrize("torn", ["", "{", '{"op_code": 5, "worker_id": "x"'])
def test_a_journal_whose_last_line_is_torn_is_gone_on_with(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    study = optuna.create_study(study_name="s", storage=open_journal(path))
    study.tell(study.ask(), 1.0)
    whole = path.read_text()
    path.write_text(whole + torn)
    study = optuna.load_study(study_name="s", storage=open_journal(path))
    study.tell(study.ask(), 2.0)
    assert path.read_text().startswith(whole)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    again = optuna.load_study(study_name="s", storage=open_journal(path))
    assert [trial.value for trial in again.trials] == [1.0, 2.0]
