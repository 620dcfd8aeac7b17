"""What a trial takes of a node: one share for all, or by rules another one for some configs.

A space's `resources:` block, checked when the space is loaded:

    resources:
      gpus: 0.125                                   # the default share, as --gpus-per-trial
      cpus: 1                                       # as --cpus-per-trial
      rules:                                        # the first that fits a trial's config
        - {where: {codebook.size: {min: 4096}}, gpus: 0.5}
        - {where: {model.width: [256, 512], training.batch_size: {max: 64}}, gpus: 0.25, cpus: 2}

`where` holds key paths of the config: a value, a list of values, or a range {min, max} with both
ends in it; all of them have to hold. What a rule leaves out is the default share's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from trainables.config_block import Block
from trainables.config_error import describe
from trainables.errors import InputError
from vqtune.space_errors import did_you_mean, shown

# Ray counts in ten-thousandths.
LEAST = 0.0001


class Range(Block):
    """Numbers from `min` to `max`; one of them may be left out."""

    min: float | None = Field(default=None, description="the least")
    max: float | None = Field(default=None, description="the greatest")

    @model_validator(mode="after")
    def _some(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("found an empty range; allowed: min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"found min {self.min:g} above max {self.max:g}; allowed: the reverse")
        return self

    def holds(self, value: object) -> bool:
        """Whether a number lies in it; anything else does not."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        least = -math.inf if self.min is None else self.min
        return least <= value <= (math.inf if self.max is None else self.max)


class Share(Block):
    """CPUs and GPUs of a trial; None for what another says."""

    cpus: float | None = Field(default=None, description="CPUs", ge=0, le=100_000)
    gpus: float | None = Field(
        default=None, description="GPUs, or a fraction of one", ge=0, le=1000
    )

    @field_validator("cpus", "gpus")
    @classmethod
    def _countable(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < LEAST:
            raise ValueError(f"found {value:g}; allowed: 0, or at least {LEAST}")
        return value

    @field_validator("gpus")
    @classmethod
    def _whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"found {value:g}; allowed: up to 1, or whole GPUs")
        return value


class Rule(Share):
    """A share for the configs in which all of `where` holds."""

    where: dict[str, Any] = Field(description="key paths to values")

    @field_validator("where")
    @classmethod
    def _readable(cls, where: dict[str, Any]) -> dict[str, Any]:
        if not where:
            raise ValueError("found none; allowed: one key path or more")
        return {path: _wanted(path, value) for path, value in where.items()}

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.cpus is None and self.gpus is None:
            raise ValueError("gpus: found neither cpus nor gpus; allowed: one of them or both")
        return self

    def over(self, cpus: float, gpus: float) -> tuple[float, float]:
        """CPUs and GPUs where these are the default."""
        return (
            cpus if self.cpus is None else self.cpus,
            gpus if self.gpus is None else self.gpus,
        )

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a config, as plain values, is one of those that are meant."""
        return all(_holds(wanted, _at(config, path)) for path, wanted in self.where.items())


class Shares(Share):
    """The default share and the rules."""

    rules: list[Rule] = Field(default=[], description="the first that fits counts")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Shares:
        """Read a `resources` block; raises InputError for anything else."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(f"resources.{describe(error, cls)}") from None

    def check_paths(self, known: Iterable[str]) -> None:
        """Refuse a rule about a key path that is none of those a config can have."""
        known = list(known)
        for i, rule in enumerate(self.rules):
            for path in rule.where:
                if path not in known:
                    raise InputError(
                        f"resources.rules.{i}.where: found {path!r}; allowed: a key path of a "
                        f"config{did_you_mean(path, known)}"
                    )

    def plain(self) -> dict[str, Any]:
        """What `parse` reads back; empty where nothing was said."""
        return self.model_dump(exclude_defaults=True)


def _wanted(path: str, value: Any) -> Any:
    if isinstance(value, Range | bool | int | float | str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(one, bool | int | float | str) for one in value):
            return value
    elif isinstance(value, dict):
        try:
            return Range.model_validate(value)
        except ValidationError as error:
            line = describe(error, Range).removeprefix("found ")
            raise ValueError(f"found {path}: {line}") from None
    raise ValueError(
        f"found {path}: {shown(value)}; allowed: a value, a list of values, or {{min, max}}"
    )


def _at(config: Mapping[str, Any], path: str) -> object:
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _holds(wanted: object, value: object) -> bool:
    if isinstance(wanted, Range):
        return wanted.holds(value)
    if isinstance(wanted, list):
        return any(_holds(one, value) for one in wanted)
    # True is no 1.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
