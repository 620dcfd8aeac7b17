"""The table of an ablation, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from run_folder import RunFolder

from analysis.ablation import COLUMNS, ablation_rows, ablation_table, headlines, notes
from analysis.errors import RunError
from analysis.ranking import front_table
from analysis.records import Records, read_run


def variant(name: str, trials: str | None = None) -> dict[str, str]:
    kind, _, technique = name.partition("-")
    return {"name": name, "kind": kind, "technique": technique, "trials": trials or name}


NAMES = ("config", "baseline", "without-ema", "without-respawn", "only-ema", "only-respawn")
ASKED: dict[str, Any] = {
    "config": {},
    "seeds": [5, 6, 7],
    "variants": [variant(name) for name in NAMES],
    "refused": [],
}
# (perplexity, recon_loss) with the seeds 5, 6 and 7.
ENDS = {
    "config": [(400.0, 0.10), (410.0, 0.11), (420.0, 0.12)],
    "baseline": [(10.0, 0.20), (12.0, 0.22), (14.0, 0.24)],
    "without-ema": [(398.0, 0.09), (409.0, 0.10), (420.0, 0.11)],
    "without-respawn": [(100.0, 0.15), (120.0, 0.15), (140.0, 0.15)],
    "only-ema": [(11.0, 0.19), (12.0, 0.20), (13.0, 0.21)],
    "only-respawn": [(210.0, 0.14), (212.0, 0.16), (214.0, 0.18)],
}


def made(
    run_folder: RunFolder, ends: dict[str, list[tuple[float, float]]] | None = None, **asked: Any
) -> Records:
    """A run in which every trial is complete; active codes are 2 above the perplexity."""
    run_folder.spec(ablation=ASKED | asked)
    for name, results in (ends or ENDS).items():
        for seed, (perplexity, recon_loss) in zip((5, 6, 7), results, strict=False):
            fields = {"samples": 1000, "perplexity": perplexity, "recon_loss": recon_loss}
            fields |= {"active_codes": perplexity + 2, "usage": perplexity / 500, "done": True}
            role = "baseline" if (name, seed) == ("baseline", 5) else "ablation"
            run_folder.trial(f"{name}-s{seed}", fields, role=role)
    return read_run(run_folder.path)


def row(table: pd.DataFrame, name: str) -> dict[str, Any]:
    return {str(k): v for k, v in table.set_index("variant").loc[name].items()}


def test_means_deviations_and_changes_are_those_of_the_seeds(run_folder: RunFolder) -> None:
    table = ablation_table(made(run_folder))
    assert tuple(table.columns) == COLUMNS
    without = row(table, "without-respawn")
    assert (without["kind"], without["technique"]) == ("without", "respawn")
    assert (without["seeds"], without["seeds_complete"]) == (3, 3)
    expected = {
        "perplexity": 120,
        "perplexity_sd": 20,
        "active_codes": 122,
        "active_codes_sd": 20,
        "recon_loss": 0.15,
        "recon_loss_sd": 0,
        "usage": 0.24,
        "usage_sd": 0.04,
        # -300, -290 and -280 from the config; 0.05, 0.04 and 0.03.
        "perplexity_change": -290,
        "perplexity_change_sd": 10,
        "active_codes_change": -290,
        "active_codes_change_sd": 10,
        "recon_loss_change": 0.04,
        "recon_loss_change_sd": 0.01,
        "usage_change": -0.58,
        "usage_change_sd": 0.02,
    }
    assert {name: without[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    only = row(table, "only-ema")  # from the baseline: 1, 0 and -1; -0.01, -0.02 and -0.03
    assert only["perplexity_change"] == pytest.approx(0)
    assert only["perplexity_change_sd"] == pytest.approx(1)
    assert only["recon_loss_change"] == pytest.approx(-0.02)
    for end in ("config", "baseline"):
        assert math.isnan(row(table, end)["perplexity_change"])
        assert math.isnan(row(table, end)["recon_loss_change_sd"])


def test_the_largest_effect_comes_first_in_each_kind(run_folder: RunFolder) -> None:
    table = ablation_table(made(run_folder))
    assert table["variant"].tolist() == [
        *("config", "without-respawn", "without-ema"),
        *("baseline", "only-respawn", "only-ema"),
    ]


def test_the_rows_of_a_terminal(run_folder: RunFolder) -> None:
    headers, rows = ablation_rows(ablation_table(made(run_folder)))
    assert headers[-2:] == ["Δ perplexity", "Δ recon_loss"]
    assert rows[0] == ["config", "3", "410.0 ± 10.0", "412", "0.11 ± 0.01", "–", "–"]
    assert rows[1] == [
        *("without-respawn", "3", "120.0 ± 20.0", "122", "0.15 ± 0"),
        *("-290.0 ± 10.0", "+0.04 ± 0.01"),
    ]


def test_the_headlines_name_the_largest_effects(run_folder: RunFolder) -> None:
    assert headlines(ablation_table(made(run_folder))) == [
        "Taken away, respawn costs most: perplexity 410.0 -> 120.0 (-290.0 ± 10.0), "
        "recon_loss 0.11 -> 0.15",
        "On its own, respawn gives most: perplexity 12.0 -> 212.0 (+200.0 ± 0.0), "
        "recon_loss 0.22 -> 0.16",
    ]


def test_what_does_no_good_is_not_praised(run_folder: RunFolder) -> None:
    ends = {**ENDS, "without-respawn": [(500.0, 0.1)] * 3, "only-respawn": [(9.0, 0.3)] * 3}
    ends |= {"without-ema": ENDS["config"], "only-ema": ENDS["baseline"]}
    assert headlines(ablation_table(made(run_folder, ends))) == [
        "Taken away, none costs perplexity",
        "On its own, none gives perplexity",
    ]


def test_seeds_that_did_not_end_well_are_counted_and_named(run_folder: RunFolder) -> None:
    """Changes are between the seeds that are complete on both sides."""
    ends = {**ENDS, "without-respawn": ENDS["without-respawn"][:1], "only-ema": []}
    ends["config"] = ENDS["config"][:2]
    made(run_folder, ends)
    diverged = {"samples": 500, "perplexity": math.nan, "diverged": True, "done": True}
    run_folder.trial("without-respawn-s6", diverged | {"reason": "diverged: not finite"})
    failed = run_folder.trial("config-s7")
    (failed / "error.txt").write_text("Traceback\nRuntimeError: out of memory\n")
    run_folder.trial("only-ema-s5", {"samples": 500})
    records = read_run(run_folder.path)
    table = ablation_table(records)
    assert row(table, "config")["seeds_complete"] == 2
    without = row(table, "without-respawn")
    assert (without["seeds"], without["seeds_complete"]) == (3, 1)
    assert (without["perplexity"], without["perplexity_change"]) == (100, -300)
    assert math.isnan(without["perplexity_change_sd"])
    # -2 and -1: with seed 7 the config failed.
    assert row(table, "without-ema")["perplexity_change"] == pytest.approx(-1.5)
    assert row(table, "without-ema")["perplexity"] == pytest.approx(409)
    assert table["variant"].iloc[-1] == "only-ema"  # nothing is known of it
    _, rows = ablation_rows(table)
    assert rows[1] == [
        *("without-respawn", "1 of 3", "100.0", "102", "0.15", "-300.0", "+0.05"),
    ]
    assert rows[-1] == ["only-ema", "0 of 3", "–", "–", "–", "–", "–"]
    assert notes(records) == [
        "Not counted: config-s7, RuntimeError: out of memory",
        "Not counted: without-respawn-s6, diverged: not finite",
        "Not counted: without-respawn-s7, not started",
        "Not counted: only-ema-s5, running",
        "Not counted: only-ema-s6, not started",
        "Not counted: only-ema-s7, not started",
    ]


def test_a_shared_variant_has_the_numbers_of_the_one_that_was_trained(
    run_folder: RunFolder,
) -> None:
    """With one technique, without it is the baseline, and it alone the config."""
    variants = [variant("config"), variant("baseline")]
    variants += [variant("without-ema", "baseline"), variant("only-ema", "config")]
    ends = {name: ENDS[name] for name in ("config", "baseline")}
    records = made(run_folder, ends, variants=variants, refused=["only-x: y: no"])
    table = ablation_table(records)
    assert row(table, "without-ema")["perplexity"] == 12
    assert row(table, "without-ema")["perplexity_change"] == -398
    assert row(table, "only-ema")["perplexity_change"] == 398
    assert notes(records) == [
        "Trained once: without-ema is the same config as baseline",
        "Trained once: only-ema is the same config as config",
        "Left out, refused: only-x: y: no",
    ]


def test_one_seed_has_no_deviation(run_folder: RunFolder) -> None:
    ends = {name: results[:1] for name, results in ENDS.items()}
    table = ablation_table(made(run_folder, ends, seeds=[5]))
    assert table.filter(like="_sd").isna().all(axis=None)
    _, rows = ablation_rows(table)
    assert rows[1][1:] == ["1", "100.0", "102", "0.15", "-300.0", "+0.05"]
    assert headlines(table)[0].endswith("400.0 -> 100.0 (-300.0), recon_loss 0.1 -> 0.15")


def test_nothing_is_known_before_the_first_trial(run_folder: RunFolder) -> None:
    run_folder.spec(ablation=ASKED)
    records = read_run(run_folder.path)
    table = ablation_table(records)
    assert table["seeds_complete"].tolist() == [0] * 6
    assert headlines(table) == []
    assert len(notes(records)) == 18


def test_the_front_of_an_ablation_is_set_against_its_baseline(run_folder: RunFolder) -> None:
    front = front_table(made(run_folder)).set_index("trial_id")
    assert front[front["role"] == "baseline"].index.tolist() == ["baseline-s5"]
    assert front.loc["without-ema-s7", "perplexity_x"] == 42


@pytest.mark.parametrize("spec", [{}, {"ablation": None}, {"ablation": "x"}])
def test_a_search_is_no_ablation(spec: dict[str, Any], run_folder: RunFolder) -> None:
    run_folder.spec(**spec)
    with pytest.raises(RunError, match=r"spec.yaml: ablation: found .*, allowed: what an ablation"):
        ablation_table(read_run(run_folder.path))
