"""A long search neither grows nor leaves anything behind."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from analysis.records import read_run
from tests.vqtune.conftest import TINY, VQTUNE, optuna_states
from tests.vqtune.test_resume import family, wait_for

TRIALS, SETTLED = 300, 50
SPACE = TINY.replace("trials: 5", f"trials: {TRIALS}, sampler: random")


class Sample(NamedTuple):
    """What the driver takes at one moment."""

    ended: int
    megabytes: float
    files: int
    threads: int
    processes: int


def sample(pid: int, run: Path) -> Sample | None:
    """None where the driver is not there any more."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        megabytes = int(status["VmRSS"].split()[0]) / 1024
    except (OSError, KeyError):
        return None
    # A trial that has begun shows that all before it, but for one a core, have ended.
    ended = len(list(run.glob("trials/*/result.json")))
    return Sample(ended, megabytes, files, int(status["Threads"]), len(family(pid)))


@pytest.mark.long
def test_a_search_of_300_trials_takes_no_more_than_one_of_50(
    own_environment: None, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    run = tmp_path / "runs" / "soak"
    with (tmp_path / "printed").open("w+") as printed:
        process = subprocess.Popen(
            [*VQTUNE, "search", "space.yaml", "--name", "soak"],
            cwd=tmp_path,
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )
        samples, started = [], set()
        while process.poll() is None:
            now = sample(process.pid, run)
            if now is not None and now.ended < TRIALS:  # then comes the report
                samples.append(now)
                started |= family(process.pid)
            time.sleep(0.5)
        printed.seek(0)
        assert process.returncode == 0, printed.read()
    # Ray's two agents take about a minute to notice that they are alone.
    assert wait_for(lambda: not [each for each in started if each.at_work()], 30)
    assert wait_for(lambda: not [p for p in started if Path(f"/proc/{p.pid}").exists()], 120)

    assert set(read_run(run).trials["state"]) == {"complete"}
    assert optuna_states(run) == ["COMPLETE"] * (TRIALS - 1)
    settled = [each for each in samples if each.ended >= SETTLED]
    first, last = settled[:10], settled[-10:]
    assert len(settled) > 30
    print(*settled[::10], sep="\n")
    for name in ("megabytes", "files", "threads", "processes"):
        before, after = (max(getattr(each, name) for each in part) for part in (first, last))
        assert after <= 1.2 * before, f"{name}: {before} after {SETTLED} trials, {after} at the end"
