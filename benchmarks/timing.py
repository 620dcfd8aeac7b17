"""Interleaved timing: every contender once a round, so that a drifting machine is fair to all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def interleaved(
    contenders: Mapping[str, Work], rounds: int, warmup: int = 2, slice_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of a call of each contender, round by round.

    In each round a contender is called as often as fills `slice_seconds`, at least once, and the
    mean counts: short calls are then not timed on the caches that another contender left behind.
    """
    calls = {}
    for name, work in contenders.items():
        for _ in range(warmup):
            work()
        started = time.perf_counter()
        work()
        calls[name] = max(1, round(slice_seconds / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, work in contenders.items():
                started = time.perf_counter()
                for _ in range(calls[name]):
                    work()
                seconds[name].append((time.perf_counter() - started) / calls[name])
    finally:
        gc.enable()
    return seconds


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of theirs / ours: above 1 where ours is faster."""
    return statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
