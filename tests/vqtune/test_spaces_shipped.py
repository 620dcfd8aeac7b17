"""The spaces that come with vqtune: all load, draw, survive a spec and have a plain baseline."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.codebooks import Clock, Quantizer
from trainables.config import TrialConfig
from trainables.config_codebook import CodebookConfig
from trainables.config_model import HierarchicalModel
from trainables.yaml_file import read_mapping
from vqtune.space_nodes import Constant, Pick, Range, key_path, leaves, resolve
from vqtune.spaces import Space, available

CPU = torch.device("cpu")
ZERO, SEEDS = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)

# Each space of one technique, and what it searches beside the update rule.
TECHNIQUES: dict[str, set[str]] = {
    "ema": set(),
    "respawn": {"codebook.respawn"},
    "commitment": {"codebook.commitment"},
    "entropy": {"codebook.entropy"},
    "batch": {"training.batch_size"},
    "growth": {"codebook.growth"},
    "kmeans": {"codebook.kmeans"},
    "codebook_lr": set(),
    "rotation": {"codebook.rotation"},
    "least_recent": {"codebook.least_recent"},
    "reanchor": {"codebook.reanchor"},
    "sample_entropy": {"codebook.sample_entropy", "codebook.entropy"},  # a pair
    "simvq": {"codebook.commitment", "codebook.rotation"},
    "fsq": {"codebook.normalization"},
    "lfq": {"codebook.commitment", "codebook.entropy", "codebook.sample_entropy"},
    "low_dim": {"codebook.low_dim"},
    "cosine": {"codebook.commitment"},
    "dim_growth": {"codebook.dim_growth"},
    "normalization": {"codebook.normalization"},
    "stochastic": {"codebook.stochastic"},
    "groups": {"codebook", "codebook.kmeans"},
    "residual": {"codebook", "codebook.residual", "codebook.kmeans"},
    "hierarchy": {"", "codebook.kmeans"},
    "schedule": {"training.lr", "training.warmup", "training.lr_final"},
}
# Blocks of the config that a space of their name turns on in every trial but the baseline.
ALWAYS_ON = {"respawn", "entropy", "growth", "kmeans", "least_recent", "reanchor", "sample_entropy"}
ALWAYS_ON |= {"low_dim", "cosine", "dim_growth", "stochastic"}
LAYOUTS = ("groups", "residual", "hierarchy")
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


@pytest.mark.parametrize(("name", "allowed"), TECHNIQUES.items())
def test_a_technique_searches_its_own_parameters_only(name: str, allowed: set[str]) -> None:
    paths = [key_path(found) for found in SPACES[name].parameter_names()]
    searched = {path if path in allowed else ".".join(path.split(".")[:2]) for path in paths}
    assert searched
    assert searched - {"codebook.update"} == allowed


def test_every_technique_has_a_space_of_its_name() -> None:
    blocks = {name for name, value in CodebookConfig() if value is None}
    updates = get_args(CodebookConfig.model_fields["update"].annotation)
    kinds = {update.model_fields["kind"].default for update in updates}
    assert kinds == {"gradient", "ema", "simvq", "fsq", "lfq"}
    assert kinds - {"gradient"} <= set(TECHNIQUES)  # that one is codebook_lr
    assert blocks <= set(TECHNIQUES)


@pytest.mark.parametrize("name", sorted(ALWAYS_ON))
def test_a_technique_is_on_in_its_own_space(name: str) -> None:
    assert all(getattr(draw.codebook, name) is not None for draw in SPACES[name].draw(16))


@pytest.mark.parametrize("name", ["simvq", "fsq", "lfq", "ema"])
def test_a_lookup_of_its_own_is_the_update_in_its_space(name: str) -> None:
    assert {draw.codebook.update.kind for draw in SPACES[name].draw(16)} == {name}


@pytest.mark.parametrize("name", ["fsq", "low_dim", "groups", "residual", "hierarchy", "rotation"])
def test_a_small_space_is_tried_in_full(name: str) -> None:
    search = SPACES[name].search
    assert search.sampler == "grid"
    assert search.trials == 1 + len(SPACES[name].enumerate_grid())


def nominal_bits(config: TrialConfig) -> float:
    """Bits of the codes of one frame, as the layout has them."""
    codebook, latents = config.codebook, 1.0
    if isinstance(config.model, HierarchicalModel):
        latents += 1 / math.prod(config.model.top_strides)
    streams = codebook.groups.count if codebook.groups else 1
    streams *= codebook.residual.levels if codebook.residual else 1
    return latents * streams * math.log2(codebook.size)


@pytest.mark.parametrize("name", [*LAYOUTS, "fsq", "lfq", "full"])
def test_layouts_compare_at_equal_nominal_bits(name: str) -> None:
    bits = {round(nominal_bits(draw), 2) for draw in SPACES[name].draw(200)}
    assert bits == {round(nominal_bits(SPACES[name].baseline()), 2)} == {9.0}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_compared_with_one_codebook(name: str) -> None:
    layouts = {
        (draw.model.kind, draw.codebook.groups, draw.codebook.residual)
        for draw in SPACES[name].draw(100)
    }
    assert ("conv", None, None) in layouts
    assert len(layouts) > 1


def test_the_quickstart_mixes_the_techniques() -> None:
    draws = SPACES["quickstart"].draw(64)
    assert SPACES["quickstart"].search.trials == 16
    assert {draw.codebook.update.kind for draw in draws} == {"ema", "gradient"}
    for name in ("respawn", "entropy", "kmeans"):
        assert {getattr(draw.codebook, name) is None for draw in draws} == {True, False}
    assert {draw.model.width for draw in draws if draw.model.kind == "conv"} == {64}
    assert all(draw.codebook.growth is None for draw in draws)


def test_the_full_space_has_every_technique_on_and_off() -> None:
    assert SPACES["full"].search.trials == 128
    draws = SPACES["full"].draw(400)
    techniques = {name for name, value in CodebookConfig().model_dump().items() if value is None}
    kinds = {"ema", "gradient", "simvq", "fsq", "lfq"}
    assert {draw.codebook.update.kind for draw in draws} == kinds
    assert {draw.model.kind for draw in draws} == {"conv", "hierarchical"}
    normalizations = {draw.codebook.normalization for draw in draws}
    assert {block.kind for block in normalizations if block} == {"batch", "layer"}
    for name in techniques:
        assert {getattr(draw.codebook, name) is None for draw in draws} == {True, False}, name
    for rate in ("warmup", "lr_final", "lr", "batch_size"):
        assert len({getattr(draw.training, rate) for draw in draws}) > 1


def test_the_full_space_never_proposes_what_the_config_refuses() -> None:
    space = SPACES["full"]
    assert len(space.draw(2000, seed=1)) == 2000  # each built and validated
    rng = random.Random(0)
    for _ in range(1000):  # of end points only, where what does not fit together lies
        values, _ = resolved(space, lambda _, parameter: rng.choice(parameter.ends()))
        TrialConfig.from_dict(values)


def resolved(space: Space, pick: Pick) -> tuple[dict[str, Any], list[str]]:
    seen: list[str] = []
    return resolve(space.tree, pick, seen=seen), seen


def test_every_parameter_of_the_full_space_reaches_the_config() -> None:
    """None is laid over by a branch: two values of any parameter are two configs."""
    space = SPACES["full"]
    for leaf in leaves(space.tree):
        if isinstance(leaf.node, Constant):
            continue
        configs = []
        for option in leaf.node.ends():
            pins = {**leaf.branch, leaf.name: option}
            values, _ = resolved(space, lambda name, node: pins.get(name, node.ends()[0]))  # noqa: B023
            configs.append(TrialConfig.from_dict(values))
        assert len({config.to_yaml() for config in configs}) == len(configs), leaf.name


@pytest.mark.parametrize("name", ["full", *(n for n in TECHNIQUES if n not in ("batch", "ema"))])
def test_what_is_drawn_quantizes(name: str) -> None:
    draws = {draw.codebook: draw for draw in SPACES[name].draw(60 if name == "full" else 4)}
    for codebook, draw in draws.items():
        quantizer = Quantizer([codebook], [draw.training.samples], SEEDS, CPU, torch.float32)
        z = torch.randn(1, 24, codebook.dim, requires_grad=True)
        found = quantizer.quantize(z, Clock(ZERO, ZERO + 16, ZERO + 1, SEEDS))
        assert found.z_q.shape == z.shape
        assert bool(found.z_q.isfinite().all())
        assert bool(found.loss.isfinite().all())
        quantizer.after_step(found, [0], [16])
        assert int(quantizer.look_up(z).max()) < codebook.size


def test_the_recipe_is_within_its_space() -> None:
    for draw in SPACES["recipe"].draw(64):
        assert draw.codebook.update.kind == "ema"
        assert draw.codebook.commitment.beta >= 2
        assert draw.training.batch_size * draw.data.clip_frames >= 256
        assert draw.codebook.respawn is not None
    assert {draw.codebook.entropy is None for draw in SPACES["recipe"].draw(64)} == {True, False}
    period = SPACES["recipe"].searched()["codebook.respawn.period"]
    threshold = SPACES["recipe"].searched()["codebook.respawn.threshold"]
    batches = SPACES["recipe"].searched()["training.batch_size"]
    assert isinstance(period, Range)
    assert isinstance(threshold, Range)
    for batch in batches.ends():
        assert isinstance(batch, int)
        steps = min(2000, SPACES["recipe"].baseline().training.samples / 2 / batch)
        assert period.low <= steps * batch <= period.high
        mean_use = 2000 * batch * 32 / 512  # of the codes, in 2,000 steps
        assert threshold.low <= 5 / mean_use <= threshold.high


@pytest.mark.parametrize("name", SHIPPED)
def test_the_baseline_is_plain(name: str) -> None:
    space = SPACES[name]
    baseline = space.baseline()
    codebook = baseline.codebook
    # Whatever is not named here is a technique, and off.
    assert codebook.model_dump() == dict.fromkeys(type(codebook).model_fields) | {
        "size": 512,
        "dim": 64,
        "update": {"kind": "gradient", "weight": 1.0, "lr_ratio": 1.0, "lr_final": 1.0},
        "commitment": {"beta": 0.25},
    }
    draw = space.draw(1)[0]
    assert baseline.data == draw.data
    assert baseline.model in [each.model for each in space.draw(32)]
    assert baseline.model.kind == "conv"
    assert baseline.evaluation == draw.evaluation
    expected = 64_000 if name == "recipe" else 24_000
    assert baseline.training.samples == draw.training.samples == expected
    shared = {"samples": expected, "reports": draw.training.reports}
    assert baseline.training == TrialConfig().training.model_copy(update=shared)


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
