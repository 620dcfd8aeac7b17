"""One session at a time in a run at a URI: two that meet, one that was killed, other clocks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vqtune.test_remote_storage import make_run
from trainables.errors import InputError
from trainables.remote import Remote, below
from vqtune import lease
from vqtune.lease import Lease, check_free, leased, read_holder
from vqtune.mirror import Mirror, send_all
from vqtune.run_folder import LEASE, RunFolder
from vqtune.session import RunRequest, opened

PERIOD = 0.1
# A session that is at work until it is killed.
SESSION = f"""
import sys, time
from pathlib import Path
from vqtune import lease
from vqtune.run_folder import RunFolder
lease.PERIOD, lease.SETTLED = {PERIOD}, 0.0
with lease.leased(RunFolder(Path(sys.argv[1]), sys.argv[2])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PERIOD", PERIOD)
    monkeypatch.setattr(lease, "SETTLED", 0.05)


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """pyarrow's own file system, and one of fsspec."""
    return {"file": f"file://{tmp_path}/far", "memory": f"memory:/{tmp_path}/far"}[request.param]


def copy_at(folder: Path, uri: str | None) -> RunFolder:
    """A machine's working copy."""
    folder.mkdir(exist_ok=True)
    return RunFolder(folder, uri)


@contextmanager
def session(copy: Path, uri: str) -> Iterator[subprocess.Popen[str]]:
    """A session that is at work in a process of its own."""
    copy.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", SESSION, str(copy), uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process


def killed_session(copy: Path, uri: str) -> None:
    """What it held is still held, and its working copy knows it."""
    with session(copy, uri) as process:
        process.send_signal(signal.SIGKILL)


def test_two_sessions_do_not_meet(uri: str, tmp_path: Path) -> None:
    here, there = (copy_at(tmp_path / name, uri) for name in ("here", "there"))
    with leased(here):
        time.sleep(4 * PERIOD)  # longer than it is good for, if it were not renewed
        with (
            pytest.raises(
                InputError,
                match=f"^{uri}: another search is at work in this run, on .* since 20..-..-.. "
                r"..:..:.. UTC; allowed: once it has ended, or, if it was killed, in \d s$",
            ),
            leased(there, "another search"),
        ):
            pass
        with pytest.raises(InputError, match=f"^{uri}: a search is at work in this run, on "):
            check_free(uri, "a search")
        assert Remote(uri).sizes().keys() == {LEASE}
    assert Remote(uri).sizes() == {}
    assert not list(here.path.iterdir())
    assert not list(there.path.iterdir())
    check_free(uri, "a search")
    with leased(there):
        pass


def test_a_run_in_a_folder_has_none(tmp_path: Path) -> None:
    with leased(copy_at(tmp_path / "here", None)):
        assert not list((tmp_path / "here").iterdir())


def test_of_many_at_once_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"file://{tmp_path}/far"
    monkeypatch.setattr(lease, "SETTLED", 0.5)
    begun, refused, gate = [], [], threading.Barrier(6)

    def begin(number: int) -> None:
        run = copy_at(tmp_path / str(number), uri)
        gate.wait()
        try:
            with leased(run):
                begun.append(number)
                gate.wait()
        except InputError as error:
            refused.append(error)
            gate.wait()

    threads = [threading.Thread(target=begin, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), len(refused)) == (1, 5), refused
    assert Remote(uri).sizes() == {}


def test_a_killed_session_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine when it is sure that it has ended; on its own, whose lock is free, now."""
    uri = f"file://{tmp_path}/far"
    here, there = tmp_path / "here", tmp_path / "there"
    killed_session(here, uri)
    monkeypatch.setattr(lease, "PERIOD", 10.0)
    with (
        pytest.raises(InputError, match=r"if it was killed, in (30|2\d) s$"),
        leased(copy_at(there, uri)),
    ):
        pass
    before = time.monotonic()
    with leased(copy_at(here, uri)):
        assert time.monotonic() - before < 10
    monkeypatch.setattr(lease, "PERIOD", PERIOD)
    killed_session(here, uri)
    time.sleep(3 * PERIOD)
    check_free(uri, "a search")
    with leased(copy_at(there, uri)):
        pass
    assert Remote(uri).sizes() == {}


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_clocks_may_differ(ahead: float, uri: str, tmp_path: Path) -> None:
    """Whether it is renewed counts, not what time it tells."""
    run, ended = copy_at(tmp_path / "here", uri), threading.Event()
    file = tmp_path / "lease"

    def write() -> None:
        file.write_text(
            json.dumps({"owner": "x", "host": "a\nb", "since": 1e9, "renewed": time.time() + ahead})
        )
        Remote(uri).upload(file, LEASE)

    def renew() -> None:
        while not ended.wait(PERIOD):
            write()

    write()
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(InputError, match=r"run, on a\?b since 2001-09-09 01:46:40 UTC; allowed"),
            leased(run),
        ):
            pass
    finally:
        ended.set()
        thread.join()
    with leased(run):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 9999, '{"owner": 1}', "\xff"])
def test_a_file_that_is_no_lease_holds_nobody_up_for_long(text: str, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / LEASE).write_text(text, encoding="latin-1")
    with leased(copy_at(tmp_path / "here", f"file://{far}")):
        pass
    assert not list(far.iterdir())


def until(true: Callable[[], bool], each: Callable[[], object] = bool) -> None:
    """Wait for something to be true; does `each` again and again, since a renewal may undo it."""
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        each()
        time.sleep(PERIOD)


def take_over(remote: Remote, folder: Path) -> None:
    """As a session on mars does it."""
    file = folder / "lease"
    file.write_text(
        json.dumps({"owner": "x", "host": "mars", "since": 1e9, "renewed": time.time()})
    )
    remote.upload(file, LEASE)


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[RunFolder]:
    """The working copy of a session that another has taken over from."""
    run = make_run(tmp_path / "run", f"file://{tmp_path}/far")
    told = threading.Event()
    held = Lease(run, told.set)
    held.take("another session")
    assert run.remote is not None
    remote = Remote(run.remote)
    until(told.is_set, lambda: take_over(remote, tmp_path))
    yield run
    held.release()
    found = read_holder(remote)
    assert found is not None
    assert found.owner == "x"


def test_a_session_that_was_away_too_long_touches_nothing_more(lost: RunFolder) -> None:
    assert lost.lost == "on mars since 2001-09-09 01:46:40 UTC"
    assert lost.remote is not None
    said: list[str] = []
    Mirror(lost, said.append).close()
    send_all(lost, said.append)
    assert Remote(lost.remote).sizes().keys() == {LEASE}
    [line] = said
    assert "another session has taken the run over, on mars since " in line
    assert line.endswith(f"; what this one has computed is in {lost.path}")


def test_a_session_that_was_away_while_another_came_and_went(tmp_path: Path) -> None:
    """Not so where all is away, or not there yet."""
    run = make_run(tmp_path / "run", f"file://{tmp_path}/far")
    told = threading.Event()
    held = Lease(run, told.set)
    held.take("another session")
    far = tmp_path / "far"
    far.rename(tmp_path / "away")
    until((far / LEASE).exists)
    assert not told.is_set()
    (far / "spec.yaml").touch()
    until(told.is_set, lambda: (far / LEASE).unlink(missing_ok=True))
    assert run.lost == "which has ended since"
    held.release()


def test_a_session_that_another_has_taken_over_from_ends_as_by_ctrl_c(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/far"
    with session(tmp_path / "here", uri) as process:
        until(lambda: process.poll() is not None, lambda: take_over(Remote(uri), tmp_path))
        assert process.returncode == -signal.SIGINT


def test_what_is_sent_after_a_session_does_not_meet_the_next(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/far"
    run = make_run(tmp_path / "run", uri)
    said: list[str] = []
    with leased(copy_at(tmp_path / "there", uri)):
        send_all(run, said.append)
        assert Remote(uri).sizes().keys() == {LEASE}
    assert said[0].startswith(
        f"what was written last is in {run.path} alone: {uri}: another session "
    )
    with run.locked():
        send_all(run, said.append)
    assert said[1] == f"what was written last is in {run.path} alone: {run.path}: " + (
        "another session is at work in this run"
    )
    send_all(run, said.append)
    assert Remote(uri).sizes().keys() == {"spec.yaml", "trials/t0001/result.json"}
    assert len(said) == 2


def test_a_session_begins_with_what_the_last_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that make or resume one run; the first writes on while the second looks."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    storage = f"file://{tmp_path}/far"
    result = Path("trials") / "t0001" / "result.json"
    monkeypatch.chdir(here)
    new, resumed = (RunRequest(name="demo", storage=storage, resume=r) for r in (False, True))
    with opened(new, "x") as run:
        monkeypatch.chdir(there)
        refused = pytest.raises(InputError, match="demo: another search is at work in this run, on")
        with refused, opened(new, "x"):
            pass
        assert not list(there.glob("runs/*"))
        (run.path / result).parent.mkdir()
        (run.path / result).write_text("{}\n")
        run.spec.write_text("name: demo\n")
        Mirror(run, print).close()
        with refused, opened(resumed, "x"):
            pass
        (run.path / result).write_text("{}\n{}\n")
        Mirror(run, print).close()
    with opened(resumed, "x") as again:
        assert again.path == there / "runs" / "demo"
        assert (again.path / result).read_text() == "{}\n{}\n"
    assert LEASE not in Remote(below(storage, "demo")).sizes()
