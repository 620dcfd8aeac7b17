"""The spaces that come with vqtune: all load, draw, survive a spec and have a plain baseline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.config_codebook import CodebookConfig
from trainables.yaml_file import read_mapping
from vqtune.spaces import Space, available

TECHNIQUES = {
    "ema": "codebook.update",
    "respawn": "codebook.respawn",
    "commitment": "codebook.commitment",
    "entropy": "codebook.entropy",
    "batch": "training.batch_size",
    "growth": "codebook.growth",
    "kmeans": "codebook.kmeans",
    "codebook_lr": "codebook.update",
    "rotation": "codebook.rotation",
    "least_recent": "codebook.least_recent",
    "reanchor": "codebook.reanchor",
    "sample_entropy": "codebook.sample_entropy",
}
SHIPPED = ["base", "quickstart", "recipe", "full", *TECHNIQUES]
SPACES = {space.name: space for space in available()}


def test_every_file_is_a_space_with_a_description() -> None:
    assert sorted(SPACES) == sorted(SHIPPED)
    for space in SPACES.values():
        assert 20 < len(space.description) < 110
        assert Path(space.source).is_file()


@pytest.mark.parametrize("name", SHIPPED)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_every_draw_is_a_config(name: str, seed: int) -> None:
    space = SPACES[name]
    assert space.draw(3, seed) == space.draw(3, seed)


@pytest.mark.parametrize(("name", "technique"), TECHNIQUES.items())
def test_a_technique_searches_its_own_parameters_only(name: str, technique: str) -> None:
    allowed = (technique, "codebook.update")
    if name == "sample_entropy":  # half of a pair
        allowed = (*allowed, "codebook.entropy")
    assert SPACES[name].parameter_names()
    assert all(found.startswith(allowed) for found in SPACES[name].parameter_names())


def test_the_quickstart_mixes_the_techniques() -> None:
    draws = SPACES["quickstart"].draw(64)
    assert SPACES["quickstart"].search.trials == 16
    assert {draw.codebook.update.kind for draw in draws} == {"ema", "gradient"}
    for name in ("respawn", "entropy", "kmeans"):
        assert {getattr(draw.codebook, name) is None for draw in draws} == {True, False}
    assert {draw.model.width for draw in draws if draw.model.kind == "conv"} == {64}
    assert all(draw.codebook.growth is None for draw in draws)


def test_the_full_space_has_every_technique_on_and_off() -> None:
    draws = SPACES["full"].draw(64)
    techniques = {name for name, value in CodebookConfig().model_dump().items() if value is None}
    assert {draw.codebook.update.kind for draw in draws} == {"ema", "gradient"}
    for name in techniques:
        assert {getattr(draw.codebook, name) is None for draw in draws} == {True, False}, name


def test_the_recipe_is_within_its_space() -> None:
    for draw in SPACES["recipe"].draw(64):
        assert draw.codebook.update.kind == "ema"
        assert draw.codebook.commitment.beta >= 2
        assert draw.training.batch_size * draw.data.clip_frames >= 256
        assert draw.codebook.respawn is not None
    period = SPACES["recipe"].searched()["codebook.respawn.period"]
    threshold = SPACES["recipe"].searched()["codebook.respawn.threshold"]
    assert 2000 * 16 in period.ends()
    assert 5 / 2000 in threshold.ends()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_baseline_is_plain(name: str) -> None:
    space = SPACES[name]
    baseline = space.baseline()
    codebook = baseline.codebook
    # Whatever is not named here is a technique, and off.
    assert codebook.model_dump() == dict.fromkeys(type(codebook).model_fields) | {
        "size": 512,
        "dim": 64,
        "update": {"kind": "gradient", "weight": 1.0, "lr_ratio": 1.0},
        "commitment": {"beta": 0.25},
    }
    draw = space.draw(1)[0]
    assert baseline.data == draw.data
    assert baseline.model == draw.model
    assert baseline.evaluation == draw.evaluation
    expected = 64_000 if name == "recipe" else 24_000
    assert baseline.training.samples == draw.training.samples == expected
    assert baseline.training.batch_size == 16


def test_a_space_imports_nothing_heavy() -> None:
    code = (
        "import sys, vqtune.spaces; vqtune.spaces.available();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'optuna', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_resolved_space_survives_yaml(name: str, tmp_path: Path) -> None:
    space = SPACES[name]
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(space.to_dict(), sort_keys=False), encoding="utf-8")
    again = Space.from_dict(read_mapping(path))
    assert again == space
    assert again.draw(10, 1) == space.draw(10, 1)
    assert again.baseline() == space.baseline()
