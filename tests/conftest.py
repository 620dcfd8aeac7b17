"""Which tests may run side by side: of those that start Ray clusters, one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_ONE_AT_A_TIME = ("vqtune", "benchmarks", "test_cluster_examples.py")


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give processes of `pytest -n` whole groups: what needs clusters, and each other file."""
    for item in items:
        first, *_ = item.path.relative_to(_TESTS).parts
        group = "clusters" if first in _ONE_AT_A_TIME else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
