"""Inside the codebooks: how often each code is used, where the codes lie, what they rebuild."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.cast import Cast
from analysis.findings import Findings
from analysis.pictures import Pixels, pixels, png
from analysis.report.axes import Axis, crosses, dots, make_axis, path
from analysis.report.numbers import count
from analysis.specimen import Array, Kind, Specimen, Specimens

# Points of one line or one cloud: more would not be seen and would make the page heavy.
_LINE_POINTS = 400
_CLOUD_POINTS = 1500
# Of sound in the page, in bytes, so that it stays under 5 MB as a whole.
_AUDIO = 2_200_000
# Codes are drawn in this many sizes, by their use.
_SIZES = 4


@dataclass(frozen=True)
class Usage:
    """Share of the latents by code, the most used first; one path a stream."""

    title: str
    part: str
    tag: str
    paths: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class UsageChart:
    """Every specimen on one scale; `even` is the share if all codes were used alike."""

    x: Axis
    y: Axis
    lines: tuple[Usage, ...]
    even: float | None


@dataclass(frozen=True)
class Cloud:
    """A codebook's projection: dots of the latents, of unused codes, of used ones by size."""

    title: str
    part: str
    latents: str
    unused: str
    used: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Picture:
    """An image of the page: `source` and `sound` are data URIs, `sound` may be empty."""

    title: str
    part: str
    source: str
    width: int
    height: int
    alt: str
    sound: str


@dataclass(frozen=True)
class Inside:
    """What the section shows, and why the rest is not there."""

    usage: UsageChart | None
    clouds: tuple[Cloud, ...]
    examples: tuple[tuple[Picture, ...], ...]
    kind: str
    notes: tuple[str, ...]


def inside(findings: Findings) -> Inside:
    """Draw the specimens."""
    found = findings.specimens
    if found is None:
        note = "Nobody has looked into the codebooks of this run."
        return Inside(None, (), (), "", (note,))
    notes = [found.note, *(f"{one.title}: {one.note}" for one in found.trials if one.note)]
    groups = _groups(found)
    heard = _bytes_of_sound(groups) <= _AUDIO
    if not heard:
        notes.append("The examples are too long to be heard in this page.")
    clouds = [_cloud(one, findings.cast) for one in found.trials]
    return Inside(
        usage=_usage(found.trials, findings.cast),
        clouds=tuple(cloud for cloud in clouds if cloud is not None),
        examples=tuple(_examples(groups, found.kind, findings.cast, heard)),
        kind=found.kind,
        notes=tuple(note for note in notes if note),
    )


def _usage(specimens: Sequence[Specimen], cast: Cast) -> UsageChart | None:
    shown = [one for one in specimens if any(counts.sum() > 0 for counts in one.histograms)]
    if not shown:
        return None
    shares = {
        one.trial_id: [np.sort(h)[::-1] / h.sum() for h in one.histograms if h.sum() > 0]
        for one in shown
    }
    every = [share for own in shares.values() for share in own]
    x = make_axis("codes, the most used first", [0, *map(len, every)], zero=True, log=False)
    y = make_axis(
        "share of the latents", [float(p) for s in every for p in s[s > 0]], log=True, margin=0.08
    )
    lines = []
    for one in shown:
        own = shares[one.trial_id]
        used = ", ".join(f"{int((s > 0).sum())} of {len(s)}" for s in own)
        part, tag = cast.mark(one.trial_id)
        lines.append(
            Usage(
                title=one.title,
                part=part,
                tag=tag,
                paths=tuple(_usage_path(s, x, y) for s in own),
                label=f"{one.title}: {used} codes are hit at least once",
            )
        )
    sizes = {len(share) for share in every}
    even = y.place(1 / sizes.pop()) if len(sizes) == 1 else None
    return UsageChart(x, y, tuple(lines), even)


def _usage_path(share: Array, x: Axis, y: Axis) -> str:
    """A falling line with a drop to the ground where the codes end that are hit."""
    hit = int((share > 0).sum())
    picked = np.unique(np.linspace(0, hit - 1, min(hit, _LINE_POINTS)).round().astype(int))
    points = [(x.place(0), y.place(float(share[0])))]
    points += [(x.place(i + 1), y.place(float(share[i]))) for i in picked]
    return path([*points, (x.place(hit), 0.0)])


def _cloud(one: Specimen, cast: Cast) -> Cloud | None:
    if one.codebook is None or one.latents is None or one.code_use is None:
        return None
    latents = one.latents[np.isfinite(one.latents).all(axis=1)]
    sound = np.isfinite(one.codebook).all(axis=1)
    codes, use = one.codebook[sound], one.code_use[sound]
    if not len(latents) or not len(codes):
        return None
    # A few far latents and codes that nothing is near would make all the others one spot.
    kept = np.concatenate([np.percentile(latents, [0.5, 99.5], axis=0), codes[use > 0]])
    low, high = kept.min(axis=0), kept.max(axis=0)
    room = float((high - low).max()) * 1.08 or 1.0
    corner = (low + high) / 2 - room / 2

    def inner(points: Array) -> list[tuple[float, float]]:
        places = 100 * (points - corner) / room
        shown = places[((places >= 0) & (places <= 100)).all(axis=1)]
        return [(float(a), float(b)) for a, b in shown]

    step = max(1, -(-len(latents) // _CLOUD_POINTS))
    # By rank of use: the counts of a collapsed codebook would leave all but a few in one size.
    edges = np.quantile(use[use > 0], np.linspace(0, 1, _SIZES + 1)[1:-1]) if use.any() else []
    size = np.digitize(use, edges)
    used = int((use > 0).sum())
    return Cloud(
        title=one.title,
        part=cast.mark(one.trial_id)[0],
        latents=dots(inner(latents[::step])),
        unused=crosses(inner(codes[use == 0])),
        used=tuple(dots(inner(codes[(use > 0) & (size == i)])) for i in range(_SIZES)),
        label=f"{one.title}: {used} of {count(len(use), 'code')} in use, over the latents",
    )


def _groups(found: Specimens) -> list[list[Specimen]]:
    """The specimens with examples, those that were shown the same ones together."""
    groups: list[list[Specimen]] = []
    for one in found.trials:
        if not one.inputs or len(one.inputs) != len(one.outputs):
            continue
        group = next((g for g in groups if _same_inputs(g[0], one)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _examples(
    groups: Sequence[Sequence[Specimen]], kind: Kind, cast: Cast, sounds: bool
) -> Iterator[tuple[Picture, ...]]:
    """Rows of one example each: the example, then its reconstructions."""
    for group in groups:
        for i, example in enumerate(group[0].inputs):
            images = pixels([example, *(one.outputs[i] for one in group)], kind)
            first = _picture(images[0], f"example {i + 1}", "input", group[0], i, 0, sounds)
            others = [
                _picture(image, one.title, cast.mark(one.trial_id)[0], one, i, 1, sounds)
                for image, one in zip(images[1:], group, strict=True)
            ]
            yield (first, *others)


def _picture(
    image: Pixels, title: str, part: str, one: Specimen, example: int, side: int, sounds: bool
) -> Picture:
    heard = sounds and example < len(one.audio)
    alt = f"example {example + 1} as it is" if side == 0 else f"{title}: example {example + 1}"
    return Picture(
        title=title,
        part=part,
        source=_uri("image/png", png(image)),
        width=image.shape[1],
        height=image.shape[0],
        alt=alt if side == 0 else f"{alt} as it is reconstructed",
        sound=_uri("audio/wav", one.audio[example][side]) if heard else "",
    )


def _same_inputs(first: Specimen, second: Specimen) -> bool:
    return len(first.inputs) == len(second.inputs) and all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(first.inputs, second.inputs, strict=True)
    )


def _bytes_of_sound(groups: Sequence[Sequence[Specimen]]) -> int:
    """Count the outputs' sound, and the inputs' once a group."""
    inputs = sum(len(pair[0]) for group in groups for pair in group[0].audio)
    return inputs + sum(len(pair[1]) for group in groups for one in group for pair in one.audio)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
