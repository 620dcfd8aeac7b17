"""The script with two hosts, where the machine lets it run; else that it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vqtune.two_hosts import NO_RIGHTS


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.vqtune.two_hosts"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment or None,
    )


def test_without_the_rights_it_says_so() -> None:
    """Here: without the program that it takes."""
    done = run(PATH="")
    assert done.returncode == NO_RIGHTS
    assert done.stdout.startswith("two_hosts: needs the right to make network namespaces: ")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.long
def test_a_host_that_is_cut_off_takes_no_trial_with_it(own_environment: None) -> None:
    done = run()
    if done.returncode == NO_RIGHTS:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no report lost or repeated" in done.stdout
