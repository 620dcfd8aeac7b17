"""Runs that are kept at a URI: no folder is shared, another machine goes on, nothing waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.records import read_run
from tests.vqtune.conftest import TINY, Searched, digest, run_search, vqtune
from tests.vqtune.nodes import started
from trainables.errors import InputError
from trainables.remote import Remote, below, is_uri
from trainables.trainer import CHECKPOINT
from vqtune import mirror
from vqtune.mirror import Mirror, fetch_records, fetch_run, files_of
from vqtune.run_folder import RunFolder
from vqtune.trial_count import More


@pytest.fixture(params=["file", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """pyarrow's own file system, and one of fsspec."""
    where = {"file": f"file://{tmp_path}/far", "memory": f"memory:/{tmp_path}/far"}
    return Remote(where[request.param])


def test_files_go_there_and_come_back(remote: Remote, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "here" / "target"
    assert remote.sizes() == {}
    assert not remote.download("a/b", target)
    for text in ("first", "another"):
        source.write_text(text)
        remote.upload(source, "a/b")
        remote.upload(source, "c")
        assert remote.sizes() == {"a/b": len(text), "c": len(text)}
        assert remote.download("a/b", target)
        assert target.read_text() == text
    remote.remove("a/b")
    remote.remove("a/b")
    assert remote.sizes() == {"c": 7}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "nowhere://bucket/runs",
            "^nowhere://bucket/runs: .*; allowed: a folder, or a URI that py",
        ),
        ("s3://me:secret@bucket", r"^s3://: found a URI with a key in it.*in the environment"),
    ],
)
def test_a_uri_that_nobody_can_write_to(uri: str, message: str) -> None:
    assert is_uri(uri)
    with pytest.raises(InputError, match=message) as caught:
        Remote(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["runs", "/runs", "./a:b", "c:/runs", "~/runs", "://x", ""])
def test_what_is_a_folder(text: str) -> None:
    assert not is_uri(text)


def test_what_is_inside_a_folder() -> None:
    assert below("s3://b/runs/", "demo") == "s3://b/runs/demo"
    assert below("s3://b?region=eu", "a/b") == "s3://b/a/b?region=eu"


def make_run(folder: Path, remote: str) -> RunFolder:
    run = RunFolder(folder, remote)
    (run.trials / "t0001").mkdir(parents=True)
    run.spec.write_text("name: x\n")
    (run.trials / "t0001" / "result.json").write_text("{}\n")
    (run.trials / "t0001" / CHECKPOINT).write_text("weights")
    (folder / ".lock").touch()
    (folder / "spec.yaml.part").touch()
    return run


def test_a_mirror_sends_what_is_the_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", f"file://{tmp_path}/far")
    said: list[str] = []
    Mirror(run, said.append).close()
    far = Remote(f"file://{tmp_path}/far")
    assert far.sizes().keys() == {"spec.yaml", "trials/t0001/result.json"}
    assert said == []
    # What was dropped goes, also where it came late.
    name = f"trials/t0001/{CHECKPOINT}"
    far.upload(run.path / name, name)
    run.dropped.add(name)
    Mirror(run, said.append).close()
    assert name not in far.sizes()


def test_the_journal_is_sent_last(tmp_path: Path) -> None:
    """A copy that ends between two files would else have records of trials that it does not know.

    A lock would keep the next machine waiting for ever.
    """
    run = make_run(tmp_path / "run", f"file://{tmp_path}/far")
    run.journal.touch()
    (run.path / "optuna.journal.lock").touch()
    (run.path / "spec.yaml").touch()
    assert files_of(run) == ["spec.yaml", "trials/t0001/result.json", "optuna.journal"]


def test_a_mirror_that_cannot_send_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_LAST", 0.2)
    monkeypatch.setattr(mirror, "_PAUSE", 0.05)
    (tmp_path / "far").touch()  # no folder
    run = make_run(tmp_path / "run", f"file://{tmp_path}/far")
    said: list[str] = []
    Mirror(run, said.append).close()
    [line] = said
    assert line.startswith(f"the run is whole in {run.path}, but not at file://{tmp_path}/far (")
    assert line.endswith("; the same command (a search's with --resume) sends the rest")


def test_of_two_copies_the_one_that_is_further_counts(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/far"
    run = make_run(tmp_path / "run", uri)
    Mirror(run, print).close()
    other = tmp_path / "other"
    fetch_records(uri, other)
    lines = other / "trials" / "t0001" / "result.json"
    assert digest(other).keys() == {"spec.yaml", "trials/t0001/result.json"}
    # This one went on, and could not send what it had.
    lines.write_text("{}\n{}\n")
    (other / "spec.yaml").write_text("name: x\ntrials: 5\n")
    before = digest(other)
    fetch_records(uri, other)
    assert digest(other) == before
    # Then the first went further.
    (run.trials / "t0001" / "result.json").write_text("{}\n{}\n{}\n")
    Mirror(run, print).close()
    fetch_records(uri, other)
    assert len(lines.read_text().splitlines()) == 3
    assert (other / "spec.yaml").read_text() == "name: x\n"
    with pytest.raises(InputError, match="there is no run; allowed: a URI of one"):
        fetch_run(f"{uri}/nothing", tmp_path / "nothing")


def test_a_confirmation_is_fetched_where_the_other_copy_is_further(tmp_path: Path) -> None:
    """It is a run inside the run: of each the copy counts that is further."""
    uri = f"file://{tmp_path}/far"
    run = make_run(tmp_path / "run", uri)
    inner = make_run(run.path / "confirm", f"{uri}/confirm")
    for sent in (run, inner):
        Mirror(sent, print).close()
        Remote(uri).upload(
            sent.path / "trials" / "t0001" / CHECKPOINT,
            f"{(sent.path / 'trials').relative_to(run.path)}/t0001/{CHECKPOINT}",
        )
    other = tmp_path / "other"
    fetch_run(uri, other)
    assert digest(other) == digest(tmp_path / "far")
    # This copy of the confirmation went on, and could not send what it had.
    (other / "confirm" / "trials" / "t0001" / "result.json").write_text("{}\n{}\n")
    (other / "confirm" / "spec.yaml").write_text("name: x\nseeds: 2\n")
    (tmp_path / "far" / "spec.yaml").write_text("name: x\ntrials: 5\n")
    before = digest(other / "confirm")
    fetch_run(uri, other)
    assert digest(other / "confirm") == before
    assert (other / "spec.yaml").read_text() == "name: x\ntrials: 5\n"


def test_a_place_that_cannot_be_written_to_is_told_of_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "far").touch()  # no folder
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^--storage: file://{tmp_path}/far/demo: cannot be "):
        run_search(
            tmp_path / "tiny.yaml", "127.0.0.1:1", storage=f"file://{tmp_path}/far", name="demo"
        )
    assert not (tmp_path / "runs").exists()


# --- a search on two nodes that share no folder ---------------------------------------------------


@pytest.fixture(scope="module")
def apart(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of two nodes, each with its own folder for what is temporary."""
    homes = [tmp_path_factory.mktemp("node") for _ in range(2)]
    with (
        started("head", 1, TMPDIR=str(homes[0]), cwd=homes[0]) as (address, _),
        started(address, 1, TMPDIR=str(homes[1]), cwd=homes[1]),
    ):
        yield address
        assert [list(home.glob("vqtune-*")) for home in homes] == [[], []]


def checkpoints(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob(f"trials/*/{CHECKPOINT}")}


@pytest.mark.long
def test_a_search_whose_nodes_share_nothing(
    apart: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for a storage that is away, and another machine goes on with the run."""
    monkeypatch.setattr(mirror, "_PERIOD", 0.2)
    here, there, far = (tmp_path / name for name in ("here", "there", "far"))
    for machine in (here, there):
        machine.mkdir()
        (machine / "tiny.yaml").write_text(TINY)
    kept: dict[str, object] = {"storage": f"file://{far}", "name": "demo"}
    store = far / "demo"

    def until(true: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        while not true() and time.monotonic() < limit:
            time.sleep(0.01)

    def away_for_a_while() -> None:
        until(lambda: len(checkpoints(store)) >= 1)
        far.rename(tmp_path / "away")
        far.touch()
        time.sleep(2)
        far.unlink()
        (tmp_path / "away").rename(far)

    monkeypatch.chdir(here)
    trouble = threading.Thread(target=away_for_a_while)
    trouble.start()
    done = run_search(here / "tiny.yaml", apart, **kept)
    trouble.join()
    assert done.outcome.finished
    assert done.run == here / "runs" / "demo"
    assert set(done.states().values()) == {"complete"}
    assert checkpoints(done.run) == checkpoints(store) == set(done.states())
    sent, local = digest(store), digest(done.run)
    assert sent == local
    with pytest.raises(InputError, match=f"^--storage: file://{far}: the run 'demo' exists there"):
        run_search(here / "tiny.yaml", apart, **kept)

    monkeypatch.chdir(there)
    with pytest.raises(InputError, match="there is no run 'other' in"):
        run_search(there / "tiny.yaml", apart, **kept | {"name": "other"}, resume=True)
    more = run_search(there / "tiny.yaml", apart, **kept, resume=True, trials=More(2))
    assert list(more.states().values()) == ["complete"] * 7
    assert more.run == there / "runs" / "demo"
    assert digest(store) == digest(more.run)
    for trial in done.states():
        assert more.reports(trial) == done.reports(trial)

    seen = vqtune("front", f"file://{store}", "--format", "csv", cwd=tmp_path)
    assert seen.code == 0, seen.err
    assert len(seen.out.splitlines()) >= 2
    fetched = Searched(tmp_path / "runs" / "demo", more.outcome, "")
    assert fetched.states() == more.states()
    assert read_run(fetched.run).spec["trials"] == 7
