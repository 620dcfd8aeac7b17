"""Runs with little in them: each section shows what there is, or says why not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from report_parts import Page, confirmed_table, specimen, written
from run_folder import RunFolder

from analysis.specimen import Specimens

ROWS = {"role": "baseline"}
NAN: dict[str, Any] = {"perplexity": math.nan, "recon_loss": math.nan}


def nothing(run: RunFolder) -> None:
    pass


def one_running(run: RunFolder) -> None:
    run.trial("t1", {"samples": 100})


def no_report(run: RunFolder) -> None:
    run.trial("t1")


def only_baseline(run: RunFolder) -> None:
    run.complete("baseline", 20.0, 0.5, **ROWS)


def one_trial_without_baseline(run: RunFolder) -> None:
    run.complete("t1", 20.0, 0.5)


def all_diverged(run: RunFolder) -> None:
    for i in range(3):
        run.trial(
            f"t{i}", {"samples": 500}, {"samples": 600, "diverged": True, "done": True, **NAN}
        )


def all_nan(run: RunFolder) -> None:
    run.trial("baseline", {"samples": 1000, "done": True, **NAN}, **ROWS)
    run.trial("t1", {"samples": 1000, "done": True, **NAN})


def failed(run: RunFolder) -> None:
    (run.trial("t1") / "error.txt").write_text("Traceback\nOSError: gone\n")


def truncated(run: RunFolder) -> None:
    only_baseline(run)
    folder = run.complete("t1", 200.0, 0.4)
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text + text[: len(text) // 2])
    (run.trial("t2") / "params.json").write_text("{")


def equal_values(run: RunFolder) -> None:
    only_baseline(run)
    for i in range(4):
        run.complete(f"t{i}", 20.0, 0.5)


def no_metric_but_objectives(run: RunFolder) -> None:
    """Of a search for another metric, with the others not a number."""
    run.spec(objectives={"usage": "max"})
    run.complete("baseline", math.nan, math.nan, **ROWS)
    run.complete("t1", math.nan, math.nan)


def bare_spec(run: RunFolder) -> None:
    (run.path / "spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    only_baseline(run)
    run.complete("t1", 200.0, 0.4)


LITTLE = [
    nothing,
    one_running,
    no_report,
    only_baseline,
    one_trial_without_baseline,
    all_diverged,
    all_nan,
    failed,
    truncated,
    equal_values,
    no_metric_but_objectives,
    bare_spec,
]


@pytest.mark.parametrize("made", LITTLE)
def test_there_is_a_page_whatever_there_is(run_folder: RunFolder, made: Any) -> None:
    made(run_folder)
    page = Page(written(run_folder))
    headings = " ".join(page.text.split())
    for title in ("Which config", "The front", "Learning curves", "Inside the codebook", "Why"):
        assert title in headings
    assert "nan" not in page.text.lower().replace("finance", "")
    assert len(page.all("h1")) == 1


def test_it_says_what_is_not_there(run_folder: RunFolder) -> None:
    page = Page(written(run_folder))
    assert "This run has no trials yet." in page.text
    assert "there is no config to choose yet" in page.text
    assert "There is no front" in page.text
    assert "There are no curves" in page.text
    assert "Nobody has looked into the codebooks" in page.text
    assert page.text.count("Not told:") == 2


def test_lost_trials_are_told_with_their_reasons(run_folder: RunFolder) -> None:
    all_diverged(run_folder)
    failed(RunFolder(run_folder.path / "other"))  # a folder that is no trial of this run
    truncated_params = run_folder.trial("t9") / "params.json"
    truncated_params.write_text("{")
    page = Page(written(run_folder))
    assert "3 diverged" in page.text
    assert "params.json: not valid JSON" in page.text


@pytest.mark.parametrize(
    "more",
    [
        {"histograms": (np.zeros(512, dtype=int),)},
        {"latents": np.full((10, 2), np.nan)},
        {"codebook": np.full((512, 2), np.nan)},
        {"latents": np.zeros((10, 2)), "codebook": np.zeros((512, 2))},
        {"code_use": np.zeros(512, dtype=int)},
        {"inputs": (), "outputs": ()},
        {"outputs": (np.full((80, 64), np.nan),) * 3},
        {"audio": ()},
    ],
)
def test_broken_specimens_leave_the_page_whole(run_folder: RunFolder, more: Any) -> None:
    only_baseline(run_folder)
    found = Specimens((specimen("baseline", "baseline", 21, **more),), "spectrogram", "a note")
    assert "a note" in Page(written(run_folder, specimens=found)).text


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (8, 8)), ("image", (8, 8, 3)), ("series", (3, 50)), ("spectrogram", (80, 20))],
)
def test_every_kind_of_example_is_drawn(run_folder: RunFolder, kind: Any, shape: Any) -> None:
    only_baseline(run_folder)
    example = np.random.default_rng(0).normal(size=shape)
    one = specimen("baseline", "baseline", 21, inputs=(example,), outputs=(example,), audio=())
    assert len(Page(written(run_folder, specimens=Specimens((one,), kind, ""))).all("img")) == 2


def test_an_empty_confirmation_is_no_section(run_folder: RunFolder) -> None:
    only_baseline(run_folder)
    table = confirmed_table([("t1", "search", 1.0, 1.0)]).iloc[:0]
    assert "Confirmed beside searched" not in Page(written(run_folder, confirmed=table)).text
