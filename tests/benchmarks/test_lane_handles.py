"""What a trial in a lane costs is what is promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lane_handles import in_lanes
from vqtune.cluster import ray_cluster


@pytest.mark.long
def test_a_trial_in_a_lane_adds_little_memory(tmp_path: Path) -> None:
    """Times depend on what else the machine does; the benchmark tells them."""
    with ray_cluster(None):
        _, trains, asks, _ = in_lanes(24, 3, tmp_path)
    assert trains < 10  # MB, its tensors among it
    assert asks < 1
