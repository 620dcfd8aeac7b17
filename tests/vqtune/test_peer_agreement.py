"""What is exported as the same is the same: vector-quantize-pytorch against the quantizer here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vqtune.peers import DIM, SIZE, Ours, Peer, make_config
from trainables.codebooks import Quantized

EMA = {"update": {"kind": "ema", "decay": 0.9}}
POSITIONS = (2, 32)


def latents_of(seed: int, dim: int = DIM, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*POSITIONS, dim, generator=generator)).requires_grad_()


def books_of(peer: Peer) -> list[Any]:
    """The library's codebooks [groups, K, d] or [1, K, d], by level and then by group."""
    quantizer = peer.quantizer
    if hasattr(quantizer, "rvqs"):
        levels = range(len(quantizer.rvqs[0].layers))
        return [rvq.layers[level]._codebook for level in levels for rvq in quantizer.rvqs]
    layers = quantizer.layers if hasattr(quantizer, "layers") else [quantizer]
    return [layer._codebook for layer in layers]


def our_codes(ours: Ours) -> list[Tensor]:
    """Codes [groups, K, d], by level."""
    return [book.state["codebook"].detach() for book in ours.quantizer.codebooks]


def our_streams(peer: Peer, ours: Ours) -> list[Tensor]:
    """The same, as the library has its codebooks."""
    codes = our_codes(ours)
    if hasattr(peer.quantizer, "rvqs"):
        return [group.unsqueeze(0) for level in codes for group in level]
    return codes


def start_alike(peer: Peer, ours: Ours) -> None:
    for book in ours.quantizer.codebooks:
        book.state["codebook"].detach().copy_(torch.randn_like(book.state["codebook"]))
        book.set_all()  # the codes' sums are theirs, and cosine codes are on the sphere
        if "ema_sum" in book.state:
            book.state["ema_sum"] = book.state["codebook"].clone()
    for theirs, codes in zip(books_of(peer), our_streams(peer, ours), strict=True):
        theirs.embed.data.copy_(codes)
        theirs.embed_avg.data.copy_(codes)


def indices_of(peer: Peer, codes: Tensor) -> Tensor:
    """The library's codes as [streams, latents], by level and then by group."""
    if hasattr(peer.quantizer, "rvqs"):
        return codes.permute(3, 0, 1, 2).flatten(2).flatten(0, 1)
    return codes.reshape(POSITIONS[0] * POSITIONS[1], -1).T


def assert_alike(peer: Peer, ours: Ours, seed: int) -> Quantized:
    """One step of both on the same latents: codes, loss, vectors, and the latents' gradient."""
    mine, theirs = latents_of(seed), latents_of(seed)
    weights = latents_of(seed + 100).detach()
    quantized = ours(mine)
    z_q, codes, their_loss = peer(theirs)
    assert torch.equal(indices_of(peer, codes), quantized.codes[0])
    torch.testing.assert_close(their_loss, quantized.terms["commitment"][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z_q.flatten(0, 1), quantized.z_q[0], rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((z_q * weights).sum() + their_loss, theirs, retain_graph=True)
    total = (quantized.z_q[0] * weights.flatten(0, 1)).sum() + quantized.loss.sum()
    (expected,) = torch.autograd.grad(total, mine, retain_graph=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    return quantized


EXACT: dict[str, dict[str, Any]] = {
    "ema": EMA,
    "rotation": EMA | {"rotation": {}, "commitment": {"beta": 2.0}},
    "groups": EMA | {"groups": {"count": 4}},
    "rotated groups": EMA | {"groups": {"count": 4}, "rotation": {}},
    "cosine": EMA | {"cosine": {}},
    "cosine groups": EMA | {"cosine": {}, "groups": {}, "rotation": {}},
}


@pytest.mark.parametrize("case", EXACT)
def test_ema_updates_agree_step_by_step(case: str) -> None:
    config = make_config(EXACT[case])
    peer, ours = Peer(config), Ours(config)
    start_alike(peer, ours)
    for seed in range(5):
        assert_alike(peer, ours, seed)
        for theirs, codes in zip(books_of(peer), our_streams(peer, ours), strict=True):
            torch.testing.assert_close(theirs.embed, codes, rtol=1e-5, atol=1e-5)


def test_a_code_unused_for_long_stays_where_it_is() -> None:
    """With the library's own eps it would be at the origin by then."""
    config = make_config({"update": {"kind": "ema", "decay": 0.5}})
    peer, ours = Peer(config), Ours(config)
    start_alike(peer, ours)
    far = torch.full((1, 4, DIM), 50.0)
    for _ in range(60):  # 0.5 ** 60 is 1e-18
        peer(far)
        ours(far)
    (book,), (codes,) = books_of(peer), our_codes(ours)
    torch.testing.assert_close(book.embed, codes, rtol=0.05, atol=1e-3)
    assert ((book.embed != 0).any(-1)).all()
    for _ in range(200):
        peer(far)
        ours(far)
    assert (book.embed.norm(dim=-1) < 1e-6).sum() == SIZE - 1  # as told
    torch.testing.assert_close(our_codes(ours)[0], codes, rtol=0.05, atol=1e-3)


def test_accumulated_updates_agree_when_called_as_told() -> None:
    config = make_config({"update": {"kind": "ema", "decay": 0.9, "accumulate": 3}})
    peer, ours = Peer(config), Ours(config)
    start_alike(peer, ours)
    for step in range(1, 7):
        peer.quantizer(latents_of(step), accum_ema_update=step % 3 != 0)
        ours(latents_of(step))
        torch.testing.assert_close(books_of(peer)[0].embed, our_codes(ours)[0])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_learned_codes_get_the_commitments_weight(weight: float, groups: int) -> None:
    """Which is named where it is another one than here."""
    config = make_config({"update": {"weight": weight}, "groups": {"count": groups}})
    peer, ours = Peer(config), Ours(config)
    with torch.no_grad():
        start_alike(peer, ours)
    quantized = assert_alike(peer, ours, 0)
    (theirs,) = books_of(peer)
    _, _, loss = peer(latents_of(0))
    (gradient,) = torch.autograd.grad(loss, theirs.embed)
    (expected,) = torch.autograd.grad(quantized.loss.sum(), ours.trained["codebook"])
    torch.testing.assert_close(gradient * weight / 0.25, expected)
    named = any(line.startswith("update.weight") for line in peer.arguments.lacking)
    assert named == (weight != 0.25)


LEVELS = {
    "residual": EMA | {"residual": {"levels": 3}},
    "grouped residual": EMA | {"residual": {"levels": 3}, "groups": {"count": 2}},
}


@pytest.mark.parametrize("case", LEVELS)
def test_residual_levels_agree_but_for_the_decoders_gradient(case: str) -> None:
    """It counts once for each level there, as is told."""
    config = make_config(LEVELS[case])
    peer, ours = Peer(config), Ours(config)
    start_alike(peer, ours)
    for seed in range(3):
        mine, theirs = latents_of(seed, scale=2), latents_of(seed, scale=2)
        quantized, (z_q, codes, loss) = ours(mine), peer(theirs)
        assert torch.equal(indices_of(peer, codes), quantized.codes[0])
        torch.testing.assert_close(loss, quantized.loss[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(z_q.flatten(0, 1), quantized.z_q[0], rtol=1e-5, atol=1e-5)
        (committed,) = torch.autograd.grad(loss, theirs, retain_graph=True)
        (expected,) = torch.autograd.grad(quantized.loss.sum(), mine, retain_graph=True)
        torch.testing.assert_close(committed, expected)
        (passed,) = torch.autograd.grad(z_q.sum(), theirs)
        (once,) = torch.autograd.grad(quantized.z_q.sum(), mine)
        torch.testing.assert_close(passed, 3 * once)
        for book, ours_are in zip(books_of(peer), our_streams(peer, ours), strict=True):
            torch.testing.assert_close(book.embed, ours_are, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_low_dimensional_lookup_finds_the_same_codes(groups: int) -> None:
    """Only its vectors have other lengths, as is told."""
    config = make_config(EMA | {"low_dim": {"dim": 4}, "groups": {"count": groups}})
    peer, ours = Peer(config), Ours(config)
    start_alike(peer, ours)
    for name in ("project_in", "project_out"):
        for part in ("weight", "bias"):
            getattr(getattr(peer.quantizer, name), part).data.copy_(
                ours.trained[f"{name}.{part}"][0]
            )
    (book,) = books_of(peer)
    book.embed.data.copy_(torch.nn.functional.normalize(book.embed, dim=-1))
    _, codes, _ = peer(latents_of(0))
    assert torch.equal(indices_of(peer, codes), ours(latents_of(0)).codes[0])


@pytest.mark.parametrize("rotation", [None, {}])
def test_simvq_agrees(rotation: dict[str, Any] | None) -> None:
    update = {"kind": "simvq", "weight": 0.5}
    config = make_config({"update": update, "rotation": rotation, "commitment": {"beta": 2.0}})
    peer, ours = Peer(config), Ours(config)
    state = ours.quantizer.codebooks[0].state
    peer.quantizer.frozen_codebook.copy_(state["simvq_codes"][0])
    peer.quantizer.code_transform.weight.data.copy_(state["simvq_map"][0])
    mine, theirs, weights = latents_of(0), latents_of(0), latents_of(1).detach()
    quantized, (z_q, codes, loss) = ours(mine), peer(theirs)
    assert torch.equal(codes.flatten(), quantized.codes[0, 0])
    torch.testing.assert_close(loss, quantized.loss[0])
    trained = peer.quantizer.code_transform.weight
    found = torch.autograd.grad((z_q * weights).sum() + loss, [theirs, trained])
    total = (quantized.z_q[0] * weights.flatten(0, 1)).sum() + quantized.loss.sum()
    expected = torch.autograd.grad(total, [mine, ours.trained["simvq_map"]])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1][0])


@pytest.mark.parametrize("levels", [[8, 8], [5, 4, 7], [3, 3]])
@pytest.mark.parametrize("groups", [1, 2])
def test_fsq_agrees(levels: list[int], groups: int) -> None:
    size, dim = int(torch.tensor(levels).prod()), groups * len(levels)
    blocks = {"update": {"kind": "fsq", "levels": levels}, "groups": {"count": groups}}
    config = make_config({"size": size, "dim": dim, "commitment": {"beta": 0.0}, **blocks})
    peer, ours = Peer(config), Ours(config)
    assert peer.arguments.lacking == ()
    mine, theirs = latents_of(0, dim, scale=2), latents_of(0, dim, scale=2)
    quantized, (z_q, codes, loss) = ours(mine), peer(theirs)
    assert loss == 0
    assert torch.equal(codes.reshape(-1, groups).T.long(), quantized.codes[0])
    torch.testing.assert_close(z_q.flatten(0, 1), quantized.z_q[0])
    (gradient,) = torch.autograd.grad(z_q.sum(), theirs)
    (expected,) = torch.autograd.grad(quantized.z_q.sum(), mine)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_lfq_agrees_when_called_as_told(groups: int) -> None:
    """Up to log K, and with the lowest dimension as the highest bit."""
    bits = SIZE.bit_length() - 1
    pair = {"entropy": {"weight": 0.3}, "sample_entropy": {"weight": 0.1}}
    blocks = {"update": {"kind": "lfq"}, "groups": {"count": groups}, **pair}
    config = make_config({"dim": bits * groups, **blocks})
    peer, ours = Peer(config), Ours(config)
    mine, theirs = latents_of(0, bits * groups), latents_of(0, bits * groups)
    if groups == 2:  # alike, so that both have one scale, as in the library
        theirs = torch.cat([theirs[..., :bits]] * 2, -1).detach().requires_grad_()
        mine = theirs.detach().clone().requires_grad_()
    parts = theirs.detach().flatten(0, 1).unflatten(-1, (groups, bits))
    distance = (parts.abs() - 1).square().sum(-1).mean()
    z_q, codes, loss = peer.quantizer(theirs, inv_temperature=1 / (0.1 * distance))
    quantized = ours(mine)
    places = 2 ** torch.arange(bits)
    reversed_codes = (((codes.reshape(-1, groups, 1) // places.flip(0)) % 2) * places).sum(-1)
    assert torch.equal(reversed_codes.T, quantized.codes[0])
    torch.testing.assert_close(z_q.flatten(0, 1), quantized.z_q[0])
    told = 0.3 * torch.tensor(float(SIZE)).log()
    torch.testing.assert_close(loss + told, quantized.loss[0], rtol=1e-3, atol=1e-3)
