"""Writes the page and its pictures: each section is made by a file of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment

from analysis.records import Records
from analysis.report.commands import Commands
from analysis.specimen import Specimens

_PAGE = "<!doctype html><html lang=en><meta charset=utf-8><title>{{ t }}</title><h1>{{ t }}</h1>"


def write_report(
    records: Records,
    specimens: Specimens | None,
    out: Path,
    *,
    commands: Commands,
    confirmed: pd.DataFrame | None,
    wandb_urls: Mapping[str, str],
) -> Path:
    """Write `out`/report.html and `out`/report/*.png, each whole or not at all.

    Args:
        records: the run.
        specimens: what is inside the baseline's and the best trials' codebooks, where it is known.
        out: the folder to write into, commonly the run's own.
        commands: what the reader is told to run.
        confirmed: the table of `analysis.confirmed`, where the finalists were retrained.
        wandb_urls: addresses of the trials' W&B runs by trial_id, as far as they are known.

    Returns:
        The path of the page.

    """
    page = out / "report.html"
    html = Environment(autoescape=True).from_string(_PAGE).render(t=records.run.name)
    part = page.with_name(page.name + ".part")
    part.write_text(html, encoding="utf-8")
    part.replace(page)
    return page
