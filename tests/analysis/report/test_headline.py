from __future__ import annotations

from report_parts import confirmed_table, example_run
from run_folder import RunFolder

from analysis.findings import find
from analysis.records import read_run
from analysis.report.headline import Headline, headline


def headline_of(folder: RunFolder, **more: object) -> Headline:
    confirmed = more.get("confirmed")
    return headline(find(read_run(folder.path), None, confirmed, None))  # type: ignore[arg-type]


def test_it_tells_the_best_against_the_baseline(run_folder: RunFolder) -> None:
    told = headline_of(example_run(run_folder))
    assert told.sentence == (
        "t0013 uses 508 of 512 codes where the plain VQ-VAE uses 21: perplexity 412 against "
        "14.5, at 0.46 of its reconstruction loss."
    )
    assert told.details == (
        "It holds recon_loss <= 1*baseline, as 3 of 4 complete trials do.",
        "Not yet confirmed with other seeds: each number is of one training.",
    )
    assert told.run.startswith("demo: 6 trials (4 complete, 1 stopped, 1 failed); 1,000 samples")


def test_what_is_confirmed_is_told_with_its_deviation(run_folder: RunFolder) -> None:
    table = confirmed_table([("t0013", "search", 412.0, 400.0)])
    told = headline_of(example_run(run_folder), confirmed=table)
    assert told.details[-1] == (
        "Confirmed with 3 new seeds: perplexity 400 ± 8, recon_loss 0.24 ± 0.0048; on the front "
        "with a probability of 70%."
    )


def test_another_trial_that_the_means_put_first_is_named(run_folder: RunFolder) -> None:
    rows = [("t0002", "search", 300.0, 390.0), ("t0013", "search", 412.0, 350.0)]
    told = headline_of(example_run(run_folder), confirmed=confirmed_table(rows))
    assert told.details[-1].endswith("probability of 70%. By the means t0002 ranks first.")


def test_a_confirmation_of_others_confirms_nothing(run_folder: RunFolder) -> None:
    table = confirmed_table([("t0002", "search", 300.0, 290.0)])
    assert "Not yet" in headline_of(example_run(run_folder), confirmed=table).details[-1]


def test_without_a_baseline_nothing_is_compared(run_folder: RunFolder) -> None:
    run_folder.complete("t1", 200.0, 0.4)
    told = headline_of(run_folder)
    assert told.sentence == "t1 uses 50 codes: perplexity 200 at recon_loss 0.4."
    assert "nothing to compare with" in told.details[0]


def test_a_baseline_that_is_not_beaten_ranks_first(run_folder: RunFolder) -> None:
    run_folder.complete("baseline", 200.0, 0.4, role="baseline")
    run_folder.complete("t1", 100.0, 0.5)
    told = headline_of(run_folder)
    assert told.sentence.startswith("The baseline ranks first; behind it, t1 uses")
    assert told.details[0].startswith("It does not hold recon_loss")


def test_only_the_baseline(run_folder: RunFolder) -> None:
    run_folder.complete("baseline", 200.0, 0.4, role="baseline")
    run_folder.trial("t1", {"samples": 100})
    assert headline_of(run_folder).sentence.startswith("Only the baseline has reached its full")


def test_nothing_at_all(run_folder: RunFolder) -> None:
    told = headline_of(run_folder)
    assert told.sentence == "This run has no trials yet."
    assert told.run.startswith("demo: no trials yet")
