"""Each technique at work in our quantizer, and in vector-quantize-pytorch's class of the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, GroupedResidualVQ, ResidualVQ, SimVQ, VectorQuantize

from benchmarks.timing import Work
from trainables.codebooks import Clock, Quantizer
from trainables.config import TrialConfig

SIZE, DIM = 512, 64
EMA = {"update": {"kind": "ema", "decay": 0.99}}


def _vq(**options: Any) -> nn.Module:
    # Straight-through as ours, but where the rotation trick is the technique.
    return VectorQuantize(dim=DIM, codebook_size=SIZE, **{"rotation_trick": False, **options})


def _grouped() -> nn.Module:
    return GroupedResidualVQ(
        dim=DIM, groups=2, num_quantizers=1, codebook_size=SIZE, rotation_trick=False
    )


def _residual(**options: Any) -> nn.Module:
    return ResidualVQ(
        dim=DIM, num_quantizers=4, codebook_size=SIZE, rotation_trick=False, **options
    )


# Name, our blocks, the peer's class. Respawn runs in every step in the peer, and in ours once in
# its default period of 3,200 samples, which is 200 steps of 16.
TECHNIQUES: list[tuple[str, dict[str, Any], Callable[[], nn.Module]]] = [
    ("ema", EMA, _vq),
    (
        "gradient",
        {},
        lambda: _vq(learnable_codebook=True, ema_update=False, commitment_weight=0.25),
    ),
    ("respawn", {**EMA, "respawn": {}}, lambda: _vq(threshold_ema_dead_code=0.1)),
    ("rotation trick", {**EMA, "rotation": {}}, lambda: _vq(rotation_trick=True)),
    ("cosine", {**EMA, "cosine": {}}, lambda: _vq(use_cosine_sim=True)),
    (
        "low dimension 8",
        {**EMA, "low_dim": {"dim": 8}},
        lambda: _vq(codebook_dim=8, use_cosine_sim=True),
    ),
    (
        "entropy",
        {**EMA, "entropy": {"weight": 0.1}},
        lambda: _vq(codebook_diversity_loss_weight=0.1),
    ),
    (
        "stochastic",
        {**EMA, "stochastic": {"until": 1.0}},
        lambda: _vq(stochastic_sample_codes=True, sample_codebook_temp=0.5),
    ),
    ("EMA over 8 steps", {"update": {**EMA["update"], "accumulate": 8}}, _vq),
    ("2 groups", {**EMA, "groups": {"count": 2}}, _grouped),
    ("4 residual levels", {**EMA, "residual": {"levels": 4}}, _residual),
    (
        "4 residual levels, dropout",
        {**EMA, "residual": {"levels": 4, "dropout": 1.0}},
        lambda: _residual(quantize_dropout=True),
    ),
    (
        "SimVQ",
        {"update": {"kind": "simvq"}},
        lambda: SimVQ(dim=DIM, codebook_size=SIZE, rotation_trick=False),
    ),
    (
        "FSQ 8x8x8",
        {"update": {"kind": "fsq"}, "commitment": {"beta": 0.0}},
        lambda: FSQ([8, 8, 8], dim=DIM),
    ),
    (
        "LFQ, entropy pair",
        {
            "update": {"kind": "lfq"},
            "commitment": {"beta": 0.0},
            "entropy": {},
            "sample_entropy": {},
        },
        lambda: LFQ(dim=DIM, codebook_size=SIZE),
    ),
]


def ours(blocks: dict[str, Any], z: Tensor) -> Work:
    """One step of our quantizer, as the trainer runs it: forward, backward, update."""
    config = TrialConfig.from_dict({"codebook": {"size": SIZE, "dim": DIM, **blocks}})
    zero = torch.zeros(1, dtype=torch.int64, device=z.device)
    quantizer = Quantizer([config.codebook], [24_000], zero, z.device, torch.float32)
    trained = {**quantizer.trained, **quantizer.trained_codes}
    parameters = {name: value.clone().requires_grad_() for name, value in trained.items()}
    quantizer.adopt(parameters)
    inputs = [z, *parameters.values()]
    steps = itertools.count(1)
    drawn = zero

    def work() -> None:
        nonlocal drawn
        step = next(steps)
        before, drawn = drawn, drawn + 16
        clock = Clock(before, drawn, drawn // 16, zero, (step,))
        quantized = quantizer.quantize(z.unsqueeze(0), clock)
        loss = quantized.z_q.mean() + quantized.loss.sum()
        torch.autograd.grad(loss, inputs, materialize_grads=True)
        quantizer.after_step(quantized, [16 * step - 16], [16 * step])

    return work


def peer(build: Callable[[], nn.Module], z: Tensor) -> Work:
    """One step of the peer's quantizer: forward, which updates, and backward."""
    quantizer = build().to(z.device)
    inputs = [z, *(p for p in quantizer.parameters() if p.requires_grad)]

    def work() -> None:
        quantized, _, *losses = quantizer(z.unsqueeze(0))
        loss = quantized.mean() + sum(value.sum() for value in losses)
        torch.autograd.grad(loss, inputs, materialize_grads=True, allow_unused=True)

    return work
