from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from report_parts import example_run
from run_folder import RunFolder

from analysis.findings import Findings, find
from analysis.plots import draw
from analysis.records import read_run
from analysis.report.why import Why, sentence, signed, why

WEAK = "fANOVA explains little"
IMPORTANCE = [
    ("perplexity", "codebook.respawn.period", 0.1, 0.2, f"on in 9 trials; {WEAK}"),
    ("perplexity", "codebook.commitment.beta", 0.5, 0.3, WEAK),
    ("perplexity", "training.lr", 0.4, math.nan, WEAK),
    ("recon_loss", "training.lr", math.nan, 1.0, ""),
]
EFFECTS = [
    ("ema", "perplexity", 10.0, 5.0, 15.0),
    ("kmeans", "perplexity", -20.0, -30.0, -10.0),
    ("entropy", "perplexity", 4.0, -2.0, 10.0),
    ("ema", "recon_loss", -0.1, -0.2, -0.05),
    ("growth", "recon_loss", math.nan, math.nan, math.nan),
]
PAIRS = [("perplexity", "codebook.kmeans", "codebook.respawn", 0.3, 0.01)]


@pytest.fixture
def findings(run_folder: RunFolder) -> Findings:
    names = ("objective", "parameter", "ped_anova", "fanova", "note")
    curves = [
        (technique, on, samples, "perplexity", 100.0, 50.0, 150.0)
        for technique, sides in (("ema", (True, False)), ("growth", (True,)))
        for on in sides
        for samples in (250.0, 500.0)
    ]
    return replace(
        find(read_run(example_run(run_folder).path), None, None, None),
        importance=frame(IMPORTANCE, names),
        effects=frame(EFFECTS, ("technique", "objective", "effect", "low", "high"), on=9, off=8),
        interactions=frame(PAIRS, ("objective", "first", "second", "strength", "p")),
        curves=frame(
            curves, ("technique", "on", "samples", "metric", "median", "low", "high"), trials=9
        ),
    )


def frame(rows: list[Any], columns: tuple[str, ...], **more: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).assign(**more)


@pytest.fixture
def told(findings: Findings) -> Why:
    return why(findings)


def test_bars_are_in_order_with_what_is_known_of_each(told: Why) -> None:
    first, second = told.importance
    assert [bar.name for bar in first.bars] == ["commitment.beta", "training.lr", "respawn.period"]
    assert [bar.bar for bar in first.bars] == [100, 80, 20]
    assert [bar.tick for bar in first.bars] == [60, None, 40]
    assert [bar.note for bar in first.bars] == ["", "", "on in 9 trials"]
    assert first.note == "fANOVA explains little."
    assert second.bars[0].bar is None and second.bars[0].tick == 100


def test_effects_are_better_or_worse_only_where_the_interval_leaves_no_doubt(told: Why) -> None:
    perplexity, loss = told.effects
    assert [(effect.technique, effect.good) for effect in perplexity.effects] == [
        ("ema", "better"),
        ("entropy", "unsure"),
        ("kmeans", "worse"),
    ]
    assert loss.effects[0].good == "better"  # less loss
    assert loss.effects[0].told == "−0.1"
    assert told.untold == ("growth",)


def test_pairs_and_curves_of_both_sides_are_drawn(told: Why) -> None:
    [pair] = told.pairs["perplexity"]
    assert (pair.first, pair.second, pair.told, pair.chance) == (
        *("kmeans", "respawn"),
        *("30%", "p 0.01"),
    )
    [chart] = told.curves["perplexity"]
    assert chart.technique == "ema"
    assert [band.on for band in chart.bands] == [False, True]


def test_the_pictures_of_why_are_drawn(findings: Findings, tmp_path: Path) -> None:
    written = {path.name: Image.open(path).size for path in draw(findings, tmp_path)}
    assert written["importance.png"] == (1170, 450)
    assert written["effects.png"] == (1080, 261)
    assert written["techniques.png"] == (450, 292)


def test_words_for_differences_and_notes() -> None:
    assert [signed("perplexity", v) for v in (12.0, -3.0, math.nan)] == ["+12.0", "−3.0", "–"]
    assert signed("recon_loss", 0.01234) == "+0.012"
    assert [sentence(text) for text in ("", "so it is")] == ["", "So it is."]
