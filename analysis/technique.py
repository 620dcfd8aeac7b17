"""A trial's technique in a few words: what its config does otherwise than the baseline's.

The words stand in the tables of the front. A codebook technique that is not known here is told
with all its parameters, so a new one needs no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.flatten import flatten

# The plain VQ-VAE that techniques are told against where a run has no complete baseline.
PLAIN: dict[str, Any] = {
    "codebook": {
        "size": 512,
        "dim": 64,
        "update": {"kind": "gradient", "weight": 1.0, "lr_ratio": 1.0, "lr_final": 1.0},
        "commitment": {"beta": 0.25},
    },
    "model": {"kind": "conv"},
    "training": {"batch_size": 16, "lr": 1e-3, "warmup": 0.0, "lr_final": 1.0},
}

# Settings that have a symbol or a shorter name.
_SYMBOLS = {
    "codebook.size": "K",
    "codebook.dim": "d",
    "codebook.commitment.beta": "β",
    "training.batch_size": "batch",
}
# Parameters that tell a technique in short, joined by slashes; one that is not named here is told
# with all its parameters, by name.
_SHORT: dict[str, tuple[str, ...]] = {
    "cosine": (),
    "dim_growth": ("start", "at"),
    "entropy": ("weight",),
    "groups": ("count",),
    "growth": ("start", "at"),
    "kmeans": (),
    "least_recent": ("patience",),
    "low_dim": ("dim",),
    "normalization": ("kind",),
    "reanchor": ("decay",),
    "residual": ("levels", "dropout"),
    "respawn": ("period", "threshold"),
    "rotation": (),
    "sample_entropy": ("weight",),
    "stochastic": ("temperature", "until"),
}
# What changes nothing at 0 is told otherwise only.
_OFF_AT_0 = {"dropout"}


def technique_summary(config: Mapping[str, Any], plain: Mapping[str, Any] = PLAIN) -> str:
    """Tell in a few words what a nested config does otherwise than the config `plain`.

    For instance `ema decay=0.98, β=2, respawn 3200/0.1, kmeans`; `plain` if nothing differs.
    First the model where it is of another kind, then the update rule (parameters of 1 change
    nothing and are left out), then the settings whose values differ, then the codebook's
    techniques, with `no` before one that is off.
    """
    codebook, reference = config["codebook"], plain["codebook"]
    parts = [*_model(config.get("model"), plain.get("model"))]
    if _update(codebook["update"]) != _update(reference["update"]):
        parts.append(_update(codebook["update"]))
    values, plain_values = _settings(config), _settings(plain)
    parts += [
        f"{_SYMBOLS.get(path, path.rpartition('.')[2])}={_short(values[path])}"
        for path, plain_value in plain_values.items()
        if path in values and values[path] != plain_value
    ]
    techniques, plain_techniques = _techniques(codebook), _techniques(reference)
    parts += [
        _technique(name, block)
        for name, block in techniques.items()
        if block != plain_techniques.get(name)
    ]
    parts += [f"no {name}" for name in plain_techniques if name not in techniques]
    return ", ".join(parts) or "plain"


def _techniques(codebook: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: block
        for name, block in codebook.items()
        if isinstance(block, Mapping) and name not in ("update", "commitment")
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten all but the seed and the codebook's techniques; β is a setting."""
    blocks = {"update", *_techniques(config["codebook"])}
    codebook = {name: value for name, value in config["codebook"].items() if name not in blocks}
    flat = flatten({**config, "codebook": codebook}, ".")
    apart = ("seed", "model.kind")
    return {path: value for path, value in flat.items() if path not in apart and value is not None}


def _model(block: Any, plain: Any) -> list[str]:
    """The kind of a model of another kind, with the strides of a hierarchy's top but for one 2."""
    kind = block.get("kind") if isinstance(block, Mapping) else None
    if kind is None or (isinstance(plain, Mapping) and kind == plain.get("kind")):
        return []
    top = block.get("top_strides", [2])
    return [f"{kind}{'' if top in ([2], (2,)) else ' ' + _short(top)}"]


def _update(block: Mapping[str, Any]) -> str:
    """The kind and what it is set to; levels say by themselves what they are."""
    shown = [
        _short(v) if k == "levels" else f"{k}={_short(v)}"
        for k, v in block.items()
        if k != "kind" and v != 1
    ]
    return " ".join([str(block["kind"]), *shown])


def _technique(name: str, block: Mapping[str, Any]) -> str:
    if name not in _SHORT:
        return " ".join([name, *(f"{k}={_short(v)}" for k, v in flatten(block, ".").items())])
    values = [(key, block[key]) for key in _SHORT[name] if key in block]
    shown = [_short(value) for key, value in values if value or key not in _OFF_AT_0]
    return f"{name} {'/'.join(shown)}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")
