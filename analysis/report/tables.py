"""The ranking as text: rows of the page's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.findings import Findings
from analysis.report.numbers import is_number, metric, number


@dataclass(frozen=True)
class Row:
    """A complete trial; `part` and `tag` are those of its mark, or `other` and empty."""

    position: str
    trial_id: str
    part: str
    tag: str
    url: str
    perplexity: str
    perplexity_x: str
    recon_loss: str
    recon_loss_x: str
    active: str
    on_front: bool
    reason: str
    technique: str


def ranking_rows(findings: Findings, wandb_urls: Mapping[str, str]) -> list[Row]:
    """Format the ranking, the best first."""
    rows = []
    for row in findings.rows:
        part, tag = findings.cast.mark(row["trial_id"])
        rows.append(
            Row(
                position=str(row["position"]),
                trial_id=str(row["trial_id"]),
                part=part,
                tag=tag,
                url=safe_url(wandb_urls, row["trial_id"]),
                perplexity=metric("perplexity", row["perplexity"]),
                perplexity_x=times(row["perplexity_x"], ".1f"),
                recon_loss=metric("recon_loss", row["recon_loss"]),
                recon_loss_x=times(row["recon_loss_x"], ".2f"),
                active=metric("active_codes", row["active_codes"]),
                on_front=bool(row["on_front"]),
                reason=str(row["reason"]),
                technique="the baseline" if part == "baseline" else str(row["technique"]),
            )
        )
    return rows


def times(value: Any, form: str) -> str:
    """A ratio to the baseline's value; nothing where it is not known."""
    return f"× {number(value, form)}" if is_number(value) else ""


def safe_url(wandb_urls: Mapping[str, str], trial_id: str) -> str:
    """The address of a trial's W&B run if it is one of the web, else nothing."""
    url = wandb_urls.get(trial_id, "")
    return url if url.startswith(("https://", "http://")) else ""
