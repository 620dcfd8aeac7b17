from __future__ import annotations

from report_parts import Page, many_trials, specimens, written
from run_folder import RunFolder


def test_a_page_of_200_trials_with_sound_is_below_5_mb(run_folder: RunFolder) -> None:
    run = many_trials(run_folder, 200, 16)
    found = specimens(["baseline", "t0003", "t0006", "t0009"], seconds=3.0)
    html = written(run, specimens=found)
    assert len(html.encode()) < 5e6
    page = Page(html)
    assert len(page.all("audio")) == 15
    curves = [a for a in page.all("path") if "curve" in (a.get("class") or "")]
    assert len(curves) == 2 * 200
