"""TrialConfig.codebook: the codebook's shape and its techniques, a block each."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainables.config_block import Block, fixed, kind_or, lane


class GradientUpdate(Block):
    """Loss-based codes: weight * ||sg(z_e) - e||^2 (van den Oord et al. 2017, eq. 3)."""

    kind: Literal["gradient"] = "gradient"
    weight: float = lane(1.0, "weight of the codebook term", gt=0, le=1000)
    lr_ratio: float = lane(1.0, "codebook learning rate / model learning rate", gt=0, le=1000)
    lr_final: float = lane(
        1.0, "the ratio at the end / at the start; a cosine between them", ge=0, le=1
    )


class EmaUpdate(Block):
    """Exponential moving averages of assigned latents (van den Oord 2017, appendix A.1)."""

    kind: Literal["ema"] = "ema"
    decay: float = lane(0.99, "decay of the averages, per update", ge=0, lt=1)
    accumulate: int = fixed(1, "steps whose statistics make one update", ge=1, le=10_000)


class SimVqUpdate(Block):
    """Frozen codes times a learned linear map: one gradient moves every code (SimVQ)."""

    kind: Literal["simvq"] = "simvq"
    weight: float = lane(1.0, "weight of the codebook term", gt=0, le=1000)
    lr_ratio: float = lane(1.0, "learning rate of the map / of the model", gt=0, le=1000)
    lr_final: float = lane(
        1.0, "the ratio at the end / at the start; a cosine between them", ge=0, le=1
    )


class FsqUpdate(Block):
    """Finite scalar quantization: no learned codes, each dimension is rounded to a few levels.

    codebook.size must be the product of the levels.
    """

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = fixed(
        (8, 8, 8), "levels of each dimension", strict=False, min_length=1, max_length=20
    )


class LfqUpdate(Block):
    """Lookup-free quantization: the signs of log2 K dimensions are the code's bits."""

    kind: Literal["lfq"] = "lfq"


UpdateConfig = Annotated[
    GradientUpdate | EmaUpdate | SimVqUpdate | FsqUpdate | LfqUpdate,
    Field(discriminator="kind"),
    kind_or("gradient"),
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


class BatchNorm(Block):
    """Standardise each latent dimension over the batch before the lookup."""

    kind: Literal["batch"] = "batch"
    momentum: float = lane(0.1, "share of a step in the running statistics", gt=0, le=1)


class LayerNorm(Block):
    """Standardise each latent over its dimensions before the lookup."""

    kind: Literal["layer"] = "layer"


NormalizationConfig = Annotated[
    BatchNorm | LayerNorm | None, Field(discriminator="kind"), kind_or("batch")
]


class LowDim(Block):
    """Look up in few dimensions, l2-normalised, between two trained projections (VQGAN-FC, DAC)."""

    dim: int = fixed(8, "dimension of the lookup", ge=1, le=8192)


class DimGrowth(Block):
    """Start with few dimensions of a trained projection and open the others later."""

    start: int = fixed(8, "dimensions open before growth", ge=1, le=8192)
    at: float = lane(0.3, "when to open all, as a share of training.samples", ge=0, le=1)


class Cosine(Block):
    """Latents and codes on the unit sphere; the lookup is by cosine similarity."""


class Stochastic(Block):
    """Draw codes from the soft assignment, ever less softly, while training."""

    temperature: float = lane(
        0.5, "softness at the start, in mean squared distances", gt=0, le=1000
    )
    until: float = lane(0.5, "when it has fallen to 0, as a share of training.samples", gt=0, le=1)


class Groups(Block):
    """Split the dimensions into groups, each with a codebook of `size` codes of its own."""

    count: int = fixed(2, "groups G", ge=1, le=256)


class Residual(Block):
    """A chain of codebooks of `size` codes, each quantizing what the ones before left over."""

    levels: int = fixed(2, "codebooks in the chain", ge=1, le=64)
    dropout: float = lane(
        0.0, "chance of a step that uses only a random number of the first levels", ge=0, le=1
    )


_MOVERS = ("respawn", "least_recent", "reanchor", "kmeans", "growth")

# Techniques that cannot act together, and why: an update kind or a block, and blocks beside it.
REFUSED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("fsq", _MOVERS, "the codes of fsq are a fixed grid and cannot be moved"),
    ("lfq", _MOVERS, "the codes of lfq are fixed signs and cannot be moved"),
    ("simvq", _MOVERS, "the codes of simvq are frozen and move only together, by its map"),
    ("fsq", ("low_dim", "dim_growth"), "fsq projects to a dimension a level by itself"),
    ("lfq", ("low_dim", "dim_growth"), "lfq projects to log2 K dimensions by itself"),
    ("simvq", ("dim_growth",), "the map of simvq fills all dimensions from the start"),
    ("fsq", ("cosine", "stochastic"), "fsq chooses codes by rounding, not by distance"),
    ("lfq", ("cosine", "stochastic"), "lfq chooses codes by sign, not by distance"),
    ("simvq", ("cosine",), "the codes of simvq are not free to stay on the sphere"),
    ("low_dim", ("cosine",), "low_dim normalises its lookup already"),
    ("fsq", ("residual",), "what fsq leaves over is smaller than its fixed grid can tell"),
    ("lfq", ("residual",), "what lfq leaves over is smaller than its fixed signs can tell"),
    ("cosine", ("residual",), "what is left over has no length on the unit sphere"),
)


class CodebookConfig(Block):
    """The codebook's shape and its techniques; a technique that is null is off."""

    size: int = fixed(512, "number of codes K, of each group and level", ge=1, le=1_048_576)
    dim: int = fixed(64, "dimension of the model's latents and of a code d", ge=1, le=8192)
    update: UpdateConfig = GradientUpdate()
    commitment: Commitment = Commitment()
    entropy: Entropy | None = None
    sample_entropy: SampleEntropy | None = None
    rotation: Rotation | None = None
    stochastic: Stochastic | None = None
    cosine: Cosine | None = None
    low_dim: LowDim | None = None
    dim_growth: DimGrowth | None = None
    normalization: NormalizationConfig = None
    groups: Groups | None = None
    residual: Residual | None = None
    respawn: Respawn | None = None
    least_recent: LeastRecent | None = None
    reanchor: Reanchor | None = None
    kmeans: KMeans | None = None
    growth: Growth | None = None

    @property
    def lookup_dim(self) -> int:
        """Dimensions of the lookup, those of all groups together."""
        groups = self.groups.count if self.groups else 1
        if isinstance(self.update, FsqUpdate):
            return groups * len(self.update.levels)
        if isinstance(self.update, LfqUpdate):
            return groups * (self.size.bit_length() - 1)
        return self.low_dim.dim if self.low_dim else self.dim

    @model_validator(mode="after")
    def _possible(self) -> CodebookConfig:
        for first, others, reason in REFUSED:
            if self.update.kind != first and getattr(self, first, None) is None:
                continue
            for other in others:
                if getattr(self, other) is not None:
                    own = f"update.kind {first}" if self.update.kind == first else first
                    raise ValueError(f"{other}: found with {own}, allowed without it: {reason}")
        self._check_sizes()
        return self

    def _check_sizes(self) -> None:
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
        if isinstance(self.update, FsqUpdate) and math.prod(self.update.levels) != self.size:
            raise ValueError(
                f"size: found {self.size}, allowed with fsq: the product of its levels = "
                f"{math.prod(self.update.levels)}"
            )
        if isinstance(self.update, LfqUpdate) and (self.size < 2 or self.size.bit_count() != 1):
            raise ValueError(f"size: found {self.size}, allowed with lfq: a power of 2, from 2 up")
        groups, dim = self.groups.count if self.groups else 1, self.lookup_dim
        where = f"codebook.low_dim.dim = {dim}" if self.low_dim else f"codebook.dim = {dim}"
        if dim % groups:
            raise ValueError(f"groups.count: found {groups}, allowed: a divisor of {where}")
        if self.dim_growth and (self.dim_growth.start > dim or self.dim_growth.start % groups):
            several = f" and a multiple of codebook.groups.count = {groups}" if groups > 1 else ""
            raise ValueError(
                f"dim_growth.start: found {self.dim_growth.start}, allowed at most {where}{several}"
            )
