"""TrialConfig.codebook: the codebook's shape and its techniques, a block each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainables.config_block import Block, fixed, kind_or, lane


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
    GradientUpdate | EmaUpdate, Field(discriminator="kind"), kind_or("gradient")
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
