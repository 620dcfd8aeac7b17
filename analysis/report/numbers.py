"""Numbers as the page tells them: as many digits as are of use, a dash for what is unknown."""

from __future__ import annotations

import math
from typing import Any

ABSENT = "–"

_FORMS = {
    "active_codes": ",.0f",
    "codes": ",.0f",
    "hit_codes": ",.0f",
    "codes_in_use": ",.0f",
    "usage": ".1%",
    "bits_per_frame": ".2f",
    "seconds": ",.0f",
    "cpu_seconds": ",.0f",
    "gpu_seconds": ",.0f",
    "samples": ",.0f",
}


def number(value: Any, form: str) -> str:
    """Format a number; a dash where there is none or it is not finite."""
    if not is_number(value):
        return ABSENT
    return format(float(value), form).replace("-", "\N{MINUS SIGN}")


def metric(name: str, value: Any) -> str:
    """Format a value of the metric `name`; perplexity without decimals from 100 on."""
    if name == "perplexity":
        return number(value, ".0f" if is_number(value) and abs(value) >= 99.95 else ".1f")
    return number(value, _FORMS.get(name, ".3g"))


def spread(name: str, mean: Any, deviation: Any) -> str:
    """Tell a mean with its deviation, where there is one: `412 ± 6.1`."""
    told = metric(name, mean)
    return f"{told} ± {number(deviation, '.2g')}" if is_number(deviation) else told


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def duration(seconds: float) -> str:
    """Tell seconds in the largest unit that leaves a number above 1: `3.4 minutes`."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def count(n: int, what: str) -> str:
    """Tell a count with its noun: `1 trial`, `2 trials`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
