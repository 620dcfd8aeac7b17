"""Following a search from another terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from analysis.records import Records
from tests.vqtune.conftest import TINY, VQTUNE, Searched, vqtune
from vqtune import watch as module
from vqtune.printed import print_front
from vqtune.run_folder import RunFolder
from vqtune.watch import at_work, watch


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST", 0.05)
    monkeypatch.setattr(module, "_TIMES", 0.0)


@pytest.fixture
def copy(finished: Searched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.run, tmp_path / "demo"))


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160, markup=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show(records: Records, console: Console) -> None:
    print_front(records, 2, console)


def test_a_finished_run_is_shown_once(copy: Path, console: Console) -> None:
    plain = Console(file=io.StringIO(), width=160, markup=False)
    watch(copy, show, console)
    show(module.read_run(copy), plain)
    assert printed(console) == printed(plain)


def test_a_run_that_is_held_is_at_work(copy: Path) -> None:
    assert not at_work(copy)
    with RunFolder(copy).locked():
        assert at_work(copy)
    assert not at_work(copy)
    (copy / ".lock").unlink()
    assert not at_work(copy)
    assert not (copy / ".lock").exists()


def test_a_search_can_take_a_run_that_is_watched(copy: Path) -> None:
    """However often it is looked whether somebody has."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            at_work(copy)

    (copy / ".lock").touch()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            with RunFolder(copy).locked():
                pass
    finally:
        stop.set()
        thread.join()


def test_it_is_printed_again_when_it_has_changed(
    copy: Path, console: Console, finished: Searched
) -> None:
    """Beginning with a run that has no trial yet."""
    trials = sorted((copy / "trials").iterdir())
    for trial in trials:
        trial.rename(copy / trial.name)

    def at_it() -> None:
        with RunFolder(copy).locked():
            for trial in trials:
                time.sleep(0.4)
                (copy / trial.name).rename(trial)
            time.sleep(0.4)

    thread = threading.Thread(target=at_it)
    thread.start()
    until = time.monotonic() + 10
    while not at_work(copy):
        assert time.monotonic() < until
    watch(copy, show, console)
    thread.join()
    heads = re.findall(r"^demo: (.*)", printed(console), re.MULTILINE)
    assert heads == ["no trials yet", *(f"{n} complete" for n in range(1, 6))]


def test_a_run_that_nobody_goes_on_with_is_left(
    copy: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUIET", 0.3)
    result = copy / "trials" / "t0001" / "result.json"
    result.write_text("".join(result.read_text().splitlines(keepends=True)[:2]))
    watch(copy, show, console)
    assert printed(console).count("demo: 4 complete, 1 running") == 1
    assert printed(console).endswith("Nobody is at work in this run.\n")


def test_what_it_does_not_go_with(finished: Searched, tmp_path: Path) -> None:
    ended = vqtune("front", finished.run, "--watch", "--format", "csv", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "Error: --watch needs --format table\n"
    ended = vqtune("front", tmp_path / "nothing", "--watch", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("Error: no run ")


# --- a search that is at work -------------------------------------------------------------------


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.master, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
        self.process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        self.seen = ""

    def read(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65_536).decode(errors="replace")
                except OSError:
                    return  # the process has ended

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            self.read(0.2)


@pytest.fixture
def at_work_on(tmp_path: Path, cluster: str) -> Iterator[Path]:
    """A folder in which a search of some seconds has begun."""
    (tmp_path / "tiny.yaml").write_text(TINY.replace("samples: 320", "samples: 4800"))
    line = [*VQTUNE, "search", "tiny.yaml", "--name", "demo", "--trials", "6"]
    with subprocess.Popen(
        [*line, "--address", cluster],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as search:
        until = time.monotonic() + 60
        while not (tmp_path / "runs" / "demo" / "spec.yaml").exists():
            assert search.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield tmp_path
        assert search.wait(60) == 0


@pytest.mark.long
def test_a_search_is_followed_to_its_end_on_terminals_and_off_them(at_work_on: Path) -> None:
    line = [*VQTUNE, "front", "demo", "--watch", "--top", "3", "--constraint", "none"]
    terminal = Terminal(line, at_work_on)
    stopped = Terminal(line, at_work_on)
    with subprocess.Popen(
        line,
        cwd=at_work_on,
        env=dict(os.environ),  # without what readline puts into it behind Python's back
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as plain:
        stopped.wait_for("Ctrl-C ends this")
        stopped.process.send_signal(signal.SIGINT)
        stopped.read(0.5)
        assert stopped.process.wait(10) == 0
        assert "Traceback" not in stopped.seen
        while terminal.process.poll() is None:
            terminal.read(0.2)
        out, err = plain.communicate(timeout=60)
    terminal.read(0.5)
    assert (terminal.process.returncode, plain.returncode, err) == (0, 0, "")
    assert "demo: 6 complete" in terminal.seen
    assert "\x1b[1A" in terminal.seen  # drawn in place
    assert "Best first: by non-dominated rank" in terminal.seen
    heads = re.findall(r"^demo: (.*)", out, re.MULTILINE)
    assert heads[-1] == "6 complete"
    assert len(heads) == len(set(heads)) > 1
    assert "\x1b" not in out
    table = vqtune("front", "demo", "--top", "3", "--constraint", "none", cwd=at_work_on)
    assert out.endswith(table.out)
