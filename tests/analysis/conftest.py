"""Fixtures of the analysis tests."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from run_folder import CONFIG, RunFolder


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "demo").spec()


@pytest.fixture
def config() -> dict[str, Any]:
    """The plain config, free to be changed."""
    return deepcopy(CONFIG)
