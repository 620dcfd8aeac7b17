"""Writes the page and its pictures: each section is made by a file of this package."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.findings import Findings, find
from analysis.plots import draw
from analysis.records import Records
from analysis.report.commands import Commands
from analysis.report.confirmation import confirmation
from analysis.report.curves_chart import curves_charts
from analysis.report.front_chart import front_chart
from analysis.report.headline import headline
from analysis.report.inside import inside
from analysis.report.measured import measured
from analysis.report.tables import ranking_rows
from analysis.report.why import why
from analysis.specimen import Specimens
from analysis.terms import Terms
from analysis.whole_file import write_whole

_TOP = 5


def write_report(
    records: Records,
    specimens: Specimens | None,
    out: Path,
    *,
    commands: Commands,
    confirmed: pd.DataFrame | None,
    wandb_urls: Mapping[str, str],
    asked: Terms | None = None,
) -> Path:
    """Write `out`/report.html and `out`/report/*.png, each whole or not at all.

    Args:
        records: the run.
        specimens: what is inside the baseline's and the best trials' codebooks, where it is known.
        out: the folder to write into, commonly the run's own.
        commands: what the reader is told to run.
        confirmed: the table of `analysis.confirmed`, where the finalists were retrained.
        wandb_urls: addresses of the trials' W&B runs by trial_id, as far as they are known.
        asked: terms to rank under; None for those of the search.

    Returns:
        The path of the page.

    """
    return write_findings(find(records, specimens, confirmed, asked), out, commands, wandb_urls)


def write_findings(
    findings: Findings, out: Path, commands: Commands, wandb_urls: Mapping[str, str]
) -> Path:
    """Write the page and the pictures of what was found; see `write_report`."""
    files = draw(findings, out / "report")
    page = out / "report.html"
    html = render(findings, commands, wandb_urls, [path.name for path in files])
    write_whole(page, html.encode("utf-8"))
    return page


def render(
    findings: Findings,
    commands: Commands,
    wandb_urls: Mapping[str, str],
    files: list[str],
) -> str:
    """Make the page's HTML; `files` are the names of the pictures beside it."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style, script = (_asset(environment, name) for name in ("style.css", "script.js"))
    rows = ranking_rows(findings, wandb_urls)
    top = [row for row in rows[:_TOP] if row.part != "baseline"]
    top += [row for row in rows if row.part == "baseline"]
    front = front_chart(findings, wandb_urls)
    confirmed = confirmation(findings)
    parts = {point.part for point in front.points} if front else set()
    values: dict[str, Any] = {
        "name": findings.records.run.name,
        "style": style,
        "script": script,
        "script_hash": _hash(script),
        "headline": headline(findings),
        "sections": _sections(confirmed is not None),
        "findings": findings,
        "commands": commands,
        "top": top,
        "more": f"{len(rows)} trials are ranked in all." if len(rows) > len(top) else "",
        "configs": _configs(findings),
        "front": front,
        "has_front": "front" in parts,
        "has_other": "other" in parts,
        "ranking": rows,
        "confirmation": confirmed,
        "curves": curves_charts(findings),
        "inside": inside(findings),
        "why": why(findings),
        "measured": measured(findings, wandb_urls),
        "files": files,
    }
    return environment.get_template("page.html").render(values)


def _asset(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)


def _hash(script: str) -> str:
    """What the page's policy names its one script by, so that no other one can run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _sections(confirmed: bool) -> list[tuple[str, str]]:
    sections = [
        ("choice", "Which config"),
        ("front", "The front"),
        ("confirmed", "Confirmed"),
        ("curves", "Learning curves"),
        ("inside", "Inside the codebook"),
        ("why", "Why"),
        ("measured", "How it was measured"),
    ]
    return [section for section in sections if confirmed or section[0] != "confirmed"]


def _configs(findings: Findings) -> list[dict[str, str]]:
    configs = findings.records.configs
    return [
        {
            "title": part.title,
            "text": yaml.safe_dump(configs[part.trial_id], sort_keys=False, allow_unicode=True),
        }
        for part in findings.cast
    ]
