"""Stochastic assignment: while training, codes are drawn, ever closer to the nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks import moments
from trainables.codebooks.soft_assignment import soft_codes
from trainables.codebooks.technique import (
    Clock,
    Look,
    Settings,
    State,
    Technique,
    gather_codes,
)
from trainables.config_block import Block
from trainables.config_codebook import Stochastic as StochasticConfig


class Stochastic(Technique):
    """code ~ softmax(-||z_e - e||^2 / (t s)), t falling linearly to 0, where the nearest is taken.

    Sampled assignments of a VQ-VAE (Roy et al. 2018, "Theory and Experiments on Vector Quantized
    Autoencoders", section 3.2) with the annealing of Sonderby et al. 2017 ("Continuous Relaxation
    Training of Discrete Latent Variable Image Models"). s is the step's mean squared distance to
    the nearest code, so that t does not depend on the scale of the latents.
    """

    name = "stochastic"

    @classmethod
    def lane_settings(cls, config: Block, samples: int) -> dict[str, float]:
        """The temperature, and the samples after which it is 0."""
        assert isinstance(config, StochasticConfig)
        return {
            "temperature": config.temperature,
            "samples_until": max(1, round(config.until * samples)),
        }

    def choose(
        self, state: State, look: Look, clock: Clock | None, settings: Settings
    ) -> Tensor | None:
        """Draw by the inverse of the cumulated chances; nothing is drawn outside training."""
        if clock is None:
            return None
        z_e, codebook, closest = look.z_e, look.codebook, look.nearest()
        left = 1 - clock.samples_before.to(z_e.dtype) / settings["samples_until"]
        temperature = settings["temperature"] * left.clamp_min(0)
        squared = (z_e - gather_codes(codebook, closest)).square().sum(-1)
        scale = moments.mean(squared, look.mask)
        chances = soft_codes(z_e, codebook, temperature * scale, look.usable).cumsum(-1)
        key = noise.fold(noise.fold(clock.seed, 909), clock.step)
        goal = noise.uniform(key, (z_e.shape[1],)).to(z_e.dtype).unsqueeze(-1) * chances[..., -1:]
        drawn = torch.searchsorted(chances, goal, right=False).squeeze(-1)
        drawn = drawn.clamp_max(codebook.shape[1] - 1)
        return drawn.where((temperature > 0).unsqueeze(-1), closest)
