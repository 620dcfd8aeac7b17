"""Pictures from inside the codebooks: use of the codes, their projection, reconstructions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from analysis.findings import Findings
from analysis.pictures import pixels


def usage(findings: Findings) -> Figure | None:
    """Share of the latents by code, the most used first; None without counts."""
    shown = [
        (one, counts)
        for one in (findings.specimens.trials if findings.specimens else ())
        for counts in one.histograms
        if counts.sum() > 0
    ]
    if not shown:
        return None
    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    named = set()
    for one, counts in shown:
        share = np.sort(counts)[::-1] / counts.sum()
        part = findings.cast.get(one.trial_id)
        axes.step(
            np.arange(1, len(share) + 1),
            np.where(share > 0, share, np.nan),
            where="pre",
            color=part.colour if part else "#767c86",
            linestyle="--" if part and part.name == "baseline" else "-",
            linewidth=1.4,
            label=None if one.trial_id in named else one.title,
        )
        named.add(one.trial_id)
    axes.set(xlabel="codes, the most used first", ylabel="share of the latents", yscale="log")
    axes.set_xlim(0, None)
    axes.legend()
    return figure


def projection(findings: Findings) -> Figure | None:
    """The codes over the latents in two directions; None where there is none to show."""
    shown = [
        (one, one.codebook, one.latents, one.code_use)
        for one in (findings.specimens.trials if findings.specimens else ())
        if one.codebook is not None and one.latents is not None and one.code_use is not None
    ]
    shown = [one for one in shown if np.isfinite(one[2]).all(axis=1).any()]
    if not shown:
        return None
    figure = Figure(figsize=(2.4 * len(shown), 2.7))
    for axes, (one, codes, latents, use) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
        part = findings.cast.get(one.trial_id)
        sound = latents[np.isfinite(latents).all(axis=1)]
        axes.scatter(*sound.T, s=1.5, color="#b9bec5", linewidths=0, rasterized=True)
        sizes = 4 + 26 * use[use > 0] / max(float(use.max()), 1.0)
        colour = part.colour if part else "#767c86"
        axes.scatter(*codes[use > 0].T, s=sizes, color=colour, linewidths=0)
        low, high = np.percentile(sound, [0.5, 99.5], axis=0)
        middle, half = (low + high) / 2, float((high - low).max()) * 0.56 or 1.0
        axes.set(
            xlim=(middle[0] - half, middle[0] + half),
            ylim=(middle[1] - half, middle[1] + half),
            xticks=[],
            yticks=[],
            aspect="equal",
            title=f"{one.title}\n{int((use > 0).sum())} of {len(use)} codes in use",
        )
        axes.scatter(*codes[use == 0].T, s=5, marker="x", color="#1c1e22", linewidths=0.6)
    return figure


def reconstructions(findings: Findings) -> Figure | None:
    """A few held-out examples in the first row, then each trial's reconstructions of them."""
    found = findings.specimens
    shown = [one for one in (found.trials if found else ()) if one.inputs and one.outputs]
    if found is None or not shown:
        return None
    columns = min(min(len(one.inputs), len(one.outputs)) for one in shown)
    figure = Figure(figsize=(1.5 * columns + 0.9, 1.4 * (len(shown) + 1)))
    grid = figure.subplots(len(shown) + 1, columns, squeeze=False)
    for i in range(columns):
        images = pixels([shown[0].inputs[i], *(one.outputs[i] for one in shown)], found.kind)
        for axes, image, title in zip(
            grid[:, i], images, ["input", *(one.title for one in shown)], strict=True
        ):
            axes.imshow(image, aspect="equal" if found.kind == "image" else "auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_ylabel(title)
    return figure
