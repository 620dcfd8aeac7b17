"""The report's pictures as PNG files for papers: on white, in the cast's colours.

They are drawn with matplotlib's Agg figures and no state of pyplot, so they need no screen.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.findings import Findings
from analysis.plots_inside import projection, reconstructions, usage
from analysis.plots_run import confirmed, curves, front
from analysis.plots_why import effects, importance, techniques
from analysis.whole_file import write_whole

DPI = 150
_STYLE: Any = {  # matplotlib's stubs name every setting's key, and no type of its value
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # names come from files and may have a dollar
    "figure.constrained_layout.use": True,
}
_DRAWINGS: dict[str, Callable[[Findings], Figure | None]] = {
    "front.png": front,
    "confirmed.png": confirmed,
    "curves.png": curves,
    "usage.png": usage,
    "projection.png": projection,
    "reconstructions.png": reconstructions,
    "importance.png": importance,
    "effects.png": effects,
    "techniques.png": techniques,
}


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Write every picture for which there is something to draw; earlier ones go.

    Returns the paths of those written. Raises RunError where one cannot be written.
    """
    written = []
    with mpl.rc_context(_STYLE):
        for name, drawing in _DRAWINGS.items():
            path = folder / name
            figure = drawing(findings)
            if figure is None:
                path.unlink(missing_ok=True)  # of an earlier report, and no longer true
                continue
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=DPI)
            write_whole(path, file.getvalue())
            written.append(path)
    return written
