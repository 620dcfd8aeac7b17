"""Groups, residual levels and transforms: what stands between the model and its codebooks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainables.codebooks.books import CPU, clock
from tests.trainables.conftest import make_config, make_dataset
from trainables.codebooks import Clock, Codebook, Quantized, Quantizer
from trainables.codebooks.groups import join_groups, split_groups
from trainables.codebooks.residual import levels_used, levels_used_on_host
from trainables.config import TrialConfig
from trainables.stack import Stack


def make_quantizer(
    size: int, dim: int, samples: int = 1000, lanes: int = 1, **blocks: Any
) -> Quantizer:
    values = {"codebook": {"size": size, "dim": dim, **blocks}, "training": {"samples": samples}}
    config = TrialConfig.from_dict(values).codebook
    seeds = torch.arange(lanes)
    return Quantizer([config] * lanes, [samples] * lanes, seeds, CPU, torch.float64)


def train_on(quantizer: Quantizer, z: Tensor, i: int) -> Quantized:
    """One step without an optimiser; z is [L, N, d]."""
    quantized = quantizer.quantize(z, clock(i, i + 1, i + 1))
    quantizer.after_step(quantized, [i], [i + 1])
    return quantized


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- groups --------------------------------------------------------------------------------------


@given(
    lanes=st.integers(1, 3),
    count=st.integers(1, 5),
    groups=st.integers(1, 4),
    dim=st.integers(1, 3),
)
def test_groups_are_consecutive_dimensions_and_come_back(
    lanes: int, count: int, groups: int, dim: int
) -> None:
    z = torch.randn(lanes, count, groups * dim)
    split = split_groups(z, groups)
    for lane in range(lanes):
        for group in range(groups):
            part = z[lane, :, group * dim : (group + 1) * dim]
            assert torch.equal(split[lane * groups + group], part)
    assert torch.equal(join_groups(split, groups), z)


def test_group_indices_round_trip() -> None:
    quantizer = make_quantizer(8, 12, groups={"count": 3}, update={"kind": "ema"})
    z = noise(1, 50, 12)
    codes = quantizer.look_up(z)
    assert codes.shape == (1, 3, 50)
    vectors = quantizer.embed(codes)
    assert torch.equal(quantizer.look_up(vectors), codes)
    quantized = quantizer.quantize(z, clock(0, 1))
    assert torch.equal(quantized.codes, codes)
    assert torch.equal(quantized.z_q, vectors)


def test_each_group_is_the_codebook_of_its_part_alone() -> None:
    blocks = {"update": {"kind": "ema", "decay": 0.8}, "respawn": {"period": 4}}
    grouped = make_quantizer(8, 6, groups={"count": 2}, **blocks)
    config = TrialConfig.from_dict({"codebook": {"size": 8, "dim": 3, **blocks}}).codebook
    seeds = grouped.codebooks[0].seeds
    alone = [Codebook([config], [1000], seeds[i : i + 1], 3, CPU, torch.float64) for i in (0, 1)]
    assert not torch.equal(alone[0].state["codebook"], alone[1].state["codebook"])
    for i in range(12):
        z = noise(1, 40, 6, seed=i)
        quantized = train_on(grouped, z, i)
        losses = []
        for part, book in zip(z.split(3, dim=-1), alone, strict=True):
            assigned = book.assign(part, clock(i, i + 1, i + 1).for_lanes(book.seeds))
            book.after_step(assigned.step, [i], [i + 1])
            losses.append(assigned.loss)
        torch.testing.assert_close(quantized.loss, torch.stack(losses).mean(0))
    for i, book in enumerate(alone):
        together = grouped.codebooks[0].state["codebook"][i : i + 1]
        torch.testing.assert_close(together, book.state["codebook"])


# --- residual ------------------------------------------------------------------------------------


def trained_chain(levels: int, dropout: float = 0.0) -> tuple[Quantizer, Tensor]:
    quantizer = make_quantizer(
        16,
        4,
        update={"kind": "ema", "decay": 0.9},
        residual={"levels": levels, "dropout": dropout},
        kmeans={"latents": 4000},
    )
    quantizer.seed(noise(1, 4000, 4, seed=99))
    for i in range(100):
        train_on(quantizer, noise(1, 512, 4, seed=i), i)
    return quantizer, noise(1, 4000, 4, seed=1000)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_residual_level_reduces_the_error(dropout: float) -> None:
    quantizer, z = trained_chain(5, dropout)
    codes = quantizer.look_up(z)
    errors = [(z - quantizer.embed(codes, n)).square().mean().item() for n in range(1, 6)]
    for earlier, later in itertools.pairwise(errors):
        assert later < 0.6 * earlier
    assert errors[0] < 0.5


def test_a_residual_level_quantizes_what_is_left_over() -> None:
    quantizer, z = trained_chain(3)
    codes, rest = quantizer.look_up(z), z
    for level, book in enumerate(quantizer.codebooks):
        nearest = torch.cdist(rest, book.state["codebook"]).argmin(-1)
        assert torch.equal(codes[:, level], nearest)
        rest = rest - book.embed(nearest)
    torch.testing.assert_close(z - quantizer.embed(codes), rest)


def test_the_decoders_gradient_passes_a_chain_once_and_every_level_pulls_the_encoder() -> None:
    quantizer = make_quantizer(
        8, 3, residual={"levels": 3}, update={"kind": "ema"}, commitment={"beta": 0.5}
    )
    z = noise(1, 20, 3).requires_grad_()
    quantized = quantizer.quantize(z, clock(0, 1))
    weights = noise(1, 20, 3, seed=1)
    [through] = torch.autograd.grad((quantized.z_q * weights).sum(), z, retain_graph=True)
    torch.testing.assert_close(through, weights)
    [pulled] = torch.autograd.grad(quantized.loss.sum(), z)
    rest, expected = z.detach(), torch.zeros(1, 20, 3, dtype=torch.float64)
    for book in quantizer.codebooks:
        rest = rest - book.embed(book.look_up(rest))
        expected += 0.5 * 2 * rest / rest.numel()
    torch.testing.assert_close(pulled, expected)


def test_dropout_uses_even_shares_of_the_levels_and_never_none() -> None:
    steps = torch.arange(40_000)
    always = Clock(steps, steps, steps, torch.zeros_like(steps))
    counts = levels_used(4, torch.ones(40_000), always).bincount(minlength=5)
    assert counts[0] == 0
    assert (counts[1:] - 10_000).abs().max() < 500
    half = levels_used(4, torch.full((40_000,), 0.5), always)
    assert (half == 4).double().mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.01)
    assert (levels_used(4, torch.zeros(40_000), always) == 4).all()


@given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(1, 10**6),
    levels=st.integers(1, 9),
    dropout=st.floats(0, 1),
)
def test_the_host_knows_what_is_dropped(seed: int, step: int, levels: int, dropout: float) -> None:
    lane = torch.tensor([dropout])
    now = Clock(*(torch.tensor([n]) for n in (0, 1, step, seed)))
    expected = int(levels_used(levels, lane, now))
    assert levels_used_on_host(levels, lane.item(), seed, step) == expected


def test_levels_that_no_lane_uses_are_passed_over_without_a_trace() -> None:
    """With what the host knows, and without: the same numbers."""
    blocks = {
        "update": {"kind": "ema", "decay": 0.9},
        "residual": {"levels": 3, "dropout": 0.8},
        "respawn": {"period": 3, "buffer": 100},
        "reanchor": {"decay": 0.5},
        "entropy": {"weight": 0.1},
    }
    told, untold = (make_quantizer(8, 3, lanes=2, **blocks) for _ in range(2))
    assert told.dropout is not None
    for i in range(20):
        z = noise(2, 40, 3, seed=i).requires_grad_()
        times = [torch.tensor([n, n]) for n in (i, i + 1, i + 1)]
        losses = []
        for quantizer, most in ((told, told.dropout.most([i + 1, i + 1])), (untold, None)):
            quantized = quantizer.quantize(z, Clock(*times, torch.arange(2)), most=most)
            total = quantized.loss.sum() + quantized.z_q.square().sum()
            losses.append(torch.autograd.grad(total, z)[0])
            quantizer.after_step(quantized, [i, i], [i + 1, i + 1])
        torch.testing.assert_close(*losses)
    for name, value in told.all_state().items():
        torch.testing.assert_close(value, untold.all_state()[name], msg=name)


def test_a_dropped_level_learns_nothing_and_adds_nothing() -> None:
    quantizer = make_quantizer(
        8, 3, residual={"levels": 3, "dropout": 1.0}, update={"kind": "ema", "decay": 0.5}
    )
    seen = set()
    for i in range(30):
        before = [book.state["codebook"].clone() for book in quantizer.codebooks]
        counts = [book.state["ema_count"].clone() for book in quantizer.codebooks]
        z, now = noise(1, 64, 3, seed=i), clock(i, i + 1, i + 1)
        used = int(levels_used(3, torch.ones(1), now))
        vectors = quantizer.embed(quantizer.look_up(z), used)
        quantized = train_on(quantizer, z, i)
        torch.testing.assert_close(quantized.z_q, vectors)
        for level, book in enumerate(quantizer.codebooks):
            if level >= used:  # an EMA of no latents: counts fall, codes stay
                torch.testing.assert_close(book.state["codebook"], before[level])
                torch.testing.assert_close(book.state["ema_count"], counts[level] / 2)
            else:
                assert not torch.equal(book.state["codebook"], before[level])
        seen.add(used)
    assert seen == {1, 2, 3}


# --- projections and dimensions ------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, {"count": 2}])
@pytest.mark.parametrize("kind", ["gradient", "ema"])
def test_raising_the_dimension_leaves_the_output_unchanged(kind: str, groups: Any) -> None:
    """At the step in which it happens; afterwards the new dimensions learn."""
    config = make_config(
        {
            "dim": 8,
            "update": {"kind": kind},
            "dim_growth": {"start": 2, "at": 0.5},
            "respawn": {"period": 8, "jitter": 0.5},
            "groups": groups,
        },
        samples=160,
        precision="float64",
    )
    stack = Stack([config], make_dataset(), CPU)
    [quantizer] = stack.quantizers
    book = quantizer.codebooks[0]
    closed = quantizer.state["open_dims"] == 0
    assert closed.sum() == 6
    stack.advance(19)  # 76 samples of 160: opens in the next step
    z = noise(1, 30, 8)

    def seen() -> list[Tensor]:
        codes = quantizer.look_up(z)
        return [codes, quantizer.embed(codes), quantizer.unquantized(z)]

    def of_codes() -> Tensor:
        return join_groups(book.state["codebook"].detach(), quantizer.groups)

    assert (of_codes()[closed.unsqueeze(1).expand(-1, 16, -1)] == 0).all()
    stack.advance(1)
    assert (quantizer.state["open_dims"] == 1).all()
    as_open = seen()
    quantizer.state["open_dims"] = (~closed).double()
    for mine, theirs in zip(as_open, seen(), strict=True):
        assert torch.equal(mine, theirs)
    quantizer.state["open_dims"] = torch.ones_like(closed).double()
    stack.advance(10)
    assert (of_codes()[closed.unsqueeze(1).expand(-1, 16, -1)] != 0).any()
    assert stack.finite.all()


def test_projections_are_trained_and_lead_through_few_dimensions() -> None:
    config = make_config({"dim": 8, "low_dim": {"dim": 2}}, precision="float64")
    stack = Stack([config], make_dataset(), CPU)
    [quantizer] = stack.quantizers
    before = {k: v.detach().clone() for k, v in quantizer.trained.items()}
    assert quantizer.codebooks[0].dim == 2
    stack.advance(5)
    for name, value in quantizer.trained.items():
        assert not torch.equal(value, before[name]), name
    vectors = quantizer.embed(quantizer.look_up(noise(1, 200, 8)))[0]
    bias = quantizer.state["project_out.bias"]
    assert torch.linalg.matrix_rank(vectors - bias) == 2


# --- normalisation -------------------------------------------------------------------------------


def test_batch_norm_is_torchs() -> None:
    quantizer = make_quantizer(4, 5, normalization={"kind": "batch", "momentum": 0.3})
    torch_norm = torch.nn.BatchNorm1d(5, momentum=0.3, affine=False, dtype=torch.float64)
    [transform] = quantizer.transforms
    settings = quantizer.settings["normalization"]
    for i in range(4):
        z = 3 * noise(1, 64, 5, seed=i) + 2
        mine, new = transform.enter(quantizer.state, z, settings, None, fit=True)
        quantizer.state |= new
        torch.testing.assert_close(mine[0], torch_norm(z[0]))
    torch.testing.assert_close(quantizer.state["norm_mean"][0], torch_norm.running_mean)
    # Torch's running variance is the unbiased one.
    torch.testing.assert_close(
        quantizer.state["norm_variance"][0], torch_norm.running_var, rtol=0.02, atol=0.02
    )
    quantizer.state["norm_variance"] = torch_norm.running_var.clone().unsqueeze(0)
    torch_norm.eval()
    frozen, unchanged = transform.enter(quantizer.state, z, settings, None, fit=False)
    torch.testing.assert_close(frozen[0], torch_norm(z[0]))
    assert unchanged == {}


def test_layer_norm_gives_every_latent_the_same_length() -> None:
    quantizer = make_quantizer(4, 6, normalization={"kind": "layer"}, update={"kind": "ema"})
    z = noise(2, 10, 6) * torch.tensor([1.0, 1e3]).view(2, 1, 1)
    inner = quantizer.unquantized(z[:1]), quantizer.unquantized(z[1:])
    for part, raw in zip(inner, z, strict=True):
        same = torch.full((1, 10), 6**0.5, dtype=torch.float64)
        torch.testing.assert_close(part.norm(dim=-1), same, rtol=1e-3, atol=0)
        torch.testing.assert_close(part[0], F.layer_norm(raw, (6,)))


def test_a_scale_that_runs_away_does_not_empty_a_normalised_codebook() -> None:
    """Latents that grow away leave an EMA codebook behind, but not behind a batch norm."""
    used = {}
    for normalization in (None, {"kind": "batch"}):
        quantizer = make_quantizer(
            32, 4, update={"kind": "ema", "decay": 0.9}, kmeans={"latents": 500},
            normalization=normalization,
        )  # fmt: skip
        quantizer.seed(noise(1, 500, 4, seed=1))
        for i in range(30):
            train_on(quantizer, 2.0**i * noise(1, 256, 4, seed=i), i)
        codes = quantizer.quantize(2.0**30 * noise(1, 2000, 4, seed=77), clock(30, 31)).codes
        used[normalization is not None] = len(codes.unique())
    assert used[True] > 28
    assert used[True] > 2 * used[False]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100))
def test_masked_latents_leave_no_trace(seed: int) -> None:
    """Whatever they are, everything but their own output is as if they were not there."""
    blocks = {
        "update": {"kind": "ema", "decay": 0.7},
        "normalization": {"kind": "batch"},
        "groups": {"count": 2},
        "residual": {"levels": 2},
        "entropy": {"weight": 0.5, "temperature": 1.0},
        "sample_entropy": {"weight": 0.5, "temperature": 1.0},
    }
    padded, short = make_quantizer(8, 4, **blocks), make_quantizer(8, 4, **blocks)
    mask = torch.arange(40).unsqueeze(0) < 25
    for i in range(5):
        z = noise(1, 40, 4, seed=seed + i)
        z[:, 25:] *= 1e4
        now = clock(i, i + 1, i + 1)
        long = padded.quantize(z, now, mask)
        cut = short.quantize(z[:, :25], now)
        torch.testing.assert_close(long.loss, cut.loss)
        torch.testing.assert_close(long.z_q[:, :25], cut.z_q)
        padded.after_step(long, [i], [i + 1])
        short.after_step(cut, [i], [i + 1])
    for name, value in short.all_state().items():
        torch.testing.assert_close(padded.all_state()[name], value, msg=name)


@pytest.mark.parametrize("buffer", [0, 200])
def test_no_code_is_respawned_to_a_masked_latent(buffer: int) -> None:
    quantizer = make_quantizer(
        32, 2, update={"kind": "ema"},
        respawn={"period": 1, "threshold": 1.0, "buffer": buffer, "jitter": 0.0},
        least_recent={"patience": 2, "jitter": 0.0}, reanchor={"decay": 0.5},
    )  # fmt: skip
    mask = torch.rand(1, 60, generator=torch.Generator().manual_seed(0)) < 0.7
    for i in range(12):
        z = noise(1, 60, 2, seed=i)
        z[~mask] = 1e6
        quantized = quantizer.quantize(z, clock(i, i + 1, i + 1), mask)
        quantizer.after_step(quantized, [i], [i + 1])
        assert quantizer.codebooks[0].state["codebook"].abs().max() < 100
