"""`--lanes`: what it may be, and what becomes of it without a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.trainables.conftest import make_config
from tests.vqtune.conftest import CLUSTER, run_search
from tests.vqtune.in_lanes import SPACE, check_is_plain, noted_pools
from trainables.errors import InputError
from vqtune.cli import main
from vqtune.cluster import Resources
from vqtune.lane_choice import Asked, Lanes, check_lanes, choose_lanes, in_lanes
from vqtune.shares import Shares


@pytest.mark.parametrize(
    ("text", "asked"), [("auto", "auto"), ("off", None), ("1", 1), ("64", 64), ("128", 128)]
)
def test_what_is_allowed(text: str, asked: Asked) -> None:
    assert Lanes().convert(text, None, None) == asked


@pytest.mark.parametrize("text", ["0", "129", "-4", "many", "4.5", "", "²"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    done = CliRunner().invoke(main, ["search", "quickstart", "--lanes", text])
    assert done.exit_code == 2
    assert f"found {text!r}; allowed: auto, off, or N from 1 to 128" in done.output


def test_lanes_and_a_part_of_a_gpu_exclude_each_other() -> None:
    for share in (None, 0, 1):
        check_lanes(8, share)
    check_lanes("auto", 0.25)
    check_lanes(None, 0.25)
    for share in (0.25, 2):
        with pytest.raises(InputError, match=f"^--lanes: found 8 with --gpus-per-trial {share};"):
            check_lanes(8, share)


@pytest.mark.parametrize("asked", ["auto", None])
def test_without_a_gpu_nothing_is_measured(asked: Asked) -> None:
    assert choose_lanes(asked, Resources(1, 0, 2), make_config()) == (None, "")


def test_a_number_is_taken_as_it_is() -> None:
    assert choose_lanes(8, Resources(1, 0, 2), make_config()) == (8, "")


def test_a_pool_takes_a_whole_gpu_or_none() -> None:
    rules = tuple(Shares.parse({"rules": [{"where": {"seed": 1}, "gpus": 0.5}]}).rules)
    assert in_lanes(Resources(2, 0.25, 8, rules)) == Resources(2, 1, 8)
    assert in_lanes(Resources(2, 0, 8, rules)) == Resources(2, 0, 8)


@pytest.fixture
def gpu(own_environment: None) -> Iterator[str]:
    """A cluster that says it has a GPU, though trials will not find one."""
    told = CLUSTER.replace("num_cpus=1", "num_cpus=2, num_gpus=1")
    with subprocess.Popen(
        [sys.executable, "-c", told],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@pytest.mark.long
def test_on_a_gpu_lanes_are_chosen_by_what_is_measured(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    made = noted_pools(monkeypatch)
    given = {"space": tmp_path / "space.yaml", "address": gpu, "storage": tmp_path}

    searched = run_search(**given, name="auto", trials=3)
    note = r"Note: lanes: (off|\d+ a GPU) \(samples/s of one GPU: plain [\d,]+, 4 lanes [\d,]+, "
    found = re.search(note, searched.printed)
    assert found is not None
    assert bool(made) == (found[1] != "off")

    searched = run_search(**given, name="four", lanes=4, trials=6)
    assert (made[-1].taken.gpus, made[-1].lanes) == (1, 4)
    assert set(searched.states().values()) == {"complete"}
    check_is_plain(searched)
    for name in searched.states():
        last = searched.reports(name)[-1]
        assert 0 < last["gpu_seconds"] <= last["seconds"]
