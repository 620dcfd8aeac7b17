"""`vqtune report`: a run's page with its pictures, and what it says in one sentence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.confirmed import confirmed
from analysis.errors import RunError
from analysis.findings import Findings, find
from analysis.records import Records
from analysis.report.commands import Commands
from analysis.report.headline import headline
from analysis.report.page import write_findings
from vqtune.shipping import factories
from vqtune.specimens import specimens
from vqtune.user_terms import UserTerms
from vqtune.wandb_link import read_urls

_OTHERS = {
    "ablation": "is an ablation, whose table is ablation.csv in it",
    "confirm": "is a confirmation, which the report of its search shows",
}


@dataclass(frozen=True)
class Report:
    """A report that has been written.

    Attributes:
        page: the HTML file.
        headline: its first sentence.
        findings: what it shows.
    """

    page: Path
    headline: str
    findings: Findings


def report(
    records: Records,
    command: str,
    shown: str,
    terms: UserTerms | None = None,
    trust: bool = False,
) -> Report:
    """Write RUN/report.html and RUN/report/*.png.

    Args:
        records: the run.
        command: what the page calls vqtune.
        shown: what it calls the run.
        terms: what the trials are ranked by; the search's own where None.
        trust: whether the user's own code may be imported that the run's space names; without, the
            insides of trials with such data or models are not shown.

    Raises:
        RunError: a run that is no search's, terms that do not fit it, or a folder that cannot be
            written.
    """
    for kind, what in _OTHERS.items():
        if kind in records.spec:
            raise RunError(f"{records.run}: {what}; allowed: the run of a search")
    terms = terms or UserTerms()
    findings = find(records, None, confirmed(records), terms.of(records))
    titles = {part.trial_id: part.title for part in findings.cast}
    # Not what a checkpoint names: the space is what the user has read, or has searched himself.
    own_code = factories(records.spec.get("space")) if trust else set()
    findings = replace(findings, specimens=specimens(records, titles, own_code))
    try:
        page = write_findings(
            findings,
            records.run,
            _commands(findings, command, shown, terms.flags),
            read_urls(records.run),
        )
    except OSError as error:
        raise RunError(
            f"{error.filename or records.run}: cannot be written: {error.strerror or error}"
        ) from None
    return Report(page, headline(findings).sentence, findings)


def _commands(findings: Findings, command: str, shown: str, flags: list[str]) -> Commands:
    exported = f"exported/{findings.records.run.resolve().name}"
    front = findings.ranked[findings.ranked["on_front"]]
    best = f"{exported}/01-{front['trial_id'].iloc[0]}.yaml" if len(front) else "CONFIG"

    def line(*arguments: str) -> str:
        return f"{command} {shlex.join(arguments)}"

    return Commands(
        confirm=line("confirm", shown, "--top", "5", "--seeds", "3", *flags),
        export=line("export", shown, "--top", "3", "--out", exported, *flags),
        retrain=line("train", best),
        front=line("front", shown, *flags),
    )
