"""The journal: opened without a write, refused where it is none, read by others meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from trainables.errors import InputError
from vqtune.journal import find_study, make_study, open_journal

BOTH = {"perplexity": "max", "recon_loss": "min"}
ENTRY = '{"op_code":0,"worker_id":"x","study_name":"vqtune","directions":[2,1]}\n'


def test_a_journal_is_only_read_until_something_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    make_study(open_journal(path), BOTH).ask()
    torn = path.read_bytes() + b'{"op_code":6,"wor'
    path.write_bytes(torn)
    study = find_study(open_journal(path), BOTH, path)
    assert study is not None
    assert len(study.trials) == 1
    assert path.read_bytes() == torn
    study.ask()
    lines = path.read_bytes().splitlines()
    assert lines[: torn.count(b"\n")] == torn.splitlines()[:-1]
    assert all(json.loads(line) for line in lines)


def test_a_first_line_that_was_cut_short_is_no_foreign_file(tmp_path: Path) -> None:
    for length in range(len(ENTRY)):
        (tmp_path / "journal").write_text(ENTRY[:length])
        assert make_study(open_journal(tmp_path / "journal"), BOTH).trials == []


FOREIGN = {
    "text": (b"hello", "found 'hello'"),
    "a line of text": (b"hello\n", "found 'hello' in line 1"),
    "a table": (b"a,b\n1,2\n", "found 'a,b' in line 1"),
    "weights": (b"PK\x03\x04\x00\xff\xfe", "found 'PK"),
    "another JSON": (b'{"a": 1}\n', "found '{\"a\": 1}' in line 1"),
    "a list": (b"[]\n", "found '[]' in line 1"),
    "deep": (b"[" * 100_000 + b"\n", "found '[[["),
    "numbers": (b"1\n2\n", "found '1' in line 1"),
    "garbage in the middle": (ENTRY.encode() + b"\0\0\0\n" + ENTRY.encode(), "in line 2"),
    "garbage at the end": (ENTRY.encode() + b"garbage\n", "found 'garbage' in line 2"),
    "an entry that says nothing": (
        b'{"op_code":0,"worker_id":"x"}\n',
        "found an entry that Optuna cannot read (KeyError: ",
    ),
    "an entry of no kind": (
        b'{"op_code":99,"worker_id":"x"}\n',
        "found an entry that Optuna cannot read",
    ),
}


@pytest.mark.parametrize(("held", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_and_left_alone(
    held: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(held)
    with pytest.raises(InputError) as caught:
        open_journal(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: found ")
    assert message in line
    assert line.endswith("allowed: an Optuna journal as a search writes it")
    assert "\n" not in line
    assert len(line) < 300 + len(str(path))
    assert path.read_bytes() == held
    assert [one.name for one in tmp_path.iterdir()] == ["journal"]


def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened: Is a directory"):
        open_journal(tmp_path)


@pytest.mark.parametrize(
    ("name", "directions", "message"),
    [
        ("mine", ["maximize", "minimize"], "found the study 'mine'; allowed: 'vqtune'"),
        ("vqtune", ["minimize"], "found a study that is to minimize; allowed: one for the"),
        ("vqtune", ["minimize", "maximize"], "found a study that is to minimize, maximize; "),
    ],
)
def test_another_study_is_refused(
    name: str, directions: list[str], message: str, tmp_path: Path
) -> None:
    storage = open_journal(tmp_path / "journal")
    optuna.create_study(storage=storage, study_name=name, directions=directions)
    with pytest.raises(InputError) as caught:
        find_study(storage, BOTH, tmp_path / "journal")
    assert message in str(caught.value)


def test_an_empty_journal_has_no_study(tmp_path: Path) -> None:
    assert find_study(open_journal(tmp_path / "journal"), BOTH, tmp_path / "journal") is None


DASHBOARD = """
import sys, optuna
from optuna.storages.journal import JournalFileBackend
storage = optuna.storages.JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.load_study(study_name=None, storage=storage)  # the only one
print([trial.state.name for trial in study.trials], [trial.params for trial in study.trials])
"""


def test_another_process_reads_the_journal_of_a_search_at_work(tmp_path: Path) -> None:
    """As optuna-dashboard does; it knows nothing of vqtune."""
    path = tmp_path / "journal"
    study = make_study(open_journal(path), BOTH)
    done, _running = study.ask(), study.ask()
    done.suggest_float("x", 0.0, 1.0)
    study.tell(done, [1.0, 2.0])
    study.enqueue_trial({"x": 0.5})
    before = path.read_bytes()
    ended = subprocess.run(
        [sys.executable, "-c", DASHBOARD, str(path)], capture_output=True, text=True, check=True
    )
    params = [trial.params for trial in study.trials]
    assert ended.stdout.strip() == f"['COMPLETE', 'RUNNING', 'WAITING'] {params}"
    assert path.read_bytes() == before
    study.ask()  # and the search goes on
