"""`vqtune export`: the best configs as files, with their weights and a README.md.

YAML and JSON are read by `vqtune train`; Python is a program that runs as it is. All files are
written, or none.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.confirmed import METRICS, confirmed
from analysis.flatten import row_dicts
from analysis.ranking import best
from analysis.records import Records
from analysis.terms import Terms, terms
from trainables.checkpoint import read_trial, write_tensors
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.trainer import CHECKPOINT, weights_of
from vqtune.export_python import as_program
from vqtune.export_readme import README, readme
from vqtune.run_folder import out_folder, write_text

_METRICS = (
    *("samples", "perplexity", "perplexity_plugin", "active_codes", "hit_codes", "usage"),
    *("bits_per_frame", "recon_loss", "recon_loss_unquantized", "recon_loss_shuffled"),
)


@dataclass(frozen=True)
class Exported:
    """One exported config.

    Attributes:
        trial_id: the trial of the search.
        config: what `vqtune train` reads.
        weights: safetensors.
        program: a Python file, in that format only.
        provenance: where the config came from, as it is written into it.
    """

    trial_id: str
    config: Path
    weights: Path
    program: Path | None
    provenance: Mapping[str, Any]

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [self.config, self.weights, *([self.program] if self.program else [])]


def export(
    records: Records,
    top: int,
    out: Path,
    form: str = "yaml",
    command: str = "vqtune",
    asked: Terms | None = None,
) -> list[Exported]:
    """Write the best `top` trials of a run's front, the best first, into `out`.

    Args:
        records: the run.
        top: how many.
        out: the folder.
        form: `yaml`, `json`, or `python`, which is YAML and a program.
        command: what the README.md calls vqtune.
        asked: what the trials are ranked by; the search's own terms where None.

    Raises:
        InputError: nothing to export, or files that are there already; then nothing is written.
    """
    asked = asked or terms(records.spec)
    chosen = best(records, top, asked)
    if chosen.empty:
        raise InputError(
            "no trial has reached its full budget, so there is nothing to export", str(records.run)
        )
    confirmation = confirmed(records)
    rows = row_dicts(confirmation) if confirmation is not None else []
    shown = {row["trial_id"]: row for row in rows}
    made = [
        _exported(records, trial, f"{i:02d}-{trial}", out, form, shown.get(trial))
        for i, trial in enumerate(chosen["trial_id"], start=1)
    ]
    for path in (*(path for item in made for path in item.paths), out / README):
        if path.exists():
            raise InputError("exists; allowed: another --out", str(path))
    new = not out.exists()
    out_folder(out)
    try:
        # Whole files in their folder, so that none of them is left where one cannot be written.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as part:
            for item in made:
                _write(records, item, Path(part))
            text = readme(records, chosen, made, confirmation, command, asked)
            write_text(Path(part) / README, text)
            for path in sorted(Path(part).iterdir()):
                path.rename(out / path.name)
    except BaseException:
        if new and not any(out.iterdir()):
            out.rmdir()
        raise
    return made


def _exported(
    records: Records,
    trial: str,
    name: str,
    out: Path,
    form: str,
    confirmation: Mapping[str, Any] | None,
) -> Exported:
    _, header = read_trial(records.run / "trials" / trial / CHECKPOINT)
    report = header["report"]
    weights = out / f"{name}.safetensors"
    provenance: dict[str, Any] = {
        "run": records.run.resolve().name,
        "trial": trial,
        "metrics": {name: _finite(report[name]) for name in _METRICS if name in report},
        **header["made"],
        "weights": weights.name,
    }
    if confirmation is not None and confirmation["seeds_complete"]:
        provenance["confirmed"] = _confirmed(confirmation)
    return Exported(
        trial,
        out / f"{name}.{'json' if form == 'json' else 'yaml'}",
        weights,
        out / f"{name}.py" if form == "python" else None,
        provenance,
    )


def _confirmed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Seeds, [mean, deviation] of the metrics, probability of being on the front; NaN is null."""
    return {
        "seeds": int(row["seeds"]),
        "seeds_complete": int(row["seeds_complete"]),
        **{name: [_finite(row[name]), _finite(row[f"{name}_sd"])] for name in METRICS},
        "probability": _finite(row["probability"]),
    }


def _finite(value: float) -> float | None:
    """What JSON can hold."""
    return value if math.isfinite(value) else None


def _write(records: Records, item: Exported, folder: Path) -> None:
    tensors, header = read_trial(records.run / "trials" / item.trial_id / CHECKPOINT)
    config = TrialConfig.from_dict({**header["trial"], "provenance": dict(item.provenance)})
    described = {"trial": header["trial"], "provenance": dict(item.provenance)}
    write_tensors(folder / item.weights.name, weights_of(tensors), described)
    as_json = item.config.suffix == ".json"
    write_text(folder / item.config.name, _json(config) if as_json else config.to_yaml())
    if item.program is not None:
        write_text(folder / item.program.name, as_program(config, item.weights.name))


def _json(config: TrialConfig) -> str:
    """JSON that is YAML, too, as which it is read."""
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda m: f"\\u{ord(m[0]):04x}", text) + "\n"
