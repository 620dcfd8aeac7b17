"""A search on two hosts of which one is cut off: two network namespaces, joined by a cable.

    python -m tests.vqtune.two_hosts

The driver and the cluster's head are on the first host, with one CPU; the second has another one,
and the cable is pulled while both train. All trials are to end as if nothing had happened. Ends
with 77, and a line that says why, where the machine does not let us make namespaces.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from analysis.records import read_run
from tests.vqtune.conftest import SMALL, VQTUNE, optuna_states
from tests.vqtune.losses import Node
from tests.vqtune.test_resume import all_reports, wait_for
from trainables.config import TrialConfig
from trainables.trainer import Trainer

NO_RIGHTS = 77
TRIALS, REPORTS = 10, 20
SPACE = f"""
description: Trials on two hosts
extends: base
search: {{trials: {TRIALS}, samples: 1600, sampler: random, early_stopping: none}}
{SMALL}
  training: {{reports: {REPORTS}, batch_size: 4}}
"""
FIRST, SECOND = "10.77.77.1", "10.77.77.2"


class NoRightsError(Exception):
    """The machine does not let us make network namespaces."""


def ip(*words: str) -> None:
    """Run `ip`; raises NoRightsError where it fails."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoRightsError("there is no `ip`, of iproute2") from None
    if done.returncode:
        raise NoRightsError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two namespaces with a cable between them; gone at the end."""
    names = f"vqa{os.getpid()}", f"vqb{os.getpid()}"
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns",
           names[1])  # fmt: skip
        for name, address in zip(names, (FIRST, SECOND), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


def main() -> None:
    """Run it."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        with two_hosts() as (first, second), tempfile.TemporaryDirectory() as folder:
            search(first, second, Path(folder))
    except NoRightsError as error:
        print(f"two_hosts: needs the right to make network namespaces: {error}")
        sys.exit(NO_RIGHTS)


def search(first: str, second: str, folder: Path) -> None:
    """Search on both hosts, and pull the cable."""
    (folder / "space.yaml").write_text(SPACE)
    run = folder / "runs" / "apart"
    at = {host: ["ip", "netns", "exec", host] for host in (first, second)}
    head = Node(1, FIRST, prefix=at[first])
    other = Node(1, SECOND, head.cluster, prefix=at[second])
    pulled: list[float] = []

    def pull() -> None:
        if wait_for(lambda: sum(map(len, all_reports(run).values())) > TRIALS * REPORTS / 4, 120):
            ip("-n", first, "link", "set", "cable", "down")
            pulled.append(time.monotonic())

    cutter = threading.Thread(target=pull, daemon=True)
    cutter.start()
    try:
        started = time.monotonic()
        command = [*VQTUNE, "search", "space.yaml", "--name", "apart", "--address", head.cluster]
        done = subprocess.run(
            [*at[first], *command], cwd=folder, capture_output=True, text=True, check=False
        )
        ended = time.monotonic()
    finally:
        other.kill()
        head.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert pulled, "the search was over before the cable was pulled"
    check(run)
    lost = [line for line in done.stdout.splitlines() if "lost" in line or "died" in line]
    print(*lost, sep="\n")
    print(
        f"two_hosts: {TRIALS} trials complete in {ended - started:.0f} s, the second host cut off "
        f"after {pulled[0] - started:.0f} s; no report lost or repeated"
    )


def check(run: Path) -> None:
    """Every trial is complete, and is the trial that is trained alone."""
    records = read_run(run)
    assert set(records.trials["state"]) == {"complete"}
    assert len(records.trials) == TRIALS
    assert optuna_states(run) == ["COMPLETE"] * (TRIALS - 1)
    names = ("samples", "perplexity", "recon_loss")
    torch.set_num_threads(1)  # as a trial has
    for name, reports in all_reports(run).items():
        trainer = Trainer(TrialConfig.from_dict(records.configs[name]))
        alone = [trainer.advance() for _ in range(REPORTS)]
        assert [[r[n] for n in names] for r in reports] == [[r[n] for n in names] for r in alone]


if __name__ == "__main__":
    main()
