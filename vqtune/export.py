"""`vqtune export`: the best configs as files that `vqtune train` reads, with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.ranking import best
from analysis.records import Records
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.trainer import CHECKPOINT, weights_of
from vqtune.run_folder import out_folder, write_text

_METRICS = (
    *("samples", "perplexity", "perplexity_plugin", "active_codes", "hit_codes", "usage"),
    *("bits_per_frame", "recon_loss", "recon_loss_unquantized", "recon_loss_shuffled"),
)


@dataclass(frozen=True)
class Exported:
    """One exported config."""

    trial_id: str
    config: Path
    weights: Path


def export(records: Records, top: int, out: Path) -> list[Exported]:
    """Write the best `top` trials of a run's front into `out`.

    Raises:
        InputError: nothing to export, or files that are there already.
    """
    chosen = best(records, top)
    if chosen.empty:
        raise InputError(
            "no trial has reached its full budget, so there is nothing to export", str(records.run)
        )
    exported = [
        Exported(t, out / f"{i:02d}-{t}.yaml", out / f"{i:02d}-{t}.safetensors")
        for i, t in enumerate(chosen["trial_id"], start=1)
    ]
    for item in exported:
        for path in (item.config, item.weights):
            if path.exists():
                raise InputError("exists; allowed: another --out", str(path))
    out_folder(out)
    for item in exported:
        _write(records, item)
    return exported


def _write(records: Records, item: Exported) -> None:
    tensors, header = read_tensors(records.run / "trials" / item.trial_id / CHECKPOINT)
    report = header["report"]
    provenance: dict[str, Any] = {
        "run": records.run.name,
        "trial": item.trial_id,
        "metrics": {name: report[name] for name in _METRICS if name in report},
        **header["made"],
        "weights": item.weights.name,
    }
    config = TrialConfig.from_dict({**header["trial"], "provenance": provenance})
    described = {"trial": header["trial"], "provenance": provenance}
    write_tensors(item.weights, weights_of(tensors), described)
    write_text(item.config, config.to_yaml())
