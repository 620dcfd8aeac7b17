"""Techniques that change the lookup: what each claims, on data where that is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.codebooks.books import clock, make_codebook, mixture, modes, step_on
from trainables.codebooks.fsq import implied_codebook
from trainables.codebooks.soft_assignment import soft_codes

# --- FSQ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [[2], [3, 5], [8, 6, 5], [4, 4, 4], [7, 2, 3]])
def test_the_implied_codebook_of_fsq_enumerates(levels: list[int]) -> None:
    book = make_codebook(math.prod(levels), len(levels), update={"kind": "fsq", "levels": levels})
    codes = book.state["codebook"][0]
    assert len(codes.unique(dim=0)) == math.prod(levels)
    # Every code, as a latent that was rounded to it, reads as its own number.
    assert book.look_up(codes.unsqueeze(0))[0].tolist() == list(range(math.prod(levels)))
    steps = [sorted(set(codes[:, i].tolist())) for i in range(len(levels))]
    assert [len(values) for values in steps] == levels
    assert codes.abs().max() <= 1


@pytest.mark.parametrize("levels", [[3, 5], [8, 8, 8], [2, 4]])
def test_fsq_rounds_to_the_nearest_of_its_codes(levels: list[int]) -> None:
    book = make_codebook(math.prod(levels), len(levels), update={"kind": "fsq", "levels": levels})
    z = 3 * torch.randn(1, 500, len(levels), dtype=torch.float64)
    prepared = book.prepare(z)
    codes = book.look_up(prepared)
    # In units of the levels, in which the distance of the rounding is measured.
    half = torch.tensor([n // 2 for n in levels], dtype=torch.float64)
    nearest = torch.cdist(prepared[0] * half, implied_codebook(levels).double() * half).min(-1)
    assert codes[0].tolist() == nearest.indices.tolist()


def test_fsq_bounds_as_the_paper_does_and_passes_its_gradient() -> None:
    book = make_codebook(15, 2, update={"kind": "fsq", "levels": [3, 5]}, commitment={"beta": 0.0})
    z = torch.randn(1, 9, 2, dtype=torch.float64, requires_grad=True)
    assigned = book.assign(z, clock(0, 1))
    z_q = book.estimate(assigned.step)
    [found] = torch.autograd.grad(z_q.sum(), z)
    # Odd levels have no offset: f(z) = tanh(z) (L - 1) (1 + eps) / 2, in units of L // 2.
    slope = (1 - torch.tanh(z.detach()) ** 2) * 1.001
    torch.testing.assert_close(found, slope)
    assert assigned.loss.item() == 0
    everything = torch.tensor([[-50.0, -50], [0, 0], [50, 50]], dtype=torch.float64)
    ends = book.embed(book.look_up(book.prepare(everything.unsqueeze(0))))
    assert ends[0].tolist() == [[-1, -1], [0, 0], [1, 1]]


def test_fsq_uses_all_codes_of_a_wide_latent_and_never_moves_them() -> None:
    book = make_codebook(64, 3, update={"kind": "fsq", "levels": [4, 4, 4]})
    before = book.state["codebook"].clone()
    codes = step_on(book, 2 * torch.randn(4000, 3, dtype=torch.float64), 0).codes
    assert len(codes.unique()) == 64
    assert torch.equal(book.state["codebook"], before)


# --- LFQ -----------------------------------------------------------------------------------------


def test_lfq_reads_the_bits_of_its_code() -> None:
    book = make_codebook(32, 5, update={"kind": "lfq"})
    for number, signs in enumerate(itertools.product([-1.0, 1.0], repeat=5)):
        z = torch.tensor([[signs[::-1]]], dtype=torch.float64) * 0.3
        codes = book.look_up(z)
        assert codes.item() == number
        assert book.embed(codes)[0, 0].tolist() == list(signs[::-1])


def test_the_entropy_pair_of_lfq_is_that_of_independent_bits() -> None:
    """Softmax over all codes factorises into one sigmoid a dimension, which needs no codebook."""
    pair = {"weight": 1.0, "temperature": 0.7}
    book = make_codebook(16, 4, update={"kind": "lfq"}, entropy=pair, sample_entropy=pair)
    z = torch.randn(1, 50, 4, dtype=torch.float64)
    terms = book.assign(z, clock(0, 1)).terms
    scale = (z - z.sign()).square().sum(-1).mean()
    p = torch.sigmoid(4 * z[0] / (0.7 * scale))
    bits = -(p * p.log() + (1 - p) * (1 - p).log()).sum(-1)
    assert terms["sample_entropy"].item() == pytest.approx(bits.mean().item())
    joint = torch.zeros(16, dtype=torch.float64)
    for number in range(16):
        on = torch.tensor([number >> i & 1 for i in range(4)], dtype=torch.bool)
        joint[number] = torch.where(on, p, 1 - p).prod(-1).mean()
    expected = math.log(16) + (joint * joint.log()).sum()
    assert terms["entropy"].item() == pytest.approx(expected.item())


# --- SimVQ ---------------------------------------------------------------------------------------


def test_simvq_moves_every_code_on_one_gradient() -> None:
    book = make_codebook(64, 8, update={"kind": "simvq"})
    linear = book.state["simvq_map"].clone().requires_grad_()
    book.adopt("simvq_map", linear)
    before = book.state["codebook"].clone()
    z = torch.randn(1, 1, 8, dtype=torch.float64)
    assigned = book.assign(z, clock(0, 1))
    assert len(assigned.step.codes.unique()) == 1
    [gradient] = torch.autograd.grad(assigned.loss.sum(), linear)
    with torch.no_grad():
        linear -= 0.1 * gradient
    book.after_step(assigned.step, [0], [1])
    moved = (book.state["codebook"] - before).norm(dim=-1)
    assert (moved > 1e-6).all()
    expected = book.state["simvq_codes"] @ linear.detach().mT
    torch.testing.assert_close(book.state["codebook"], expected)
    # The plain loss-based update moves only what was chosen.
    plain = make_codebook(64, 8, update={"kind": "gradient"})
    codes = plain.state["codebook"].clone().requires_grad_()
    plain.adopt("codebook", codes)
    [gradient] = torch.autograd.grad(plain.assign(z, clock(0, 1)).loss.sum(), codes)
    assert (gradient.abs().sum(-1) > 0).sum() == 1


def test_simvq_gradients_are_autograds() -> None:
    book = make_codebook(16, 4, update={"kind": "simvq", "weight": 1.5}, commitment={"beta": 0.5})
    linear = book.state["simvq_map"].clone().requires_grad_()
    book.adopt("simvq_map", linear)
    z = torch.randn(1, 30, 4, dtype=torch.float64, requires_grad=True)
    assigned = book.assign(z, clock(0, 1))
    found = torch.autograd.grad(assigned.loss.sum(), [linear, z])
    chosen = (book.state["simvq_codes"] @ linear.mT)[0, assigned.step.codes[0]].unsqueeze(0)
    loss = 1.5 * F.mse_loss(chosen, z.detach()) + 0.5 * F.mse_loss(z, chosen.detach())
    torch.testing.assert_close(found, torch.autograd.grad(loss, [linear, z]))


def test_simvq_finds_modes_that_the_plain_update_does_not() -> None:
    centres = modes(32, 8) + 20
    used = {}
    for kind in ("gradient", "simvq"):
        book = make_codebook(32, 8, update={"kind": kind})
        name = "simvq_map" if kind == "simvq" else "codebook"
        trained = book.state[name].clone().requires_grad_()
        book.adopt(name, trained)
        adam = torch.optim.Adam([trained], lr=0.05)
        for i in range(1000):
            assigned = book.assign(mixture(centres, 256, seed=i).unsqueeze(0), clock(i, i + 1))
            adam.zero_grad()
            assigned.loss.sum().backward()
            adam.step()
            book.after_step(assigned.step, [i], [i + 1])
        later = mixture(centres, 2048, seed=10_000)
        used[kind] = len(book.look_up(later.unsqueeze(0)).unique())
    assert used["gradient"] <= 3
    assert used["simvq"] >= 3 * used["gradient"]


# --- low dimension and the sphere ----------------------------------------------------------------


def test_low_dim_compares_directions_and_keeps_lengths() -> None:
    book = make_codebook(3, 2, low_dim={"dim": 2}, update={"kind": "ema"})
    codes = torch.tensor([[[10.0, 0], [0, 0.1], [-3, -3]]], dtype=torch.float64)
    book.state["codebook"] = codes
    z = torch.tensor([[[0.3, 0.01], [1, 5], [-9, -8]]], dtype=torch.float64)
    assigned = book.assign(z, clock(0, 1))
    assert assigned.step.codes.tolist() == [[0, 1, 2]]
    assert torch.equal(book.estimate(assigned.step), codes)
    # By plain distance the first one, of length 0.3, would have gone to the code at 0, 0.1.
    assert torch.cdist(z, codes)[0, 0].argmin() == 1


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), gradient=st.booleans())
def test_the_cosine_lookup_is_the_largest_similarity(seed: int, gradient: bool) -> None:
    kind = "gradient" if gradient else "ema"
    book = make_codebook(12, 5, update={"kind": kind}, cosine={})
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(1, 40, 5, generator=generator, dtype=torch.float64)
    book.adopt("codebook", F.normalize(torch.randn(1, 12, 5, generator=generator).double(), dim=-1))
    assigned = book.assign(z, clock(0, 1))
    similarity = F.cosine_similarity(z[0].unsqueeze(1), book.state["codebook"], dim=-1)
    assert assigned.step.codes[0].tolist() == similarity.argmax(-1).tolist()
    torch.testing.assert_close(assigned.step.z_e.norm(dim=-1), torch.ones(1, 40).double())


def test_cosine_codes_stay_on_the_sphere_whatever_moves_them() -> None:
    book = make_codebook(
        32, 4, update={"kind": "ema", "decay": 0.8}, cosine={}, kmeans={"latents": 64},
        respawn={"period": 5, "jitter": 0.5}, growth={"start": 8, "at": 0.02},
    )  # fmt: skip
    ones = torch.ones(1, 32, dtype=torch.float64)
    torch.testing.assert_close(book.state["codebook"].norm(dim=-1), ones)
    torch.testing.assert_close(
        book.state["ema_sum"], book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    )
    book.seed(torch.randn(1, 64, 4, dtype=torch.float64))
    for i in range(40):
        step_on(book, 5 * torch.randn(64, 4, dtype=torch.float64), i, step=i + 1)
        torch.testing.assert_close(book.state["codebook"].norm(dim=-1), ones)
    assert book.state["usable"].all()


# --- stochastic assignment -----------------------------------------------------------------------


def test_codes_are_drawn_as_often_as_the_soft_assignment_says() -> None:
    book = make_codebook(
        4, 1, update={"kind": "ema"}, stochastic={"temperature": 2.0, "until": 1.0}
    )
    book.state["codebook"] = torch.tensor([[[-3.0], [-1], [1], [3]]], dtype=torch.float64)
    z = torch.full((1, 20_000, 1), 0.4, dtype=torch.float64)
    codes = book.assign(z, clock(0, 1, seed=3)).step.codes
    shares = codes[0].bincount(minlength=4) / 20_000
    softness = torch.tensor([2.0 * 0.6**2], dtype=torch.float64)
    expected = soft_codes(z[:, :1], book.state["codebook"], softness, None)[0, 0]
    assert (shares - expected).abs().max() < 4 * 0.5 / math.sqrt(20_000)
    assert expected.max() < 0.95  # several of them


def test_annealing_ends_at_the_nearest_code_and_evaluation_starts_there() -> None:
    book = make_codebook(
        16, 3, samples=1000, update={"kind": "ema"}, stochastic={"temperature": 9.0, "until": 0.5}
    )
    z = torch.randn(1, 2000, 3, dtype=torch.float64)
    nearest = torch.cdist(z, book.state["codebook"]).argmin(-1)
    assert torch.equal(book.look_up(z), nearest)
    off = [
        (book.assign(z, clock(n, n + 1)).step.codes != nearest).double().mean().item()
        for n in (0, 250, 400, 490, 500, 999)
    ]
    assert off[0] > 0.5
    assert off == sorted(off, reverse=True)
    assert off[-2:] == [0, 0]


def test_codes_that_may_not_be_chosen_are_not_drawn_either() -> None:
    book = make_codebook(
        64, 2, update={"kind": "ema"}, stochastic={"temperature": 50.0},
        growth={"start": 4, "at": 0.9},
    )  # fmt: skip
    z = torch.randn(1, 5000, 2, dtype=torch.float64)
    assert book.assign(z, clock(0, 1)).step.codes.unique().tolist() == [0, 1, 2, 3]
