"""The way to Weights & Biases: online or not, how quietly, and the addresses that it gave.

`tracking` logs trials by it, `summary_run` a search as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqtune.run_folder import write_json

FILE = "wandb.json"
# Seconds between two writes to the disk, and bytes of a .wandb file without a record.
_FLUSH, _HEADER = 0.5, 7


def choose_mode(warn: Callable[[str], None]) -> Any:
    """Online, unless WANDB_MODE says otherwise or W&B lets nobody in."""
    import wandb  # noqa: PLC0415

    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return mode
    try:
        wandb.setup(settings=wandb.Settings(silent=True))
        if wandb.login(prompt=False):
            return mode
        reason = "nobody is logged in (wandb login)"
    except Exception as error:  # a server that is not there, a key that is none
        reason = str(error).rstrip(".")
    warn(f"W&B: {reason}; the runs are kept offline for wandb sync")
    return "offline"


def quiet_settings(**more: Any) -> Any:
    """Settings of a run that prints nothing and does not measure the machine.

    W&B's helper dies with this process; what it holds back until then is lost.
    """
    import wandb  # noqa: PLC0415

    return wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_transaction_log_flush_interval=_FLUSH,
        **more,
    )


def remove_empty(run: Path) -> None:
    """Remove folders of runs that were killed before W&B wrote a record: it cannot sync them."""
    for path in (run / "wandb").glob("offline-run-*/*.wandb"):
        if path.stat().st_size <= _HEADER:
            shutil.rmtree(path.parent, ignore_errors=True)


def read_urls(run: Path) -> dict[str, str]:
    """Addresses of the trials' W&B runs by trial_id, as far as the run's folder tells them."""
    try:
        kept = json.loads((run / FILE).read_text(encoding="utf-8"))
        urls = dict(kept["urls"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged
        return {}
    return {
        str(trial_id): url
        for trial_id, url in urls.items()
        if isinstance(url, str) and url.startswith(("https://", "http://"))
    }


def write_urls(run: Path, urls: dict[str, str]) -> None:
    """Keep addresses by trial_id in the run's folder."""
    write_json(run / FILE, {"urls": urls})
