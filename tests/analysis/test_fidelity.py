"""At which number of samples trials are compared, and with what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from run_folder import RunFolder

from analysis.fidelity import Comparison, comparison, measured
from analysis.records import read_run


def compared(folder: RunFolder, metric: str) -> Comparison:
    records = read_run(folder.path)
    return comparison(records, measured(records), metric)


def rungs(folder: RunFolder, *reached: float, first: int = 0, **more: Any) -> None:
    """A trial for each last number of samples; all report every 250 samples, their perplexity
    being their number plus a thousandth of the samples.
    """
    for number, last in enumerate(reached, start=first):
        reports: list[dict[str, Any]] = [
            {"samples": samples, "perplexity": number + samples / 1000, **more}
            for samples in np.arange(250, last + 1, 250).tolist()
        ]
        reports[-1]["done"] = True
        folder.trial(f"t{number:03}", *reports)


def test_the_latest_number_of_samples_that_a_third_have_reached(run_folder: RunFolder) -> None:
    rungs(run_folder, *[250] * 40, *[500] * 25, *[1000] * 25)
    found = compared(run_folder, "perplexity")
    assert (found.samples, len(found.values)) == (500, 50)
    assert found.note == "50 of 90 trials came to 50% of the samples; perplexity is usage x codes"
    assert found.values["t040"] == 40.5
    assert "usage" not in compared(run_folder, "recon_loss").note


def test_at_full_budget_there_is_nothing_to_note(run_folder: RunFolder) -> None:
    rungs(run_folder, *[1000] * 5)
    found = compared(run_folder, "perplexity")
    assert (found.samples, len(found.values), found.note) == (1000, 5, "")


def test_few_trials_are_compared_where_all_of_them_are(run_folder: RunFolder) -> None:
    rungs(run_folder, *[250] * 8, *[1000] * 15)
    assert compared(run_folder, "perplexity").samples == 250


def test_batches_that_do_not_divide_the_samples_report_together(run_folder: RunFolder) -> None:
    for number, batch in enumerate((8, 16, 48, 64)):
        samples = [math.ceil(at / batch) * batch for at in (250, 500, 750, 1000)]
        run_folder.trial(f"t{number}", *({"samples": value} for value in samples))
    table = measured(read_run(run_folder.path))
    assert table["samples"].value_counts().to_dict() == {256: 4, 504: 4, 752: 4, 1000: 4}


def test_a_codebook_that_has_yet_to_grow_is_taken_for_what_it_heads_for(
    run_folder: RunFolder,
) -> None:
    run_folder.trial("small", {"samples": 1000, "perplexity": 48.0, "usage": 0.75, "codes": 512})
    run_folder.trial("old", {"samples": 1000, "perplexity": 48.0})
    assert compared(run_folder, "perplexity").values.to_dict() == {"small": 384.0, "old": 48.0}


def test_what_diverged_has_no_value_and_is_counted(run_folder: RunFolder) -> None:
    rungs(run_folder, 1000, 1000)
    nan = math.nan
    run_folder.trial("nan", {"samples": 1000, "recon_loss": nan, "diverged": True, "done": True})
    late = [{"samples": 500}, {"samples": 1000, "perplexity": 7.0, "diverged": True, "done": True}]
    run_folder.trial("late", *late)
    found = compared(run_folder, "perplexity")
    assert sorted(found.values.index) == ["late", "t000", "t001"]
    assert found.samples == 500
    assert found.note.endswith("1 diverged before")


def test_the_baseline_and_ablations_are_left_out(run_folder: RunFolder) -> None:
    for role in ("baseline", "ablation", "search"):
        run_folder.complete(role, 40.0, 0.5, role=role)
    assert list(compared(run_folder, "perplexity").values.index) == ["search"]


@pytest.mark.parametrize("trials", [[], [[]], [[{"samples": 1000, "perplexity": math.inf}]]])
def test_nothing_to_compare(run_folder: RunFolder, trials: list[list[dict[str, Any]]]) -> None:
    for number, reports in enumerate(trials):
        run_folder.trial(f"t{number}", *reports)
    found = compared(run_folder, "perplexity")
    assert math.isnan(found.samples)
    assert found.values.empty
    assert found.note.startswith("no trial has perplexity")
