"""TrialConfig: everything that defines one trial, validated.

A search suggests one, a trial runs one, `vqtune export` writes one and `vqtune train` reads one.
Fields made with `lane(...)` may differ between the lanes of a stack; all others fix its shapes
and make up the stack's signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, JsonValue, ValidationError

from trainables.config_block import Block, fixed, is_lane_field, lane
from trainables.config_codebook import CodebookConfig
from trainables.config_data import DataConfig, SyntheticData
from trainables.config_error import describe
from trainables.config_model import ConvModel, ModelConfig
from trainables.errors import InputError
from trainables.yaml_file import read_mapping, yaml_text


class Training(Block):
    """How long and how fast; Adam on encoder, decoder and a loss-based codebook."""

    samples: int = lane(24_000, "training examples to draw", ge=1, le=10**12)
    batch_size: int = fixed(16, "examples in a step", ge=1, le=65_536)
    lr: float = lane(1e-3, "Adam learning rate of encoder and decoder", gt=0, le=10)
    warmup: float = lane(
        0.0, "share of the samples over which the learning rates rise from 0", ge=0, le=1
    )
    lr_final: float = lane(
        1.0, "learning rates at the end / at the start; a cosine between them", ge=0, le=1
    )
    reports: int = lane(8, "reports over the whole training, evenly spaced", ge=1, le=10_000)
    precision: Literal["auto", "float32", "float64", "bfloat16"] = fixed(
        "auto", "auto is bfloat16 autocast on CUDA and float32 elsewhere"
    )


class Evaluation(Block):
    """The fixed held-out set that the deciding metrics are computed on."""

    latents: int = fixed(25_600, "latents counted, the same for every trial", ge=1, le=10**9)


class TrialConfig(Block):
    """One trial. `provenance` is written by export and says where the config came from."""

    seed: int = lane(0, "seed of initialisation, data order and noise", ge=0, lt=2**31)
    data: DataConfig = SyntheticData()
    model: ModelConfig = ConvModel()
    codebook: CodebookConfig = CodebookConfig()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    provenance: dict[str, JsonValue] | None = fixed(None, "where an exported config came from")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, every default written out, no provenance where there is none."""
        values = self.model_dump(mode="json")
        if values["provenance"] is None:
            del values["provenance"]
        return values

    def to_yaml(self) -> str:
        """YAML that `from_yaml` turns back into an equal config."""
        return yaml_text(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config") -> TrialConfig:
        """Validate; raises InputError with key path, what was found and what is allowed."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(describe(error, cls), where) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrialConfig:
        """Read a YAML file; raises InputError for a file or a content that will not do."""
        return cls.from_dict(read_mapping(path), str(path))

    def signature(self) -> str:
        """Hash of all that fixes shapes and code paths: trials with the same one share a stack."""
        values = _without_lane_fields(self)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _without_lane_fields(block: BaseModel) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, field in type(block).model_fields.items():
        if is_lane_field(field) or name == "provenance":
            continue
        value = getattr(block, name)
        kept[name] = (
            _without_lane_fields(value)
            if isinstance(value, BaseModel)
            else list(value)
            if isinstance(value, tuple)
            else value
        )
    return kept
