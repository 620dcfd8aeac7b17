"""Each technique does what its name claims, on data where that is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.codebooks.books import (
    CPU,
    clock,
    make_codebook,
    mixture,
    modes,
    step_on,
)
from trainables.codebooks import Codebook, Step, nearest_codes
from trainables.codebooks.distance import squared_distance
from trainables.codebooks.kmeans import lloyd, plus_plus
from trainables.codebooks.straight_through import straight_through
from trainables.config import TrialConfig

# --- look up -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    lanes=st.integers(1, 3),
    count=st.integers(1, 3000),
    size=st.integers(1, 40),
    dim=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_nearest_codes_are_those_of_brute_force(
    lanes: int, count: int, size: int, dim: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(lanes, count, dim, generator=generator, dtype=torch.float64)
    book = torch.randn(lanes, size, dim, generator=generator, dtype=torch.float64)
    distances = torch.cdist(z, book, compute_mode="donot_use_mm_for_euclid_dist")
    codes = nearest_codes(z, book)
    found = distances.gather(2, codes.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, distances.min(-1).values, rtol=1e-9, atol=1e-9)


def test_codes_that_may_not_be_chosen_are_not() -> None:
    z = torch.zeros(1, 5, 2)
    book = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    usable = torch.tensor([[False, True, True]])
    assert nearest_codes(z, book, usable).tolist() == [[1] * 5]


# --- gradients -----------------------------------------------------------------------------------


def test_straight_through_passes_value_and_gradient() -> None:
    z = torch.randn(1, 4, 3, requires_grad=True)
    chosen = torch.randn(1, 4, 3, requires_grad=True)
    z_q = straight_through(z, chosen)
    weights = torch.randn(1, 4, 3)
    (z_q * weights).sum().backward()
    assert torch.equal(z_q, chosen)
    assert torch.equal(z.grad, weights)
    assert chosen.grad is None


def test_squared_distance_equals_autograds() -> None:
    moved = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    outer = torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64)
    plain = weights * (moved - target.detach()).square().mean((1, 2))
    [expected] = torch.autograd.grad((plain * outer).sum(), moved)
    ours = squared_distance(moved, target, weights)
    [found] = torch.autograd.grad((ours * outer).sum(), moved)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("beta", [0.0, 0.25, 4.0])
def test_commitment_pulls_the_encoder_by_beta_and_leaves_the_codes(beta: float) -> None:
    book = make_codebook(4, 3, update={"kind": "gradient"}, commitment={"beta": beta})
    book.adopt("codebook", book.state["codebook"].clone().requires_grad_())
    z = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    q = book.assign(z, clock(0, 1))
    chosen = book.embed(q.step.codes)
    to_z, to_codes = torch.autograd.grad(
        q.loss.sum(), [z, book.state["codebook"]], materialize_grads=True
    )
    torch.testing.assert_close(to_z, beta * 2 * (z - chosen) / z.numel())
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected.index_add_(0, q.step.codes[0], 2 * (chosen - z)[0] / z.numel())
    torch.testing.assert_close(to_codes[0], expected)


# --- EMA -----------------------------------------------------------------------------------------


def test_ema_is_the_closed_form_average() -> None:
    book = make_codebook(2, 1, update={"kind": "ema", "decay": 0.5})
    book.state |= {
        "codebook": torch.tensor([[[0.0], [10.0]]], dtype=torch.float64),
        "ema_count": torch.tensor([[1.0, 1.0]], dtype=torch.float64),
        "ema_sum": torch.tensor([[[0.0], [10.0]]], dtype=torch.float64),
    }
    step_on(book, torch.tensor([[1.0], [2.0], [9.0]], dtype=torch.float64), 0)
    # N = .5 * 1 + .5 * 2, m = .5 * 0 + .5 * 3; and .5 + .5 * 1, 5 + 4.5
    assert book.state["ema_count"].tolist() == [[1.5, 1.0]]
    torch.testing.assert_close(
        book.state["codebook"], torch.tensor([[[1.5 / 1.5], [9.5]]], dtype=torch.float64)
    )


def test_an_unused_code_stays_for_ever() -> None:
    book = make_codebook(2, 1, dtype=torch.float32, update={"kind": "ema", "decay": 0.9})
    book.state["codebook"] = torch.tensor([[[0.0], [123.25]]])
    book.state["ema_sum"] = book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    for i in range(3000):
        step_on(book, torch.full((4, 1), 0.5), i, step=i + 1)
    assert book.state["codebook"][0, 1].item() == pytest.approx(123.25, rel=1e-4)
    assert book.state["codebook"].isfinite().all()


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 5), seed=st.integers(0, 100))
def test_accumulated_statistics_equal_one_large_batch(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n * 8, 3, generator=generator, dtype=torch.float64)
    slow = make_codebook(5, 3, update={"kind": "ema", "decay": 0.7, "accumulate": n})
    fast = make_codebook(5, 3, update={"kind": "ema", "decay": 0.7})
    for i, part in enumerate(z.split(8)):
        before = slow.state["codebook"].clone()
        step_on(slow, part, i, step=i + 1)
        if i < n - 1:
            torch.testing.assert_close(slow.state["codebook"], before)
    step_on(fast, z, 0)
    torch.testing.assert_close(slow.state["codebook"], fast.state["codebook"])
    assert slow.state["ema_new_count"].sum() == 0


# --- respawn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, 1024])
def test_respawn_fills_a_codebook_on_as_many_modes_and_it_stays_filled(buffer: int) -> None:
    centres = modes(64, 8)
    blocks = {"update": {"kind": "ema", "decay": 0.9}, "commitment": {"beta": 1.0}}
    book = make_codebook(
        64, 8, **blocks, respawn={"period": 10, "threshold": 0.3, "buffer": buffer}
    )
    plain = make_codebook(64, 8, **blocks)
    for i in range(600):
        z = mixture(centres, 512, seed=i)
        step_on(book, z, i, step=i + 1)
        step_on(plain, z, i, step=i + 1)
    later = mixture(centres, 4096, seed=10_000)
    filled = len(book.look_up(later.unsqueeze(0)).unique())
    assert len(plain.look_up(later.unsqueeze(0)).unique()) < 40
    assert filled >= 62
    # Without any more respawns (the period is never reached) nothing falls out again.
    for i in range(100):
        quantized = book.assign(mixture(centres, 512, seed=20_000 + i).unsqueeze(0), clock(1, 2))
        book.after_step(quantized.step, [1], [2])
    assert len(book.look_up(later.unsqueeze(0)).unique()) >= filled


def dead_book(period: int = 10, threshold: float = 0.5, **options: Any) -> Codebook:
    """16 codes, of which 0 to 3 sit on the data at the origin and 12 are far away."""
    book = make_codebook(
        16,
        2,
        update={"kind": "ema", "decay": 0.99},
        respawn={"period": period, "threshold": threshold, "jitter": 0.0, **options},
    )
    far = torch.full((1, 16, 2), 1e3, dtype=torch.float64)
    far[0, :4] = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    far[0, 4:] += torch.arange(12, dtype=torch.float64).unsqueeze(-1)
    book.state["codebook"] = far
    book.state["ema_sum"] = far * book.state["ema_count"].unsqueeze(-1)
    return book


def test_the_reset_survives_the_next_ema_update() -> None:
    book = dead_book(period=1)
    z = torch.rand(32, 2, dtype=torch.float64)
    step_on(book, z, 0)
    reset = book.state["codebook"][0, 4:].clone()
    assert (reset <= 1).all()
    # A step in which nothing chooses them: they must stay where the respawn put them.
    book.after_step(
        Step(
            z.unsqueeze(0),
            torch.zeros(1, 32, dtype=torch.int64),
            z.unsqueeze(0),
            clock(0, 0),
            16,
        ),
        [0],
        [0],
    )
    torch.testing.assert_close(book.state["codebook"][0, 4:], reset)


def test_no_two_dead_codes_get_the_same_latent() -> None:
    book = dead_book(period=1)
    z = torch.rand(12, 2, dtype=torch.float64)
    step_on(book, z, 0)
    reset = book.state["codebook"][0, 4:]
    assert len(reset.unique(dim=0)) == 12
    assert {tuple(row) for row in reset.tolist()} == {tuple(row) for row in z.tolist()}


def test_more_dead_codes_than_latents_leaves_the_rest_waiting() -> None:
    book = dead_book(period=1)
    z = torch.rand(5, 2, dtype=torch.float64)
    step_on(book, z, 0)
    same = (book.state["codebook"][0].unsqueeze(1) == z).all(-1)
    assert same.sum(0).tolist() == [1] * 5  # each latent went to one code
    assert same.sum() == 5


def test_respawn_acts_once_a_period_and_not_on_codes_above_the_threshold() -> None:
    book = dead_book(period=10)
    z = torch.rand(32, 2, dtype=torch.float64)
    for before in range(9):
        step_on(book, z, before, step=before + 1)
        assert (book.state["codebook"][0, 4:] >= 100).all()
    live = book.state["codebook"][0, :4].clone()
    step_on(book, z, 9, step=10)
    assert (book.state["codebook"][0, 4:] <= 1).all()
    torch.testing.assert_close(book.state["codebook"][0, :4], live, rtol=0.5, atol=0.1)
    assert book.state["respawn_use"].sum() == 0


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 20), min_size=16, max_size=16), tau=st.floats(0, 1))
def test_dead_is_less_than_tau_times_the_mean_use(counts: list[int], tau: float) -> None:
    book = dead_book(period=1, threshold=tau)
    book.state["respawn_use"] = torch.tensor([counts], dtype=torch.float64)
    z = torch.rand(40, 2, dtype=torch.float64)
    quantized = book.assign(z.unsqueeze(0), clock(0, 1))
    use = quantized.step.counts[0] + torch.tensor(counts)
    before = book.state["codebook"].clone()
    book.after_step(quantized.step, [0], [1])
    dead = use < tau * use.mean()
    unused_before = (before - book.state["codebook"]).abs().sum(-1)[0] > 0.5
    # Far codes move only by respawn.
    assert torch.equal(unused_before[4:], dead[4:])


# --- entropy -------------------------------------------------------------------------------------


def test_entropy_is_zero_for_even_use_and_log_k_for_one_code() -> None:
    corners = torch.tensor([[[0.0, 0], [9, 0], [0, 9], [9, 9]]], dtype=torch.float64)
    book = make_codebook(4, 2, update={"kind": "ema"}, entropy={"weight": 1.0, "temperature": 0.1})
    book.state["codebook"] = corners
    even = (corners + 0.1).requires_grad_()
    term = book.assign(even, clock(0, 1)).terms["entropy"]
    assert term.item() == pytest.approx(0.0, abs=1e-9)
    one = (corners[:, :1] + 0.1).expand(1, 4, 2)
    assert book.assign(one, clock(0, 1)).terms["entropy"].item() == pytest.approx(math.log(4))


def test_entropy_counts_all_latents_alike_whatever_the_batches_shape() -> None:
    book = make_codebook(4, 2, update={"kind": "ema"}, entropy={"weight": 1.0})
    z = torch.randn(1, 24, 2, dtype=torch.float64)
    mixed = z[:, torch.randperm(24)]
    first, second = (book.assign(x, clock(0, 1)).terms["entropy"] for x in (z, mixed))
    torch.testing.assert_close(first, second)


def test_entropy_moves_latents_towards_unused_codes() -> None:
    book = make_codebook(
        2,
        1,
        update={"kind": "ema"},
        commitment={"beta": 0.0},
        entropy={"weight": 1.0, "temperature": 5.0},
    )
    book.state["codebook"] = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
    z = torch.full((1, 8, 1), 0.5, dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(book.assign(z, clock(0, 1)).loss.sum(), z)
    assert (gradient < 0).all()  # descent moves them up, towards the code at 2


# --- k-means -------------------------------------------------------------------------------------


def test_kmeans_seeding_covers_the_modes() -> None:
    centres = modes(512, 16)
    pool = mixture(centres, 16_384, seed=1).unsqueeze(0)
    book = make_codebook(512, 16, update={"kind": "ema"}, kmeans={"latents": 16_384})
    book.seed(pool)
    codes = nearest_codes(centres.unsqueeze(0), book.state["codebook"])
    error = (centres - book.state["codebook"][0, codes[0]]).norm(dim=-1)
    assert (error < 1).float().mean() >= 0.95
    torch.testing.assert_close(
        book.state["ema_sum"], book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    )


def test_lloyd_never_raises_the_error() -> None:
    pool = torch.randn(2, 500, 3, dtype=torch.float64)
    centres = plus_plus(pool, 8, torch.tensor([1, 2]))
    errors = [
        (pool - torch.gather(c, 1, nearest_codes(pool, c).unsqueeze(-1).expand(-1, -1, 3)))
        .square()
        .sum((1, 2))
        for c in (lloyd(pool, centres, i) for i in range(6))
    ]
    for earlier, later in itertools.pairwise(errors):
        assert (later <= earlier + 1e-9).all()


def test_kmeans_agrees_with_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    pool = mixture(modes(12, 4), 2000, seed=3)
    start = plus_plus(pool.unsqueeze(0), 12, torch.tensor([5]))
    ours = lloyd(pool.unsqueeze(0), start, 50)[0]
    theirs = KMeans(12, init=start[0].numpy(), n_init=1, max_iter=50).fit(pool.numpy())
    torch.testing.assert_close(
        ours, torch.from_numpy(theirs.cluster_centers_), rtol=1e-6, atol=1e-6
    )


# --- growth --------------------------------------------------------------------------------------


def grown(update: dict[str, Any]) -> tuple[Codebook, torch.Tensor]:
    book = make_codebook(32, 4, update=update, growth={"start": 4, "at": 0.5, "jitter": 0.001})
    return book, mixture(modes(4, 4), 256, seed=0)


def test_growth_starts_small_and_copies_once() -> None:
    book, z = grown({"kind": "ema", "decay": 0.9})
    for i in range(499):
        codes = step_on(book, z, i, step=i + 1).codes
        assert codes.max() < 4
    parents = book.state["codebook"][0, :4].clone()
    step_on(book, z, 499, step=500)
    assert book.state["usable"].all()
    copies = book.state["codebook"][0].view(8, 4, 4)
    torch.testing.assert_close(copies, parents.expand(8, 4, 4), rtol=0.05, atol=0.1)
    assert len(book.state["codebook"][0].unique(dim=0)) == 32


def test_growth_keeps_the_loss_and_lets_the_copies_live() -> None:
    book, _ = grown({"kind": "ema", "decay": 0.9})
    generator = torch.Generator().manual_seed(0)
    fixed = torch.randn(4096, 4, generator=generator, dtype=torch.float64)
    losses, used = [], 0
    for i in range(700):
        z = torch.randn(512, 4, generator=generator, dtype=torch.float64)
        used = len(step_on(book, z, i, step=i + 1).codes.unique())
        nearest = book.embed(book.look_up(fixed.unsqueeze(0)))[0]
        losses.append((fixed - nearest).square().mean().item())
    assert losses[499] == pytest.approx(losses[498], rel=0.05)  # grows in the step to 500 samples
    assert book.state["usable"].all()
    assert losses[-1] < 0.8 * losses[498]
    assert used > 24


# --- respawn by age ------------------------------------------------------------------------------


def test_least_recent_sets_idle_codes_and_keeps_rare_ones() -> None:
    book = make_codebook(
        4, 1, update={"kind": "ema", "decay": 0.99}, least_recent={"patience": 10, "jitter": 0.0}
    )
    book.state["codebook"] = torch.tensor([[[0.0], [5.0], [100.0], [200.0]]], dtype=torch.float64)
    book.state["ema_sum"] = book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    often = torch.linspace(-1, 1, 64, dtype=torch.float64).unsqueeze(-1)
    for i in range(20):
        rare = torch.full((1, 1), 5.0, dtype=torch.float64) if i % 6 == 0 else often[:1]
        step_on(book, torch.cat([often, rare]), i, step=i + 1)
        waiting = i < 9
        assert (book.state["codebook"][0, 2:, 0] > 50).all() == waiting
    assert book.state["codebook"][0, 1, 0] == pytest.approx(5.0)


def test_least_recent_fills_a_codebook() -> None:
    centres = modes(64, 8)
    book = make_codebook(64, 8, update={"kind": "ema", "decay": 0.9}, least_recent={"patience": 10})
    for i in range(600):
        step_on(book, mixture(centres, 512, seed=i), i, step=i + 1)
    later = mixture(centres, 4096, seed=10_000)
    assert len(book.look_up(later.unsqueeze(0)).unique()) >= 62


# --- re-anchoring --------------------------------------------------------------------------------


def test_reanchoring_moves_a_code_by_the_papers_share() -> None:
    decay, uses = 0.9, torch.tensor([[0.0, 1e-4, 1e-3, 0.25]], dtype=torch.float64)
    book = make_codebook(4, 2, update={"kind": "ema", "decay": 0.99}, reanchor={"decay": decay})
    start = torch.tensor([[[9.0, 9], [8, 8], [7, 7], [0, 0]]], dtype=torch.float64)
    book.state |= {"codebook": start, "reanchor_use": uses / decay}
    book.state["ema_sum"] = start * book.state["ema_count"].unsqueeze(-1)
    z = torch.zeros(8, 2, dtype=torch.float64)  # all choose the last code, all anchors are 0
    step_on(book, z, 0)
    share = torch.exp(-10 * 4 * uses[0] / (1 - decay) - 1e-3)
    expected = start[0] * (1 - share.unsqueeze(-1))
    torch.testing.assert_close(book.state["codebook"][0, :3], expected[:3], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        book.state["ema_sum"], book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    )


def test_reanchoring_fills_a_codebook() -> None:
    centres = modes(64, 8)
    book = make_codebook(64, 8, update={"kind": "ema", "decay": 0.9}, reanchor={"decay": 0.9})
    for i in range(600):
        step_on(book, mixture(centres, 512, seed=i), i, step=i + 1)
    later = mixture(centres, 4096, seed=10_000)
    assert len(book.look_up(later.unsqueeze(0)).unique()) >= 60


# --- rotation trick ------------------------------------------------------------------------------


def test_rotation_gradients_are_those_of_the_papers_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    z, q, g = (torch.randn(1, 20, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    book = make_codebook(4, 5, update={"kind": "ema"}, rotation={})
    z.requires_grad_()
    step = Step(z, torch.zeros(1, 20, dtype=torch.int64), q, clock(0, 1), 4)
    rotation = next(t for t in book.techniques if t.name == "rotation")
    z_q = rotation.estimate(book.state, step, {})
    assert torch.equal(z_q, q)
    [found] = torch.autograd.grad((z_q * g).sum(), z)
    for i in range(20):
        e, c = z.detach()[0, i], q[0, i]
        e_unit, c_unit = e / e.norm(), c / c.norm()
        r = (e_unit + c_unit) / (e_unit + c_unit).norm()
        matrix = torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r)
        matrix = (c.norm() / e.norm()) * (matrix + 2 * torch.outer(c_unit, e_unit))
        torch.testing.assert_close(matrix @ e, c)  # it maps the latent to its code
        torch.testing.assert_close(found[0, i], matrix.T @ g[0, i])


def test_rotation_survives_zeros_and_opposites() -> None:
    z = torch.tensor([[[0.0, 0], [1, 0], [0, 0]]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[[1.0, 0], [-1, 0], [0, 0]]], dtype=torch.float64)
    book = make_codebook(4, 2, update={"kind": "ema"}, rotation={})
    step = Step(z, torch.zeros(1, 3, dtype=torch.int64), q, clock(0, 1), 4)
    rotation = next(t for t in book.techniques if t.name == "rotation")
    [gradient] = torch.autograd.grad(rotation.estimate(book.state, step, {}).sum(), z)
    assert gradient.tolist() == [[[1, 1], [1, 1], [1, 1]]]  # passed as it is


# --- sample entropy ------------------------------------------------------------------------------


def test_sample_entropy_is_zero_on_a_code_and_log_2_between_two() -> None:
    options = {"weight": 1.0, "temperature": 1.0}
    book = make_codebook(2, 1, update={"kind": "ema"}, sample_entropy=options)
    book.state["codebook"] = torch.tensor([[[-1.0], [1.0]]], dtype=torch.float64)
    between = torch.zeros(1, 8, 1, dtype=torch.float64)
    term = book.assign(between, clock(0, 1)).terms["sample_entropy"]
    assert term.item() == pytest.approx(math.log(2))
    near = torch.tensor([[[-1.01], [1.01]]], dtype=torch.float64)
    assert book.assign(near, clock(0, 1)).terms["sample_entropy"].item() < 1e-6


# --- all together --------------------------------------------------------------------------------

blocks = st.fixed_dictionaries(
    {
        "update": st.one_of(
            st.builds(
                lambda w, r: {"kind": "gradient", "weight": w, "lr_ratio": r},
                st.floats(0.1, 4),
                st.floats(0.05, 20),
            ),
            st.builds(
                lambda d, a: {"kind": "ema", "decay": d, "accumulate": a},
                st.floats(0, 0.999),
                st.integers(1, 4),
            ),
        ),
        "commitment": st.builds(lambda b: {"beta": b}, st.floats(0, 4)),
        "entropy": st.none()
        | st.builds(
            lambda w, t: {"weight": w, "temperature": t}, st.floats(0, 2), st.floats(0.01, 10)
        ),
        "respawn": st.none()
        | st.builds(
            lambda p, t, b: {"period": p, "threshold": t, "buffer": b},
            st.integers(1, 60),
            st.floats(0, 1),
            st.sampled_from([0, 40]),
        ),
        "rotation": st.none() | st.just({}),
        "least_recent": st.none() | st.builds(lambda p: {"patience": p}, st.integers(1, 60)),
        "reanchor": st.none() | st.builds(lambda d: {"decay": d}, st.floats(0, 0.99)),
        "sample_entropy": st.none()
        | st.builds(
            lambda w, t: {"weight": w, "temperature": t}, st.floats(0, 2), st.floats(0.01, 10)
        ),
        "kmeans": st.none()
        | st.builds(lambda i: {"latents": 64, "iterations": i}, st.integers(0, 3)),
        "growth": st.none()
        | st.builds(lambda s, a: {"start": s, "at": a}, st.integers(1, 16), st.floats(0, 1)),
    }
)


@settings(deadline=None, max_examples=40)
@given(mix=blocks, seed=st.integers(0, 1000))
def test_any_mix_trains_without_a_nan(mix: dict[str, Any], seed: int) -> None:
    from tests.trainables.conftest import make_config, make_dataset
    from trainables.stack import Stack

    config = TrialConfig.from_dict({**make_config(mix, samples=100).to_dict(), "seed": seed})
    stack = Stack([config], make_dataset(), CPU)
    stack.advance(25)
    assert stack.finite.all()
    assert all(v.isfinite().all() for v in stack.lane_state(0).values() if v.is_floating_point())


def test_codes_that_growth_adds_are_not_dead_at_the_next_respawn() -> None:
    centres = modes(16, 4)
    book = make_codebook(
        64,
        4,
        update={"kind": "ema", "decay": 0.9},
        growth={"start": 16, "at": 0.018, "jitter": 0.0},
        respawn={"period": 20, "threshold": 0.2},
    )
    book.state["codebook"][0, :16] = centres
    book.state["ema_sum"] = book.state["codebook"] * book.state["ema_count"].unsqueeze(-1)
    for i in range(20):  # grows in the 18th step; the next respawn is in the 20th
        step_on(book, mixture(centres, 512, seed=i), i, step=i + 1)
        if i == 17:
            grown_use = book.state["respawn_use"].clone()
            copies = book.state["codebook"][0, 16:].clone()
    assert (grown_use[0, 16:] >= 0.5 * grown_use[0, :16].mean()).all()
    moved = (book.state["codebook"][0, 16:] - copies).norm(dim=-1) > 1
    assert not moved.any()
