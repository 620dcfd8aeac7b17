"""The rows of `benchmarks.collapse`: each technique alone at a sensible setting, and mixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A name, what it does otherwise than the baseline, and whether it needs frames in time."""

    name: str
    values: dict[str, Any]
    frames_only: bool = False


def _codebook(name: str, frames_only: bool = False, **blocks: Any) -> Row:
    return Row(name, {"codebook": blocks}, frames_only)


EMA = {"kind": "ema", "decay": 0.99}
RESPAWN = {"period": 1600, "threshold": 0.1}
FILLED = {"update": EMA, "commitment": {"beta": 2.0}, "respawn": RESPAWN, "kmeans": {}}

ALONE = [
    Row("baseline", {}),
    _codebook("EMA, γ = 0.99", update=EMA),
    _codebook("EMA, statistics of 8 steps", update={**EMA, "accumulate": 8}),
    _codebook("respawn every 1,600 samples, τ = 0.1", respawn=RESPAWN),
    _codebook("respawn from 16,384 recent latents", respawn={**RESPAWN, "buffer": 16_384}),
    _codebook("respawn by least-recent use, 3,200 samples", least_recent={"patience": 3200}),
    _codebook("re-anchoring (CVQ-VAE)", reanchor={"decay": 0.99}),
    _codebook("β = 2", commitment={"beta": 2.0}),
    _codebook("entropy, λ = 0.03", entropy={"weight": 0.03}),
    _codebook("entropy pair, λ = 0.03", entropy={"weight": 0.03}, sample_entropy={"weight": 0.03}),
    _codebook("k-means seeding", kmeans={}),
    _codebook("growth 64 → 512 at 30%", growth={}),
    _codebook("d 8 → 64 at 30%", dim_growth={}),
    _codebook("low-dimensional lookup, d = 8, l2", low_dim={"dim": 8}),
    _codebook("cosine codebook", cosine={}),
    _codebook("batch norm before the lookup", normalization={"kind": "batch"}),
    _codebook("layer norm before the lookup", normalization={"kind": "layer"}),
    _codebook("rotation trick", rotation={}),
    _codebook("stochastic assignment, annealed", stochastic={}),
    _codebook("codebook learning rate × 5", update={"kind": "gradient", "lr_ratio": 5.0}),
    _codebook("codebook learning rate × 0.2", update={"kind": "gradient", "lr_ratio": 0.2}),
    _codebook("SimVQ", update={"kind": "simvq"}),
    Row("batch 64", {"training": {"batch_size": 64}}),
    Row("rates fall to 1%, on a cosine", {"training": {"lr_final": 0.01}}),
    _codebook("FSQ 8 × 8 × 8 (control)", update={"kind": "fsq"}, commitment={"beta": 0.0}),
    _codebook(
        "LFQ, 9 bits (control)",
        update={"kind": "lfq"},
        entropy={"weight": 0.03},
        sample_entropy={"weight": 0.03},
    ),
]

# EMA, β = 2, respawn below 0.1 of the mean use, 512 latents a step.
RECIPE = _codebook(
    "recipe: EMA, β = 2, respawn", update=EMA, commitment={"beta": 2.0}, respawn=RESPAWN
)

# Found by hand in some twenty trials of seed 0 on the speech.
BY_HAND = Row(
    "by hand: recipe, entropy, k-means, batch 8, rates that rise and fall",
    {
        "codebook": {
            "update": {"kind": "ema", "decay": 0.97},
            "commitment": {"beta": 4.0},
            "respawn": {"period": 1600, "threshold": 0.4},
            "entropy": {"weight": 0.06, "temperature": 0.3},
            "kmeans": {},
        },
        "training": {"batch_size": 8, "lr": 3e-3, "warmup": 0.05, "lr_final": 0.03},
    },
)

# All filled in the same way, at 9 bits a frame: 512 codes, 3 x 8 codes, or 64 codes at a rate of
# 1 and of 1/2.
LAYOUTS = [
    _codebook("one codebook of 512", **FILLED),
    _codebook("3 groups of 8", **FILLED, groups={"count": 3}, size=8, dim=66),
    _codebook("3 residual levels of 8", **FILLED, residual={"levels": 3}, size=8),
    Row(
        "hierarchy, 64 at full and at half rate",
        {"model": {"kind": "hierarchical"}, "codebook": {**FILLED, "size": 64}},
        frames_only=True,
    ),
    _codebook("FSQ 8 × 8 × 8", update={"kind": "fsq"}, commitment={"beta": 0.0}),
]
