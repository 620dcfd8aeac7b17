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
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError

from trainables.config_error import describe
from trainables.errors import InputError
from trainables.yaml_file import read_mapping, yaml_text


def lane(default: Any, description: str, **limits: Any) -> Any:
    """A field that may differ between the lanes of one stack."""
    return Field(default, description=description, json_schema_extra={"lane": True}, **limits)


def fixed(default: Any, description: str, **limits: Any) -> Any:
    """A field that fixes shapes or code paths, and so is part of the stack's signature."""
    return Field(default, description=description, **limits)


class Block(BaseModel):
    """A part of the config: unknown keys, NaN and implicit conversions are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


def _kind_or(default: str) -> BeforeValidator:
    """Fill in the discriminator of a mapping that leaves it out."""
    return BeforeValidator(
        lambda value: {"kind": default, **value} if isinstance(value, dict) else value
    )


def _integer(value: Any) -> Any:
    """Refuse True for 1 and 3.0 for 3, which Literal would take."""
    if type(value) is not int:
        raise PydanticKnownError("int_type")
    return value


# --- data ----------------------------------------------------------------------------------------


class LogMel(Block):
    """Log-mel spectrogram: natural log of the mel power, mel bands as channels."""

    sample_rate: int | None = fixed(
        None,
        "Hz that every file is resampled to; null takes the lowest rate found in the folder, "
        "at most 16000, so that nothing is upsampled",
        ge=1000,
        le=192_000,
    )
    mels: int = fixed(64, "mel bands", ge=1, le=512)
    window_ms: float = fixed(32.0, "analysis window in milliseconds", gt=0, le=1000)
    hop_ms: float = fixed(10.0, "hop between frames in milliseconds", gt=0, le=1000)
    fmin: float = fixed(0.0, "lowest mel frequency in Hz", ge=0)


class Data(Block):
    """What all kinds of data share."""

    heldout: float = fixed(0.2, "share of files held out for the metrics", gt=0, lt=1)
    split_seed: int = fixed(0, "seed of the split by file", ge=0, lt=2**31)


class Clips(Data):
    """Sequences of frames that are cut into clips."""

    clip_frames: int = fixed(32, "frames in a clip", ge=1, le=65_536)


class SyntheticData(Clips):
    """Embedded speech-like audio from a seeded source-filter synthesiser."""

    kind: Literal["synthetic"] = "synthetic"
    files: int = fixed(400, "utterances to synthesise", ge=2, le=100_000)
    seconds: float = fixed(4.0, "mean length of an utterance in seconds", gt=0.2, le=600)
    seed: int = fixed(0, "seed of the synthesiser", ge=0, lt=2**31)
    features: LogMel = LogMel()


class DigitsData(Data):
    """scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels."""

    kind: Literal["digits"] = "digits"


class AudioData(Clips):
    """A folder of wav, flac, ogg or mp3 files, read recursively."""

    kind: Literal["audio"] = "audio"
    path: str = fixed(..., "the folder", min_length=1)
    features: LogMel = LogMel()


class ImagesData(Data):
    """A folder of image files, read recursively, each resized and centre-cropped."""

    kind: Literal["images"] = "images"
    path: str = fixed(..., "the folder", min_length=1)
    size: int = fixed(64, "height and width in pixels", ge=4, le=1024)
    grayscale: bool = fixed(False, "one channel instead of three")


class ArraysData(Clips):
    """A .npy, .npz or .safetensors file, or a folder of them.

    An array of two axes is one sequence [frames, channels], cut into clips; one of three or four
    axes holds examples [n, channels, frames] or [n, channels, height, width].
    """

    kind: Literal["arrays"] = "arrays"
    path: str = fixed(..., "the file or folder", min_length=1)


class FactoryData(Clips):
    """A user's own function that returns {name: array}, arrays as in `arrays`."""

    kind: Literal["factory"] = "factory"
    factory: str = fixed(..., "package.module:function", pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, JsonValue] = fixed({}, "keyword arguments of the function")


DataConfig = Annotated[
    SyntheticData | DigitsData | AudioData | ImagesData | ArraysData | FactoryData,
    Field(discriminator="kind"),
    _kind_or("synthetic"),
]


# --- model ---------------------------------------------------------------------------------------


class ConvModel(Block):
    """Convolutional encoder and decoder; 1-D or 2-D as the data is.

    Encoder: a convolution to `width` channels, one strided convolution for each entry of
    `strides`, `depth` residual blocks, a 1 x 1 projection to d. The decoder mirrors it.
    """

    kind: Literal["conv"] = "conv"
    width: int = fixed(128, "channels inside encoder and decoder", ge=1, le=8192)
    depth: int = fixed(2, "residual blocks in each of encoder and decoder", ge=0, le=64)
    kernel: Annotated[Literal[1, 3, 5, 7, 9], BeforeValidator(_integer)] = fixed(
        3, "kernel size of the first and residual convolutions"
    )
    strides: tuple[Annotated[int, Field(ge=1, le=16)], ...] = fixed(
        (), "down-sampling of each stage; empty keeps the resolution", strict=False
    )


class FactoryModel(Block):
    """A user's own encoder and decoder.

    The function is called with example_shape=(C, ...), dim=d and `arguments`, and returns
    (encoder, decoder): modules mapping [B, C, ...] to [B, d, ...] and back.
    """

    kind: Literal["factory"] = "factory"
    factory: str = fixed(..., "package.module:function", pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, JsonValue] = fixed({}, "keyword arguments of the function")


ModelConfig = Annotated[ConvModel | FactoryModel, Field(discriminator="kind"), _kind_or("conv")]


# --- codebook ------------------------------------------------------------------------------------


class GradientUpdate(Block):
    """Loss-based codes: weight * ||sg(z_e) - e||^2 (van den Oord et al. 2017, eq. 3)."""

    kind: Literal["gradient"] = "gradient"
    weight: float = lane(1.0, "weight of the codebook term", gt=0, le=1000)
    lr_ratio: float = lane(1.0, "codebook learning rate / model learning rate", gt=0, le=1000)


class EmaUpdate(Block):
    """Exponential moving averages of assigned latents (van den Oord 2017, appendix A.1)."""

    kind: Literal["ema"] = "ema"
    decay: float = lane(0.99, "decay of the averages, per update", ge=0, lt=1)
    accumulate: int = fixed(1, "steps whose statistics make one update", ge=1, le=10_000)


UpdateConfig = Annotated[
    GradientUpdate | EmaUpdate, Field(discriminator="kind"), _kind_or("gradient")
]


class Commitment(Block):
    """beta * ||z_e - sg(e)||^2 on the encoder (van den Oord 2017, eq. 3)."""

    beta: float = lane(0.25, "commitment cost", ge=0, le=1000)


class Entropy(Block):
    """weight * (log K - H(mean soft assignment)) over all latents of the step.

    The soft assignment of a latent is softmax(-||z_e - e||^2 / (temperature * s)), s being the
    step's mean squared distance to the nearest code, so that the scale of the latents cancels.
    """

    weight: float = lane(0.1, "lambda, in nats", ge=0, le=1000)
    temperature: float = lane(0.1, "softness, in mean squared distances", gt=0, le=1000)


class Respawn(Block):
    """Replace dead codes by recent latents (as in Jukebox and Sound Stream)."""

    period: int = lane(3200, "samples between two respawns", ge=1)
    threshold: float = lane(
        0.1,
        "tau: a code used less than tau * (mean use since the last respawn) is dead",
        ge=0,
        le=1,
    )
    buffer: int = fixed(
        0, "recent latents to draw from; 0 draws from the current batch", ge=0, le=10_000_000
    )
    jitter: float = lane(
        0.01, "noise on a respawned code, in standard deviations of the latents", ge=0, le=10
    )


class LeastRecent(Block):
    """Replace codes by how long they have gone unused, not by how rarely they are used."""

    patience: int = lane(8000, "samples without a use after which a code is dead", ge=1)
    jitter: float = lane(
        0.01, "noise on a respawned code, in standard deviations of the latents", ge=0, le=10
    )


class Reanchor(Block):
    """Pull codes towards latents by how little they are used (CVQ-VAE)."""

    decay: float = lane(0.99, "decay of the running use, per step", ge=0, lt=1)


class Rotation(Block):
    """The rotation trick in place of the straight-through estimator."""


class SampleEntropy(Block):
    """weight * mean entropy of each latent's own soft assignment: confident lookups.

    With `entropy` it makes the per-sample-minus-batch pair; temperature as there.
    """

    weight: float = lane(0.1, "lambda, in nats", ge=0, le=1000)
    temperature: float = lane(0.1, "softness, in mean squared distances", gt=0, le=1000)


class KMeans(Block):
    """Seed the codebook with k-means over a pool of encoder outputs before training."""

    latents: int = fixed(16_384, "latents in the pool", ge=1, le=10_000_000)
    iterations: int = fixed(10, "Lloyd iterations", ge=0, le=1000)


class Growth(Block):
    """Train with fewer codes, then fill the codebook with jittered copies."""

    start: int = fixed(64, "codes before growth", ge=1, le=1_048_576)
    at: float = lane(0.3, "when to grow, as a share of training.samples", ge=0, le=1)
    jitter: float = lane(
        0.01, "noise on the copies, in root-mean-square code magnitudes", ge=0, le=10
    )


class CodebookConfig(Block):
    """The codebook's shape and its techniques; a technique that is null is off."""

    size: int = fixed(512, "number of codes K", ge=1, le=1_048_576)
    dim: int = fixed(64, "dimension of a code d", ge=1, le=8192)
    update: UpdateConfig = GradientUpdate()
    commitment: Commitment = Commitment()
    entropy: Entropy | None = None
    sample_entropy: SampleEntropy | None = None
    rotation: Rotation | None = None
    respawn: Respawn | None = None
    least_recent: LeastRecent | None = None
    reanchor: Reanchor | None = None
    kmeans: KMeans | None = None
    growth: Growth | None = None

    @model_validator(mode="after")
    def _possible(self) -> CodebookConfig:
        if self.growth and self.growth.start > self.size:
            raise ValueError(
                f"growth.start: found {self.growth.start}, allowed at most codebook.size = "
                f"{self.size}"
            )
        start = self.growth.start if self.growth else self.size
        if self.kmeans and self.kmeans.latents < start:
            raise ValueError(
                f"kmeans.latents: found {self.kmeans.latents}, allowed at least the {start} codes "
                "to seed"
            )
        return self


# --- training ------------------------------------------------------------------------------------


class Training(Block):
    """How long and how fast; Adam on encoder, decoder and a loss-based codebook."""

    samples: int = lane(24_000, "training examples to draw", ge=1, le=10**12)
    batch_size: int = fixed(16, "examples in a step", ge=1, le=65_536)
    lr: float = lane(1e-3, "Adam learning rate of encoder and decoder", gt=0, le=10)
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


def is_lane_field(field: FieldInfo) -> bool:
    """Whether lanes of one stack may differ in this field."""
    return isinstance(field.json_schema_extra, dict) and "lane" in field.json_schema_extra
