"""A search as one W&B run beside those of its trials: the front, headline figures, artifacts.

It waits for W&B, but not for ever, and nothing that W&B does fails the search.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.errors import RunError
from analysis.findings import Findings
from analysis.flatten import row_dicts
from trainables.errors import InputError, named
from vqtune.export import export
from vqtune.report import Report
from vqtune.wandb_link import choose_mode, quiet_settings

NAME = "summary"
TOP = 3

# In seconds: for an answer, for what is to be sent, and for all together.
_INIT, _UPLOAD, _ALL = 30, 300, 360

_TABLE = (
    *("position", "trial_id", "role", "on_front", "feasible", "knee", "hypervolume"),
    *("perplexity", "perplexity_x", "recon_loss", "recon_loss_x", "active_codes", "usage"),
    *("bits_per_frame", "seconds", "reason", "technique"),
)
_FIGURES = ("perplexity", "recon_loss", "active_codes", "usage", "bits_per_frame")

Warn = Callable[[str], None]


def log_summary(report: Report, project: str, warn: Warn, offline: bool = False) -> str | None:
    """Log a search's summary into `project`; returns where it is, or None.

    It is in the group of the search's trials and has an id of its own, so that logging it again
    goes on with it. Offline, its folder is one that `wandb sync` takes.

    Args:
        report: of the search.
        project: W&B's.
        warn: takes the one line about what did not work.
        offline: whether it is known that W&B lets nobody in.
    """
    told: list[str] = []
    where: list[str] = []

    def work() -> None:
        mode: Any = os.environ.get("WANDB_MODE", "online")
        try:
            if mode == "online":
                mode = "offline" if offline else choose_mode(told.append)
            if mode != "disabled":
                where.append(_log(report, project, mode, told.append))
        except Exception as error:  # whatever W&B does must not end the search
            told.append(f"W&B: {named(error)}")

    thread = threading.Thread(target=work, name="wandb-summary", daemon=True)
    thread.start()
    thread.join(_ALL)
    if thread.is_alive():
        told.append(f"W&B: no answer within {_ALL} s; the summary is left out")
    if told:
        warn(told[0])
    return where[0] if where else None


def _log(report: Report, project: str, mode: Any, warn: Warn) -> str:
    import wandb  # noqa: PLC0415

    findings, folder = report.findings, report.findings.records.run.resolve()
    spec = findings.records.spec
    run = wandb.init(
        project=project,
        group=folder.name,
        name=NAME,
        id=f"{folder.name}-{spec.get('token', '')}-{NAME}",
        job_type=NAME,
        resume="allow",
        config={key: spec[key] for key in ("samples", "seed", "objectives") if key in spec},
        tags=[NAME],
        dir=str(folder),
        mode=mode,
        reinit="create_new",
        settings=quiet_settings(init_timeout=_INIT, finish_timeout=_UPLOAD),
    )
    # Not a temporary folder: offline, `wandb sync` reads the files when the user runs it.
    (folder / "wandb").mkdir(exist_ok=True)
    files = Path(tempfile.mkdtemp(prefix="summary-files-", dir=folder / "wandb"))
    try:
        run.summary.update(_figures(report))
        run.log(_front(findings, folder / "report" / "front.png"))
        _artifacts(run, report, files, warn)
    finally:
        run.finish()
        if mode == "online":
            shutil.rmtree(files)
    return str(run.url if mode == "online" else Path(run.dir).parent)


def _figures(report: Report) -> dict[str, Any]:
    findings = report.findings
    states = findings.records.trials["state"].value_counts()
    found: dict[str, Any] = {
        "headline": report.headline,
        "trials": len(findings.records.trials),
        **{f"trials/{state}": int(count) for state, count in states.items()},
        "front/trials": int(findings.ranked["on_front"].sum()),
    }
    for name, row in (("best", findings.best), ("baseline", findings.baseline)):
        if row is not None:
            found[f"{name}/trial"] = row["trial_id"]
            found |= {f"{name}/{key}": plain(row[key]) for key in _FIGURES}
    if findings.best is not None:
        found |= {f"best/{key}": plain(findings.best[key]) for key in _TABLE if key.endswith("_x")}
    return found


def _front(findings: Findings, picture: Path) -> dict[str, Any]:
    import wandb  # noqa: PLC0415

    rows = [
        [plain(row[name]) for name in _TABLE]
        for row in row_dicts(findings.ranked)
        if row["on_front"] or row["role"] == "baseline"
    ]
    table = wandb.Table(columns=list(_TABLE), data=rows)
    logged: dict[str, Any] = {"front": table}
    if rows:
        logged["front_plot"] = wandb.plot.scatter(
            table, "recon_loss", "perplexity", f"The front of {findings.records.run.resolve().name}"
        )
    if picture.is_file():
        logged["front_picture"] = wandb.Image(str(picture), caption="every trial, and the front")
    return logged


def _artifacts(run: Any, report: Report, files: Path, warn: Warn) -> None:
    """The page, and the best configs with their weights, as exported."""
    import wandb  # noqa: PLC0415

    name = report.findings.records.run.resolve().name
    page = wandb.Artifact(f"{name}-report", "report", description=report.headline)
    page.add_file(shutil.copy2(report.page, files), policy="immutable")
    run.log_artifact(page)
    if report.findings.best is None:
        return
    try:
        exported = export(report.findings.records, TOP, files / "best")
    except (InputError, RunError) as error:
        warn(f"the best configs are not in W&B's summary: {error}")
        return
    rows = {row["trial_id"]: row for row in row_dicts(report.findings.ranked)}
    for position, item in enumerate(exported, start=1):
        row: Mapping[str, Any] = rows[item.trial_id]
        best = wandb.Artifact(
            f"{name}-{item.trial_id}",
            "model",
            description=f"{row['technique']}; {row['reason']}",
            metadata={key: plain(row[key]) for key in _FIGURES},
        )
        for path in (item.config, item.weights):
            best.add_file(str(path), policy="immutable")
        run.log_artifact(best, aliases=["latest", f"top-{position}"])


def plain(value: Any) -> Any:
    """A value as W&B takes it: no numpy type, None for what is not a number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
