"""What an ablation compares: a config, the plain VQ-VAE, and what lies one technique from either.

A technique is whatever the codebook block does otherwise than the plain VQ-VAE, and the settings of
the training block that go with it. Data, model, K, d, budget and evaluation are the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.planned import PlannedTrial

Kind = Literal["config", "without", "baseline", "only"]
Values = dict[str, Any]

_SHAPE = ("size", "dim")
_TRAINING = ("batch_size", "lr", "warmup", "lr_final")


class Technique(NamedTuple):
    """Where a technique stands in a config."""

    block: str
    key: str


@dataclass(frozen=True)
class Variant:
    """One config of an ablation.

    Parameters
    ----------
    name : as in `without-respawn`
    kind : `config` and `baseline` are the two ends, `without` is one technique from the first and
        `only` one from the second
    technique : its name, empty for the two ends
    config : what is trained
    trials : name of the first variant of this very config, whose trials this one shares

    """

    name: str
    kind: Kind
    technique: str
    config: TrialConfig
    trials: str


def plain(config: TrialConfig) -> TrialConfig:
    """The plain VQ-VAE of the same data, model, K, d and budget, as Space.baseline has it."""
    values = config.to_dict()
    values.pop("provenance", None)
    values["codebook"] = {key: values["codebook"][key] for key in _SHAPE}
    for key in _TRAINING:
        del values["training"][key]
    return TrialConfig.from_dict(values)


def techniques(config: TrialConfig) -> dict[str, Technique]:
    """Name what the config does otherwise than the plain VQ-VAE, in the order of its blocks."""
    own, reference = config.to_dict(), plain(config).to_dict()
    places = [Technique("codebook", key) for key in own["codebook"] if key not in _SHAPE]
    places += [Technique("training", key) for key in _TRAINING]
    return {
        _name(place, own): place
        for place in places
        if own[place.block][place.key] != reference[place.block][place.key]
    }


def variants(config: TrialConfig) -> tuple[list[Variant], list[str]]:
    """List what is to be compared, and a line for each variant that TrialConfig refuses."""
    found: list[Variant] = []
    refused: list[str] = []
    for name, kind, technique, values in _all(config):
        try:
            made = TrialConfig.from_dict(values, name)
        except InputError as error:
            refused.append(str(error))
            continue
        trials = next((variant.name for variant in found if variant.config == made), name)
        found.append(Variant(name, kind, technique, made, trials))
    return found, refused


def planned_trials(found: Sequence[Variant], seeds: Sequence[int]) -> list[PlannedTrial]:
    """Each config with each seed, once; all with the first seed come first."""
    return [
        PlannedTrial(
            f"{variant.name}-s{seed}",
            # A run has one baseline, which `vqtune front` sets its trials against.
            "baseline" if variant.kind == "baseline" and seed == seeds[0] else "ablation",
            TrialConfig.from_dict({**variant.config.to_dict(), "seed": seed}, "--seeds"),
        )
        for seed in seeds
        for variant in found
        if variant.trials == variant.name
    ]


def _all(config: TrialConfig) -> Iterator[tuple[str, Kind, str, Values]]:
    own, base = config.to_dict(), plain(config).to_dict()
    own.pop("provenance", None)  # what it tells is of another training
    named = techniques(config)
    yield "config", "config", "", own
    yield "baseline", "baseline", "", base
    for name, place in named.items():
        yield f"without-{name}", "without", name, _put(own, place, base)
    for name, place in named.items():
        yield f"only-{name}", "only", name, _put(base, place, own)


def _put(values: Values, place: Technique, source: Values) -> Values:
    """The values with one technique as `source` has it."""
    block = {**values[place.block], place.key: source[place.block][place.key]}
    return {**values, place.block: block}


def _name(place: Technique, values: Values) -> str:
    value = values[place.block][place.key]
    if place.key == "commitment":
        return "beta"
    if place.key != "update":
        return place.key
    if value["kind"] != "gradient":
        return str(value["kind"])
    return "codebook_loss" if value["weight"] != 1 else "codebook_lr"
