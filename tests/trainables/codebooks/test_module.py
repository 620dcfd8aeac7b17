"""The codebook as a module of its own: what a trial gives, in any layout, cast, saved, shared."""

from __future__ import annotations

import copy
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from tests.trainables.conftest import MIXES
from trainables.codebooks import Clock, Quantizer, VectorQuantizer
from trainables.config import TrialConfig
from trainables.errors import InputError

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def module(mix: str, **more: Any) -> VectorQuantizer:
    """On 16 codes of 4 dimensions, with a budget of 80 samples."""
    return VectorQuantizer(**{"size": 16, "dim": 4, "samples": 80, **MIXES[mix], **more})


def train(vq: VectorQuantizer, steps: int, first: int = 0, lr: float = 0.01) -> list[Tensor]:
    """Steps of 4 x 8 latents on its own parameters; the losses."""
    parameters = list(vq.parameters())
    sgd = torch.optim.SGD(parameters, lr) if parameters else None
    losses = []
    for i in range(first, first + steps):
        z_q, _, loss = vq(noise(4, 8, 4, seed=i))
        losses.append(loss.detach())
        if sgd is not None:
            sgd.zero_grad()
            (loss + z_q.square().mean()).backward()
            sgd.step()
    return losses


@pytest.mark.parametrize("mix", MIXES)
def test_it_is_the_quantizer_of_a_trial(mix: str) -> None:
    """Driven by hand in the trainer's order: step, optimiser, then what the step leaves to do."""
    vq = module(mix)
    config = TrialConfig.from_dict({"codebook": {"size": 16, "dim": 4, **MIXES[mix]}}).codebook
    quantizer = Quantizer([config], [80], torch.tensor([0]), CPU, torch.float32)
    trained = {**quantizer.trained, **quantizer.trained_codes}
    parameters = {name: nn.Parameter(value.clone()) for name, value in trained.items()}
    quantizer.adopt(parameters)
    if config.kmeans:
        pool = noise(200, 4, seed=99)
        vq.seed(pool)
        quantizer.seed(pool.unsqueeze(0))
    sgd = torch.optim.SGD(parameters.values(), 0.01) if parameters else None
    losses = train(vq, 20)
    for i in range(20):
        numbers = (4 * i, 4 * i + 4, i + 1)
        clock = Clock(*(torch.tensor([n]) for n in numbers), torch.tensor([0]), (i + 1,))
        quantized = quantizer.quantize(noise(4, 8, 4, seed=i).view(1, 32, 4), clock)
        assert torch.equal(losses[i], quantized.loss[0].detach())
        if sgd is not None:
            sgd.zero_grad()
            (quantized.loss[0] + quantized.z_q.square().mean()).backward()
            sgd.step()
        quantizer.after_step(quantized, [4 * i], [4 * i + 4])
    vq.eval()
    z = noise(3, 5, 4, seed=50)
    z_q, indices, loss = vq(z)
    codes = quantizer.look_up(z.view(1, 15, 4))
    assert torch.equal(indices.view(15, -1).t(), codes[0])
    assert torch.equal(z_q.view(1, 15, 4), quantizer.embed(codes))
    assert loss == 0
    assert torch.equal(vq.encode(z), indices)
    assert torch.equal(vq.decode(indices), z_q)


@pytest.mark.parametrize("positions", [(), (7,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("mix", ["ema", "groups"])
def test_channels_may_stand_first_or_last(mix: str, positions: tuple[int, ...]) -> None:
    last, first = module(mix), module(mix, channel_first=True)
    z = noise(5, *positions, 4)
    one = last(z)
    other = first(z.movedim(-1, 1))
    assert torch.equal(one.quantized, other.quantized.movedim(1, -1))
    assert torch.equal(one.indices, other.indices)
    assert one.indices.shape == (5, *positions, *([2] if mix == "groups" else []))
    assert torch.equal(one.loss, other.loss)
    first.eval()
    z_q, indices, _ = first(z.movedim(-1, 1))
    assert torch.equal(first.decode(indices), z_q)


def test_padding_counts_nowhere() -> None:
    blocks = {"update": {"kind": "ema"}, "entropy": {}}
    padded, short = (VectorQuantizer(size=16, dim=4, **blocks) for _ in range(2))
    mask = torch.arange(12).expand(2, 12) < 9
    for i in range(5):
        z = noise(2, 12, 4, seed=i)
        z[:, 9:] = 1e5
        z.requires_grad_()
        long = padded(z, mask)
        cut = short(z.detach()[:, :9])
        torch.testing.assert_close(long.loss, cut.loss)
        assert torch.equal(long.indices[:, :9], cut.indices)
        assert (long.indices[:, 9:] == -1).all()
        [gradient] = torch.autograd.grad(long.loss, z)
        assert (gradient[:, 9:] == 0).all()
        assert (gradient[:, :9] != 0).any()
    respawning = VectorQuantizer(size=16, dim=4, respawn={"period": 2, "threshold": 1.0})
    for i in range(5):
        respawning(torch.where(mask.unsqueeze(-1), noise(2, 12, 4, seed=i), 1e5), mask)
    assert respawning.codebook.abs().max() < 10


@pytest.mark.parametrize("mix", ["ema", "simvq", "low dim", "batch norm", "fsq"])
def test_half_precision_comes_and_goes_but_the_codebook_is_float32(mix: str) -> None:
    vq, plain = module(mix).to(torch.bfloat16), module(mix)
    for i in range(5):
        z = noise(4, 8, 4, seed=i).bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            z_q, _, loss = vq(z)
        assert z_q.dtype == torch.bfloat16
        assert loss.dtype == torch.float32
        (z_q.float().mean() + loss).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        plain(z.detach().float())
    for value, other in zip(vq.state_dict().values(), plain.state_dict().values(), strict=True):
        if isinstance(value, Tensor):
            assert value.dtype == other.dtype
    assert torch.equal(vq.codebook, plain.codebook)


@pytest.mark.parametrize("mix", MIXES)
def test_a_saved_module_goes_on_as_if_never_stopped(mix: str, tmp_path: Path) -> None:
    through = module(mix)
    train(through, 9)
    torch.save(through.state_dict(), tmp_path / "vq.pt")
    resumed = module(mix, seed=0)
    train(resumed, 2, first=500)  # another history, all of which has to go
    resumed.load_state_dict(torch.load(tmp_path / "vq.pt"))
    copied, pickled = copy.deepcopy(through), pickle.loads(pickle.dumps(through))
    train(through, 11, first=9)
    for other in (resumed, copied, pickled):
        train(other, 11, first=9)
        mine, theirs = other.state_dict(), through.state_dict()
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            same = (
                torch.equal(mine[name], value) if isinstance(value, Tensor) else mine[name] == value
            )
            assert same, name


def test_evaluation_changes_nothing() -> None:
    vq = module("all")
    train(vq, 5)
    before = {k: copy.deepcopy(v) for k, v in vq.state_dict().items()}
    vq.eval()
    first, second = vq(noise(4, 8, 4)), vq(noise(4, 8, 4))
    assert torch.equal(first.indices, second.indices)
    for name, value in vq.state_dict().items():
        same = (
            torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]
        )
        assert same, name


def test_it_trains_inside_a_model_of_ones_own() -> None:
    encoder, decoder = nn.Conv1d(6, 4, 3, padding=1), nn.Conv1d(4, 6, 3, padding=1)
    vq = module("plain", channel_first=True)
    model = nn.ModuleList([encoder, vq, decoder])
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    walk = noise(16, 6, 20).cumsum(-1)
    losses = []
    for _ in range(100):
        z_q, _, loss = vq(encoder(walk))
        error = (decoder(z_q) - walk).square().mean()
        adam.zero_grad()
        (error + loss).backward()
        adam.step()
        losses.append(error.item())
    assert losses[-1] < 0.6 * losses[0]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sise": 3}, "VectorQuantizer: sise: unknown key; allowed: size, dim"),
    ({"update": {"kind": "ema", "decay": 2.0}}, "VectorQuantizer: update.decay: found 2.0"),
    ({"commitment": {"beta": -1.0}}, "VectorQuantizer: commitment.beta: found -1.0"),
    (
        {"update": {"kind": "fsq"}, "respawn": {}},
        "VectorQuantizer: respawn: found with update.kind",
    ),
]


@pytest.mark.parametrize(("settings", "line"), BAD)
def test_bad_settings_are_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        VectorQuantizer(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_bad_latents_masks_and_seeding_are_one_line() -> None:
    vq = module("ema")
    with pytest.raises(
        InputError, match=r"latents: found \[2, 3\], allowed: \[B, ..., d\] with d = 4"
    ):
        vq(torch.zeros(2, 3))
    with pytest.raises(
        InputError, match=r"mask: found torch.float32 \[2, 3\], allowed: torch.bool"
    ):
        vq(torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(InputError, match="kmeans: found null"):
        vq.seed(torch.zeros(20, 4))


# --- several processes ---------------------------------------------------------------------------

SHARED = {
    "ema": {"update": {"kind": "ema", "decay": 0.9}},
    "all that moves codes": {
        "update": {"kind": "ema", "decay": 0.9},
        "respawn": {"period": 24, "threshold": 0.5, "buffer": 100},
        "least_recent": {"patience": 24},
        "reanchor": {"decay": 0.8},
        "growth": {"start": 4, "at": 0.3},
    },
    "residual": {
        "update": {"kind": "ema", "decay": 0.9},
        "residual": {"levels": 2},
        "respawn": {"period": 16},
        "kmeans": {"latents": 100},
    },
}


def rank(number: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    torch.set_num_threads(1)
    results = {}
    for name, blocks in SHARED.items():
        vq = VectorQuantizer(size=16, dim=4, samples=160, **blocks)
        if "kmeans" in blocks:
            vq.seed(noise(100, 4, seed=number))
        for i in range(20):
            vq(noise(8, 8, 4, seed=i)[4 * number : 4 * number + 4])
        results[name] = vq.state_dict()
    torch.save(results, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_end_with_the_codebook_of_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in (0, 1))
    for name in SHARED:
        codes = [key for key in first[name] if key.endswith(("codebook", "ema_sum", "ema_count"))]
        assert len(codes) >= 3
        for key in codes:
            assert torch.equal(first[name][key], second[name][key]), (name, key)
    joined = VectorQuantizer(size=16, dim=4, samples=160, **SHARED["ema"])
    for i in range(20):
        joined(noise(8, 8, 4, seed=i))
    torch.testing.assert_close(first["ema"]["state.codebook"], joined.codebook.unsqueeze(0))
    alone = VectorQuantizer(size=16, dim=4, samples=160, **SHARED["ema"])
    for i in range(20):
        alone(noise(8, 8, 4, seed=i)[:4])
    assert (alone.codebook - joined.codebook).abs().max() > 1e-3
