"""The numbers that decide, from counts over one fixed held-out set with the codebook frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# A code counts as active with at least this share of the mean use.
ACTIVE_SHARE = 0.1


def entropy_plugin(counts: np.ndarray) -> float:
    """Plug-in entropy in nats of counts [K]; 0 for no counts."""
    total = counts.sum()
    if total == 0:
        return 0.0
    p = counts[counts > 0] / total
    return float(-(p * np.log(p)).sum())


def entropy_miller_madow(counts: np.ndarray) -> float:
    """Entropy in nats with the bias correction (m - 1) / 2N of Miller (1955).

    m is the number of codes hit, N the number of latents.
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    return entropy_plugin(counts) + float((counts > 0).sum() - 1) / (2 * float(total))


def stream_metrics(counts: np.ndarray, codes_in_use: int) -> dict[str, float]:
    """Metrics of one stream of codes.

    Args:
        counts: how often each code was chosen, [K], those that growth has yet to add among them.
        codes_in_use: K now, without codes that growth has yet to add.
    """
    total = float(counts.sum())
    perplexity = math.exp(entropy_miller_madow(counts))
    active = counts * codes_in_use >= ACTIVE_SHARE * total
    return {
        "perplexity": perplexity,
        "perplexity_plugin": math.exp(entropy_plugin(counts)),
        "active_codes": int((active & (counts > 0)).sum()),
        "hit_codes": int((counts > 0).sum()),
        "codes": len(counts),
        "codes_in_use": codes_in_use,
        "usage": perplexity / codes_in_use,
    }


def codebook_metrics(
    streams: Sequence[np.ndarray], codes_in_use: Sequence[int], latents_per_frame: Sequence[float]
) -> dict[str, float]:
    """Metrics over all streams (one for a plain codebook; one a group, level or layer).

    With several streams the plain names are the means over streams; each stream and the minimum
    are reported beside them. Bits are summed.

    Args:
        streams: counts [K] of each stream.
        codes_in_use: K now of each stream.
        latents_per_frame: latents of each stream in one frame (in one item for whole items).
    """
    each = [stream_metrics(c, k) for c, k in zip(streams, codes_in_use, strict=True)]
    metrics = dict(each[0])
    if len(each) > 1:
        metrics = {name: float(np.mean([m[name] for m in each])) for name in each[0]}
        for name in each[0]:
            metrics[f"{name}_min"] = min(m[name] for m in each)
            metrics |= {f"stream_{i}/{name}": m[name] for i, m in enumerate(each)}
    bits = [entropy_miller_madow(counts) / math.log(2) for counts in streams]
    nominal = [math.log2(k) for k in codes_in_use]
    rates = list(latents_per_frame)
    metrics["bits_per_frame"] = float(np.dot(rates, bits))
    metrics["bits_per_frame_nominal"] = float(np.dot(rates, nominal))
    return metrics
