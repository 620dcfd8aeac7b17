"""What the synthesiser says: speakers, and utterances as rows of phone targets.

`synthetic.py` turns these rows into sound. The formants of the vowels are the men's means of
Peterson and Barney (1952); consonant loci and noise spectra are rounded from Klatt (1980).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Target(NamedTuple):
    """What the vocal tract aims at for a while; frequencies in Hz for a 17.5 cm tract.

    Amplitudes are linear: `voicing` of the glottal pulses, `breath` of noise at the glottis (both
    pass the formants), `noise` of a constriction further forward, which has its own spectrum.
    """

    f1: float
    f2: float
    f3: float
    zero: float = 270.0  # nasal zero; at 270 it cancels the nasal pole
    voicing: float = 0.0
    breath: float = 0.0
    noise: float = 0.0
    centre: float = 4000.0  # of the constriction's noise
    octaves: float = 1.0  # half width of that noise
    semitones: float = 0.0  # pitch above the speaker's own
    effort: float = 0.0  # vocal effort: raises the corner of the spectral tilt, in octaves


def _vowel(f1: float, f2: float, f3: float) -> Target:
    return Target(f1, f2, f3, voicing=1.0, breath=0.02)


VOWELS = {
    "iy": _vowel(270, 2290, 3010),
    "ih": _vowel(390, 1990, 2550),
    "eh": _vowel(530, 1840, 2480),
    "ae": _vowel(660, 1720, 2410),
    "aa": _vowel(730, 1090, 2440),
    "ao": _vowel(570, 840, 2410),
    "uh": _vowel(440, 1020, 2240),
    "uw": _vowel(300, 870, 2240),
    "ah": _vowel(640, 1190, 2390),
    "er": _vowel(490, 1350, 1690),
    "yy": _vowel(280, 1900, 2300),  # front rounded
    "ax": _vowel(500, 1500, 2500),
}
DIPHTHONGS = (("aa", "iy"), ("aa", "uw"), ("ao", "iy"), ("eh", "iy"), ("ao", "uw"), ("iy", "ax"))

APPROXIMANTS = (
    Target(290, 610, 2150, voicing=0.5),  # w
    Target(260, 2070, 3020, voicing=0.5),  # j
    Target(310, 1060, 1380, voicing=0.5),  # r
    Target(310, 1050, 2880, voicing=0.5),  # l
)
NASALS = (
    Target(280, 950, 2200, zero=1000, voicing=0.45),  # m
    Target(280, 1650, 2600, zero=1600, voicing=0.45),  # n
    Target(280, 2250, 2750, zero=2700, voicing=0.45),  # ng
)
FRICATIVES = (
    Target(340, 1100, 2080, noise=0.07, centre=4500, octaves=2.0),  # f
    Target(320, 1290, 2540, noise=0.055, centre=6000, octaves=1.0),  # th
    Target(320, 1390, 2530, noise=0.35, centre=6000, octaves=0.45),  # s
    Target(300, 1840, 2750, noise=0.35, centre=3200, octaves=0.6),  # sh
    Target(280, 2200, 2900, noise=0.18, centre=3800, octaves=0.4),  # ç
    Target(400, 1200, 2300, noise=0.18, centre=1500, octaves=0.5),  # x
)
#: Locus while closed, then the spectrum of the burst.
PLOSIVES = (
    Target(250, 1000, 2150, noise=0.22, centre=900, octaves=1.5),  # p, b
    Target(250, 1700, 2600, noise=0.35, centre=4500, octaves=0.8),  # t, d
    Target(250, 2000, 2600, noise=0.35, centre=2000, octaves=0.5),  # k, g before front vowels
    Target(250, 1100, 2300, noise=0.3, centre=1200, octaves=0.5),  # k, g before back vowels
)

Row = tuple[Target, float]  # a target and how long it holds, in seconds


@dataclass(frozen=True)
class Speaker:
    """What stays the same through all that one speaker says."""

    pitch: float  # Hz
    liveliness: float  # scale of the pitch movements, in semitones
    formants: float  # scale of all formants: 1 is a tract of 17.5 cm, 1.2 one of 14.6 cm
    vowel_offsets: np.ndarray  # [vowels, 3] the speaker's own place of each vowel, as factors
    upper: np.ndarray  # [4] the speaker's own place of F4 to F7, as factors
    bandwidths: float  # scale of the formants' bandwidths
    tilt: float  # Hz, above which the voice falls by 6 dB an octave
    breath: float  # added to the breath of all that is voiced
    jitter: float  # of a cycle's length, relative
    shimmer: float  # of a cycle's amplitude, relative
    rate: float  # scale of all durations
    inertia: float  # seconds over which the articulators move


def draw_speaker(rng: np.random.Generator) -> Speaker:
    """Draw a speaker at random; short tracts go with high pitch, as in people."""
    size = rng.uniform(-1, 1)
    return Speaker(
        pitch=145 * 2 ** (0.6 * size + 0.25 * rng.standard_normal()),
        liveliness=rng.uniform(1.0, 4.5),
        formants=1.08 * 2 ** (0.18 * size + 0.05 * rng.standard_normal()),
        vowel_offsets=np.exp(0.06 * rng.standard_normal((len(VOWELS), 3))),
        upper=np.exp(0.04 * rng.standard_normal(4)),
        bandwidths=rng.uniform(0.8, 1.7),
        tilt=300 * 2 ** rng.uniform(-1.5, 2.0),
        breath=0.01 * 2 ** rng.uniform(-3, 3.5),
        jitter=rng.uniform(0.004, 0.03),
        shimmer=rng.uniform(0.02, 0.15),
        rate=2 ** rng.uniform(-0.35, 0.45),
        inertia=rng.uniform(0.035, 0.09),
    )


def draw_rows(rng: np.random.Generator, speaker: Speaker, seconds: float) -> list[Row]:
    """Phrases of words of syllables, with pauses between the phrases, for at least `seconds`."""
    rows: list[Row] = [_pause(rng, 0.05, 0.25)]
    spoken = 0.0
    while spoken < seconds:
        syllables = int(rng.integers(3, 13))
        rise = rng.choice((-4.0, -2.0, 4.0), p=(0.5, 0.3, 0.2))
        for position in range(syllables):
            part = (position + 1) / syllables
            stressed = rng.random() < 0.45
            accent = rng.uniform(0.5, 2.0) if stressed else rng.uniform(-0.6, 0.3)
            semitones = speaker.liveliness * (1.0 - 1.5 * part + accent)
            if position == syllables - 1:
                semitones += rise
            rows += _syllable(rng, speaker, stressed, semitones, part)
        rows.append(_pause(rng, 0.08, 0.45))
        spoken = sum(duration for _, duration in rows)
    return rows


def _pause(rng: np.random.Generator, shortest: float, longest: float) -> Row:
    return VOWELS["ax"]._replace(voicing=0.0, breath=0.0), rng.uniform(shortest, longest)


def _syllable(
    rng: np.random.Generator, speaker: Speaker, stressed: bool, semitones: float, part: float
) -> list[Row]:
    """(C)(C)V(C): louder and longer where stressed, longer and weaker towards a phrase's end."""
    rows: list[Row] = []
    if rng.random() < 0.85:
        rows += _consonant(rng)
        if rng.random() < 0.2:
            rows.append((_pick(rng, APPROXIMANTS), rng.uniform(0.03, 0.06)))
    rows += _nucleus(rng, speaker, stressed, 1.0 + 0.5 * part**4)
    if rng.random() < 0.35:
        rows += _consonant(rng)
    loudness = rng.uniform(0.7, 1.3) if stressed else rng.uniform(0.3, 0.8)
    loudness *= 1.2 - 0.6 * part
    effort = rng.uniform(0.0, 1.0) if stressed else rng.uniform(-1.0, 0.3)
    slope = speaker.liveliness * rng.normal(0, 0.6)  # the pitch moves through the syllable
    return [
        (
            target._replace(
                f1=target.f1 * math.exp(rng.normal(0, 0.05)),
                f2=target.f2 * math.exp(rng.normal(0, 0.05)),
                f3=target.f3 * math.exp(rng.normal(0, 0.03)),
                semitones=semitones + slope * (number / len(rows) - 0.5),
                effort=effort,
                voicing=target.voicing * loudness,
                breath=target.breath * loudness,
                noise=target.noise * loudness * rng.uniform(0.5, 1.5),
            ),
            duration * speaker.rate,
        )
        for number, (target, duration) in enumerate(rows)
    ]


def _nucleus(
    rng: np.random.Generator, speaker: Speaker, stressed: bool, stretch: float
) -> list[Row]:
    """Draw a vowel or a diphthong; unstressed ones are short and drawn towards schwa."""
    duration = stretch * (rng.uniform(0.08, 0.2) if stressed else rng.uniform(0.04, 0.1))
    if stressed and rng.random() < 0.3:
        first, last = DIPHTHONGS[rng.integers(len(DIPHTHONGS))]
        pair = (_own(speaker, first), _own(speaker, last))
        return [(target, 0.65 * duration) for target in pair]
    target = _own(speaker, list(VOWELS)[rng.integers(len(VOWELS))])
    if not stressed:
        schwa, towards = VOWELS["ax"], float(rng.uniform(0.1, 0.7))
        f1, f2, f3 = ((1 - towards) * target[i] + towards * schwa[i] for i in range(3))
        target = target._replace(f1=f1, f2=f2, f3=f3)
    if rng.random() < 0.15:  # whispered or creaked away
        target = target._replace(voicing=0.3 * target.voicing, breath=0.15)
    return [(target, duration)]


def _own(speaker: Speaker, name: str) -> Target:
    vowel = VOWELS[name]
    factors = speaker.vowel_offsets[list(VOWELS).index(name)]
    return vowel._replace(
        f1=vowel.f1 * factors[0], f2=vowel.f2 * factors[1], f3=vowel.f3 * factors[2]
    )


def _consonant(rng: np.random.Generator) -> list[Row]:
    """One consonant as rows; plosives have a closure, a burst and, voiceless, aspiration."""
    kind = rng.choice(4, p=(0.32, 0.3, 0.2, 0.18))
    voiced = rng.random() < 0.5
    if kind == 0:
        place = _pick(rng, PLOSIVES)
        bar = 0.12 if voiced else 0.0
        closed = place._replace(voicing=bar, noise=0.0)
        rows = [(closed, rng.uniform(0.03, 0.09)), (place._replace(voicing=bar), 0.012)]
        if not voiced:
            rows.append((place._replace(noise=0.0, breath=0.2), rng.uniform(0.015, 0.06)))
        return rows
    if kind == 1:
        noise = _pick(rng, FRICATIVES)
        if voiced:
            noise = noise._replace(voicing=0.25, noise=0.5 * noise.noise)
        spread = 2 ** (0.15 * float(rng.standard_normal()))
        return [(noise._replace(centre=noise.centre * spread), rng.uniform(0.05, 0.14))]
    inventory = NASALS if kind == 2 else APPROXIMANTS
    return [(_pick(rng, inventory), rng.uniform(0.04, 0.1))]


def _pick(rng: np.random.Generator, targets: tuple[Target, ...]) -> Target:
    return targets[rng.integers(len(targets))]
