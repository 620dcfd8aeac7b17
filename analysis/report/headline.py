"""The first sentences: how far from the baseline to the best, under which constraint, how sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.confirmed_text import choice, probability
from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.report.numbers import count, duration, is_number, metric, number, spread

_STATES = ("complete", "stopped", "diverged", "failed", "running")


@dataclass(frozen=True)
class Headline:
    """The sentence, what stands behind it, and the run in one line."""

    sentence: str
    details: tuple[str, ...]
    run: str


def headline(findings: Findings) -> Headline:
    """Say what a run found; also of a run that found nothing."""
    best, baseline = findings.best, findings.baseline
    details: list[str] = []
    if best is None:
        sentence = _nothing(findings)
    else:
        first = findings.ranked["role"].iloc[0]
        if first == "baseline":
            sentence = f"The baseline ranks first; behind it, {_comparison(best, baseline)}."
        else:
            sentence = f"{_comparison(best, baseline)}."
        if baseline is None:
            details.append("The baseline did not complete, so there is nothing to compare with.")
        details += _constraint(findings, best)
        details.append(_sureness(findings, best))
    return Headline(sentence, tuple(details), run_line(findings))


def run_line(findings: Findings) -> str:
    """The run in one line: trials by state, budget, data, seed, when, compute."""
    records, spec = findings.records, findings.records.spec
    counts = Counter(records.trials["state"])
    states = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    parts = [f"{count(len(records.trials), 'trial')} ({states})" if states else "no trials yet"]
    if is_number(spec.get("samples")):
        parts.append(f"{spec['samples']:,} samples each at full budget")
    if "data" in spec or _data_kind(spec):
        parts.append(f"data {spec.get('data') or _data_kind(spec) or 'as in the space'}")
    parts += [f"{name} {spec[name]}" for name in ("seed",) if spec.get(name) is not None]
    if spec.get("created"):
        parts.append(f"started {str(spec['created']).replace('T', ' ')[:16]}")
    spent = float(records.trials["seconds"].sum())
    gpu = float(records.trials["gpu_seconds"].sum())
    if spent > 0:
        on_gpu = f", {duration(gpu)} of it on GPUs" if gpu > 0 else ""
        parts.append(f"{duration(spent)} of training{on_gpu}")
    return f"{records.run.name}: {'; '.join(parts)}."


def _data_kind(spec: Mapping[str, Any]) -> str | None:
    data: Any = spec.get("space")
    for key in ("parameters", "data", "kind"):
        data = data.get(key) if isinstance(data, Mapping) else None
    return str(data) if isinstance(data, str) else None


def _comparison(best: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    """Tell the best trial's codes, perplexity and loss, against the baseline's if it is there."""
    codes = metric("active_codes", best["active_codes"])
    of = f" of {metric('codes', best['codes'])}" if is_number(best.get("codes")) else ""
    said = f"{best['trial_id']} uses {codes}{of} codes"
    perplexity, loss = metric("perplexity", best["perplexity"]), best["recon_loss"]
    if baseline is None:
        return f"{said}: perplexity {perplexity} at recon_loss {metric('recon_loss', loss)}"
    ratio = number(best["recon_loss_x"], ".2f")
    return (
        f"{said} where the plain VQ-VAE uses "
        f"{metric('active_codes', baseline['active_codes'])}: perplexity {perplexity} against "
        f"{metric('perplexity', baseline['perplexity'])}, at {ratio} of its reconstruction loss"
    )


def _constraint(findings: Findings, best: Mapping[str, Any]) -> list[str]:
    if findings.constraint is None:
        return []
    held = int(findings.ranked["feasible"].sum())
    of = f"{held} of {count(len(findings.ranked), 'complete trial')}"
    if best["feasible"]:
        return [f"It holds {findings.constraint}, as {of} do."]
    return [f"It does not hold {findings.constraint}; {of} do."]


def _sureness(findings: Findings, best: Mapping[str, Any]) -> str:
    rows = [] if findings.confirmed is None else row_dicts(findings.confirmed)
    row = next((row for row in rows if row["trial_id"] == best["trial_id"]), None)
    if row is None or not row["seeds_complete"]:
        return "Not yet confirmed with other seeds: each number is of one training."
    values = ", ".join(
        f"{name} {spread(name, row[name], row[f'{name}_sd'])}"
        for name in ("perplexity", "recon_loss")
    )
    said = f"Confirmed with {count(int(row['seeds_complete']), 'new seed')}: {values}"
    if is_number(row["probability"]):
        said += f"; on the front with a probability of {probability(row)}"
    first = None if findings.confirmed is None else choice(findings.confirmed)
    if first is not None and first["trial_id"] != best["trial_id"]:
        said += f". By the means {first['trial_id']} ranks first"
    return f"{said}."


def _nothing(findings: Findings) -> str:
    trials = findings.records.trials
    if trials.empty:
        return "This run has no trials yet."
    counts = Counter(trials["state"])
    states = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    if findings.baseline is not None:
        row = findings.baseline
        return (
            f"Only the baseline has reached its full budget ({states}): perplexity "
            f"{metric('perplexity', row['perplexity'])} with "
            f"{metric('active_codes', row['active_codes'])} codes at recon_loss "
            f"{metric('recon_loss', row['recon_loss'])}."
        )
    return f"No trial has reached its full budget, so there is nothing to choose from ({states})."
