from __future__ import annotations

import pandas as pd

from analysis.cast import Cast


def ranked(*trials: tuple[str, str]) -> pd.DataFrame:
    rows = [
        {"position": i, "trial_id": trial_id, "role": role}
        for i, (trial_id, role) in enumerate(trials, start=1)
    ]
    return pd.DataFrame(rows, columns=["position", "trial_id", "role"])


def test_the_baseline_stands_first_and_the_top_three_follow_by_their_positions() -> None:
    cast = Cast(
        ranked(
            ("t1", "search"),
            ("base", "baseline"),
            ("t2", "search"),
            ("t3", "search"),
            ("t4", "search"),
        )
    )
    assert [(part.trial_id, part.name, part.tag) for part in cast] == [
        ("base", "baseline", "b"),
        ("t1", "first", "1"),
        ("t2", "second", "3"),
        ("t3", "third", "4"),
    ]
    assert cast.get("t4") is None
    part = cast.get("t1")
    assert part is not None and part.title == "No. 1: t1"


def test_nobody_is_cast_from_nothing() -> None:
    assert list(Cast(ranked())) == []
