"""What `vqtune train` prints: a training's metrics, and how several seeds bear out a claim."""

from __future__ import annotations

import statistics
from typing import Any, Literal

import click
from rich.console import Console

from analysis.claim import RULE, held_against

# Of a training's last report, and which way is better.
_SHOWN: dict[str, Literal["max", "min"]] = {
    "perplexity": "max",
    "active_codes": "max",
    "usage": "max",
    "bits_per_frame": "max",
    "recon_loss": "min",
}


def print_metrics(report: dict[str, Any], claim: dict[str, Any], console: Console) -> None:
    """A training's last report, beside what its config was exported with."""
    if report["diverged"]:
        click.echo(report["reason"])
        return
    for name in _SHOWN:
        line = f"{name:15} {report[name]!r}"
        if name in claim:
            same = report[name] == claim[name]
            line += "   as exported" if same else f"   exported with {claim[name]!r}"
        console.print(line, highlight=False)


def print_spread(reports: list[dict[str, Any]]) -> None:
    """Means and deviations over trainings with several seeds."""
    finite = [report for report in reports if not report["diverged"]]
    click.echo(f"{len(finite)} of {len(reports)} seeds ended well; mean ± deviation:")
    for name in _SHOWN:
        values = [report[name] for report in finite]
        if len(values) > 1:
            click.echo(f"{name:15} {statistics.mean(values):.5g} ± {statistics.stdev(values):.2g}")


def print_claims(claim: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Whether an exported config's claim holds with other seeds than its own."""
    finite = [report for report in others if not report["diverged"]]
    claimed = {name: claim[name] for name in _SHOWN if isinstance(claim.get(name), (int, float))}
    if not claimed:
        return
    if not finite:
        click.echo("The exported claim is not held against anything: no other seed ended well")
        return
    told = f"the {len(finite)} other seeds ({RULE})" if len(finite) > 1 else "the one other seed"
    click.echo(f"The exported claim against {told}:")
    verdicts = {
        name: held_against(value, [report[name] for report in finite], _SHOWN[name])
        for name, value in claimed.items()
    }
    for name, verdict in verdicts.items():
        mean = f"{verdict.mean:.5g}"
        if len(finite) > 1:
            mean += f" ± {verdict.deviation:.2g}"
        click.echo(f"{name:15} claimed {verdict.claimed:<10.5g} found {mean:22} {verdict}")
    if len(finite) > 1:
        unmet = [name for name, verdict in verdicts.items() if verdict.met is False]
        met = f"met, as far as {len(finite)} seeds tell"
        click.echo(f"The exported claim is {'not met in ' + ', '.join(unmet) if unmet else met}")
