from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder import RunFolder

from analysis.findings import find
from analysis.front import Direction, Objective
from analysis.records import read_run
from analysis.report.front_chart import FrontChart, _staircase, front_chart


def chart_of(folder: RunFolder, **urls: str) -> FrontChart:
    chart = front_chart(find(read_run(folder.path), None, None, None), urls)
    assert chart is not None
    return chart


def corners(staircase: str) -> list[tuple[float, float]]:
    """The staircase's corners, y upwards."""
    numbers = [float(n) for n in re.findall(r"-?\d+", staircase)]
    return [(x, 1000 - y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def test_each_complete_trial_is_a_point_and_the_best_is_drawn_last(run_folder: RunFolder) -> None:
    run_folder.complete("baseline", 20.0, 0.5, role="baseline")
    run_folder.complete("t1", 200.0, 0.4)
    run_folder.complete("t2", 100.0, 0.3)
    run_folder.complete("t3", 50.0, 0.45)
    run_folder.trial("t4", {"samples": 500, "done": True})
    chart = chart_of(run_folder, t1="https://wandb.ai/x", t2="javascript:alert(1)")
    assert {point.trial_id for point in chart.points} == {"baseline", "t1", "t2", "t3"}
    assert chart.points[-1].part == "first"
    points = {point.trial_id: point for point in chart.points}
    assert points["t1"].url == "https://wandb.ai/x"
    assert points["t2"].url == ""
    assert "perplexity 200" in points["t1"].label
    assert "on the front" in points["t1"].label
    assert points["t1"].x > points["t2"].x > points["t3"].x > points["baseline"].x
    assert points["baseline"].y > points["t3"].y > points["t1"].y > points["t2"].y
    assert chart.stopped.count("M") == 1


def test_the_region_beyond_the_limit_is_shaded(run_folder: RunFolder) -> None:
    run_folder.complete("baseline", 20.0, 0.5, role="baseline")
    run_folder.complete("t1", 200.0, 0.6)
    chart = chart_of(run_folder)
    assert chart.broken is not None
    x, y, width, height = chart.broken
    assert (y + height) == pytest.approx(1000 - 10 * chart.y.place(0.5))
    points = {point.trial_id: point for point in chart.points}
    assert 1000 - 10 * points["t1"].y < y + height  # t1 is inside, above the limit
    assert x < 0 and width > 1000


def test_one_objective_is_drawn_over_the_order_of_the_trials(run_folder: RunFolder) -> None:
    run_folder.spec(objectives={"recon_loss": "min"})
    for i, loss in enumerate((0.5, 0.3, 0.4, 0.2)):
        run_folder.complete(f"t{i}", 50.0, loss)
    chart = chart_of(run_folder)
    assert chart.x.label.startswith("trial")
    assert len(chart.points) == 4


def test_three_objectives_are_drawn_in_two_without_a_staircase(run_folder: RunFolder) -> None:
    run_folder.spec(objectives={"bits_per_frame": "min", "perplexity": "max", "recon_loss": "min"})
    run_folder.complete("t1", 50.0, 0.5)
    run_folder.complete("t2", 60.0, 0.6)
    chart = chart_of(run_folder)
    assert (chart.x.label, chart.y.label) == ("perplexity", "recon_loss")
    assert chart.staircase == ""
    assert "bits_per_frame" in dict(chart.points[0].facts)


ways = st.sampled_from(["max", "min"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), ways, ways)
def test_the_staircase_parts_what_the_front_dominates_from_the_rest(
    places: list[tuple[int, int]], first: Direction, second: Direction
) -> None:
    goals = (Objective("a", first), Objective("b", second))
    steps = corners(_staircase([(10 * x, 10 * y) for x, y in places], goals))
    signs = [1 if goal.direction == "max" else -1 for goal in goals]

    def dominated(x: float, y: float) -> bool:
        return any(
            signs[0] * (10 * px - x) > 0 and signs[1] * (10 * py - y) > 0 for px, py in places
        )

    def behind(x: float, y: float) -> bool:
        """On the dominated side: a horizontal piece at this x is better in b than y."""
        levels = [
            10 * a[1] / 100
            for a, b in pairwise(steps)
            if a[1] == b[1] and min(a[0], b[0]) < 10 * x < max(a[0], b[0])
        ]
        return any(signs[1] * (level - y) > 0 for level in levels)

    for x in range(-5, 100, 10):
        for y in range(-5, 100, 10):
            assert dominated(x, y) == behind(x, y)


def test_nothing_complete_gives_no_chart(run_folder: RunFolder, tmp_path: Path) -> None:
    run_folder.trial("t1", {"samples": 500})
    assert front_chart(find(read_run(run_folder.path), None, None, None), {}) is None
