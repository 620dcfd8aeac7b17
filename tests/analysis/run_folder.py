"""A run folder as a search leaves it, written by hand into tmp_path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SPEC: dict[str, Any] = {
    "name": "demo",
    "space": {"codebook": {"commitment": {"beta": {"min": 0.1, "max": 4.0}}}},
    "samples": 1000,
    "objectives": {"perplexity": "max", "recon_loss": "min"},
    "trials": 4,
    "created": "2025-01-02T03:04:05",
    "seed": 0,
    "data": None,
}

CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {"kind": "conv", "width": 32, "strides": [2, 2]},
    "codebook": {
        "size": 512,
        "dim": 64,
        "update": {"kind": "gradient", "weight": 1.0, "lr_ratio": 1.0},
        "commitment": {"beta": 0.25},
        "entropy": None,
        "respawn": None,
        "kmeans": None,
        "growth": None,
    },
    "training": {"samples": 1000, "batch_size": 16, "lr": 0.001},
}


def report(trial_id: str, samples: float, **more: Any) -> dict[str, Any]:
    """One line of a result.json, with the keys that Ray Tune adds."""
    return {
        "samples": samples,
        "perplexity": 40.0,
        "perplexity_plugin": 39.0,
        "active_codes": 50,
        "hit_codes": 60,
        "usage": 40.0 / 512,
        "codes_in_use": 512,
        "bits_per_frame": 5.3,
        "bits_per_frame_nominal": 9.0,
        "recon_loss": 0.5,
        "recon_loss_unquantized": 0.3,
        "recon_loss_shuffled": 0.9,
        "seconds": samples / 100,
        "diverged": False,
        "reason": "",
        "done": False,
        "training_iteration": 1,
        "trial_id": trial_id,
        "timestamp": 1_700_000_000,
        "time_total_s": 3.0,
        "pid": 1,
        "hostname": "node",
        "node_ip": "127.0.0.1",
        "date": "2025-01-02_03-04-05",
        "checkpoint_dir_name": None,
        "config": {"trial_id": trial_id, "trial": CONFIG},
    } | more


@dataclass(frozen=True)
class RunFolder:
    """Writes a run piece by piece."""

    path: Path

    def spec(self, **more: Any) -> RunFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "spec.yaml").write_text(yaml.safe_dump(SPEC | more))
        return self

    def trial(
        self,
        trial_id: str,
        *reports: dict[str, Any],
        role: str = "search",
        config: dict[str, Any] = CONFIG,
    ) -> Path:
        """A trial's folder; each report overrides the fields of a plain one, samples first."""
        folder = self.path / "trials" / f"trial_{trial_id}"
        folder.mkdir(parents=True)
        params = {"trial_id": trial_id, "role": role, "trial": config}
        (folder / "params.json").write_text(json.dumps(params, indent=2, sort_keys=True))
        if reports:
            lines = [json.dumps(report(trial_id, **fields)) + "\n" for fields in reports]
            (folder / "result.json").write_text("".join(lines))
        return folder

    def complete(self, trial_id: str, perplexity: float, recon_loss: float, **more: Any) -> Path:
        """A trial that reached its budget of 1000 samples."""
        fields = {"samples": 1000, "perplexity": perplexity, "recon_loss": recon_loss}
        return self.trial(trial_id, {**fields, "done": True}, **more)
