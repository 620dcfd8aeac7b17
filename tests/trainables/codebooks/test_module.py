"""The codebook as a module of its own: what a trial gives, in any layout, cast, saved, shared."""

from __future__ import annotations

import copy
import datetime
import gc
import os
import pickle
import socket
import weakref
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


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def kept(vq: VectorQuantizer) -> dict[str, Tensor]:
    """A state_dict that further steps do not change."""
    return {name: value.clone() for name, value in vq.state_dict().items()}


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
        pool = noise(config.kmeans.latents, 4, seed=99)
        vq.seed(pool)
        quantizer.seed(pool.unsqueeze(0))
    sgd = torch.optim.SGD(parameters.values(), 0.01) if parameters else None
    losses = train(vq, 50)
    for i in range(50):
        numbers = (4 * i, 4 * i + 4, i + 1)
        clock = Clock(*(torch.tensor([n]) for n in numbers), torch.tensor([0]))
        most = quantizer.plan([4 * i], [4 * i + 4], [i + 1]).most
        quantized = quantizer.quantize(noise(4, 8, 4, seed=i).view(1, 32, 4), clock, most=most)
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


# --- padding -------------------------------------------------------------------------------------

# Nine of twelve positions count, at the end of one example and at the start of the other.
MASK = torch.stack([torch.arange(12) < 9, torch.arange(12) >= 3])

CUT: dict[str, dict[str, Any]] = {
    "ema": {"update": {"kind": "ema"}, "entropy": {}},
    "accumulated": {"update": {"kind": "ema", "accumulate": 2}, "sample_entropy": {}},
    "gradient": {"entropy": {}, "growth": {"start": 4, "at": 0.3}},
    "buffer": {"update": {"kind": "ema"}, "respawn": {"period": 4, "buffer": 40, "threshold": 0.9}},
    "small buffer": {"respawn": {"period": 4, "buffer": 11, "threshold": 0.9}},
    "projected": {"low_dim": {"dim": 2}, "normalization": {"kind": "batch"}},
    "grouped chain": {
        "update": {"kind": "ema"},
        "groups": {"count": 2},
        "residual": {"levels": 2, "dropout": 0.5},
        "respawn": {"period": 4, "buffer": 30, "threshold": 0.9},
    },
}


@pytest.mark.parametrize("mix", CUT)
def test_a_padded_batch_is_the_batch_without_its_padding(mix: str) -> None:
    padded, cut = (VectorQuantizer(size=16, dim=4, samples=40, **CUT[mix]) for _ in range(2))
    for i in range(12):
        z = noise(2, 12, 4, seed=i)
        z[~MASK] = torch.nan  # as of a softmax over nothing
        z.requires_grad_()
        short = z.detach()[MASK].view(2, 9, 4).requires_grad_()
        one, other = padded(z, MASK), cut(short)
        torch.testing.assert_close(one.loss, other.loss)
        flat = one.indices[MASK].view(other.indices.shape)
        assert torch.equal(flat, other.indices)
        assert (one.indices[~MASK] == -1).all()
        assert one.quantized.isfinite().all()
        for vq, out in ((padded, one), (cut, other)):
            vq.zero_grad()
            (out.loss + out.quantized.square().sum()).backward()
        assert z.grad is not None
        assert short.grad is not None
        assert (z.grad[~MASK] == 0).all()
        torch.testing.assert_close(z.grad[MASK], short.grad.view(-1, 4))
        for mine, theirs in zip(padded.parameters(), cut.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(kept(padded), kept(cut))


@pytest.mark.parametrize("mix", MIXES)
def test_what_padding_holds_changes_no_technique(mix: str) -> None:
    """The quantizer alone, for the module hides what stands there."""
    config = TrialConfig.from_dict({"codebook": {"size": 16, "dim": 4, **MIXES[mix]}}).codebook
    one, other = (
        Quantizer([config], [80], torch.tensor([0]), CPU, torch.float32) for _ in range(2)
    )
    for i in range(20):
        numbers = (4 * i, 4 * i + 4, i + 1)
        clock = Clock(*(torch.tensor([n]) for n in numbers), torch.tensor([0]))
        # As small as the first codes, so that all choices hang on the scale of what counts.
        z, losses = 0.06 * noise(1, 24, 4, seed=i), []
        for quantizer, padding in ((one, 0.03), (other, -300.0)):
            latents = torch.where(MASK.view(1, 24, 1), z, padding)
            most = quantizer.plan([4 * i], [4 * i + 4], [i + 1]).most
            quantized = quantizer.quantize(latents, clock, MASK.view(1, 24), most)
            quantizer.after_step(quantized, [4 * i], [4 * i + 4])
            losses.append(quantized.loss)
        assert torch.equal(*losses)
    assert_same(one.all_state(), other.all_state())


def test_padding_is_decoded_to_zeros() -> None:
    vq = module("groups").eval()
    z_q, indices, _ = vq(noise(2, 12, 4), MASK)
    assert indices.shape == (2, 12, 2)
    decoded = vq.decode(indices)
    assert torch.equal(decoded[MASK], z_q[MASK])
    assert (decoded[~MASK] == 0).all()


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mix", ["ema", "simvq", "low dim", "batch norm", "fsq"])
def test_half_precision_comes_and_goes_but_the_codebook_is_float32(
    mix: str, dtype: torch.dtype
) -> None:
    vq, plain = module(mix).to(dtype), module(mix)
    for i in range(5):
        z = noise(4, 8, 4, seed=i).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            z_q, _, loss = vq(z)
        assert z_q.dtype == dtype
        assert loss.dtype == torch.float32
        (z_q.float().mean() + loss).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        plain(z.detach().float())
    z = noise(4, 8, 4, seed=50)
    with torch.autocast("cpu", torch.bfloat16):
        inside = vq.eval()(z)
        decoded = vq.decode(vq.encode(z))
    assert torch.equal(inside.quantized, decoded)
    assert torch.equal(inside.quantized, plain.eval()(z).quantized)
    assert_same(vq.state_dict(), plain.state_dict())


# --- saved, copied, moved ------------------------------------------------------------------------


@pytest.mark.parametrize("mix", MIXES)
def test_a_saved_module_goes_on_as_if_never_stopped(mix: str, tmp_path: Path) -> None:
    through = module(mix)
    train(through, 9)
    torch.save(nn.ModuleDict({"vq": through}).state_dict(), tmp_path / "model.pt")
    others = [copy.deepcopy(through), pickle.loads(pickle.dumps(through))]
    for assign in (False, True):
        resumed = module(mix)
        train(resumed, 2, first=500)  # another history, all of which has to go
        saved = torch.load(tmp_path / "model.pt")
        nn.ModuleDict({"vq": resumed}).load_state_dict(saved, assign=assign)
        others.append(resumed)
    train(through, 11, first=9)
    for other in others:
        train(other, 11, first=9)
        assert_same(other.state_dict(), through.state_dict())


def test_evaluation_changes_nothing() -> None:
    vq = module("all")
    train(vq, 5)
    before = kept(vq)
    vq.eval()
    first, second = vq(noise(4, 8, 4)), vq(noise(4, 8, 4))
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.quantized, second.quantized)
    assert first.loss == 0
    assert_same(vq.state_dict(), before)


def test_a_step_is_completed_later_and_keeps_no_graph_until_then() -> None:
    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    vq = module("all gradient")
    before = kept(vq)
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor.detach())  # an output that is saved would hold itself
        alive.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        out = vq(noise(4, 8, 4).requires_grad_() * 2)
    assert len(alive) > 0
    del out
    gc.collect()
    assert len(alive) == 0
    assert torch.equal(vq.steps_done, before["steps_done"])
    assert torch.equal(vq.state.get_buffer("respawn_use"), before["state.respawn_use"])
    after = vq.state_dict()
    assert (after["steps_done"], after["samples_drawn"]) == (1, 4)
    assert after["state.respawn_use"].sum() == 32


def test_a_validation_in_inference_mode_leaves_a_module_that_trains_and_loads() -> None:
    vq = module("entropy")
    for i in range(3):
        vq.train()
        z_q, _, loss = vq(noise(4, 8, 4, seed=i).requires_grad_())
        (z_q.mean() + loss).backward()
        vq.eval()
        with torch.inference_mode():
            vq(noise(4, 8, 4, seed=50))
    vq.load_state_dict(vq.state_dict())
    assert not any(value.is_inference() for value in vq.state.buffers())


def test_respawn_moves_codes_that_the_user_has_frozen() -> None:
    vq = module("gradient").requires_grad_(False)
    start = kept(vq)["state.codebook"]
    for i in range(20):
        vq(noise(4, 8, 4, seed=i))
    assert not torch.equal(vq.codebook, start[0])
    assert torch.equal(vq.codebook, vq.state.get_parameter("codebook")[0])


# --- in a user's hands ---------------------------------------------------------------------------


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


def test_codes_learn_at_their_own_rate() -> None:
    options = {"update": {"kind": "gradient", "lr_ratio": 3.0}}
    vq = module("low dim", **options)
    matrices, codes = vq.parameter_groups(0.01)
    assert len(matrices["params"]) == 4
    assert (matrices["lr"], codes["lr"]) == (0.01, 0.03)
    assert codes["params"] == [vq.state.get_parameter("codebook")]
    assert module("ema").parameter_groups(0.01) == []


def test_a_config_makes_the_same_module() -> None:
    config = TrialConfig.from_dict({"codebook": {"size": 16, "dim": 4, **MIXES["all"]}}).codebook
    one = VectorQuantizer.from_config(config, samples=80, channel_first=True, seed=3)
    other = module("all", channel_first=True, seed=3)
    assert one.config == other.config == config
    for vq in (one, other):
        vq(noise(4, 4, 8))
    assert_same(one.state_dict(), other.state_dict())
    assert repr(one) == repr(other)
    assert "size=16, dim=4, update=EmaUpdate(kind='ema', decay=0.9, accumulate=2)" in repr(one)
    assert "channel_first=True, samples=80, seed=3" in repr(one)


def test_seeding_takes_as_many_latents_as_it_is_told_and_needs_one_a_code() -> None:
    blocks: dict[str, Any] = {"update": {"kind": "ema"}, "kmeans": {"latents": 64}}
    many, same = (VectorQuantizer(size=16, dim=4, channel_first=True, **blocks) for _ in range(2))
    pool = noise(10, 4, 8)
    many.seed(pool)
    same.seed(pool.mT.reshape(80, 4))
    assert torch.equal(many.codebook, same.codebook)
    error = (pool - many.eval()(pool).quantized).square().mean()
    assert error < 0.5 * pool.var()
    with pytest.raises(InputError, match="latents: found 15, allowed at least the 16 codes"):
        many.seed(noise(15, 4))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sise": 3}, "VectorQuantizer: sise: unknown key; allowed: size, dim"),
    ({"update": {"kind": "ema", "decay": 2.0}}, "VectorQuantizer: update.decay: found 2.0"),
    ({"commitment": {"beta": -1.0}}, "VectorQuantizer: commitment.beta: found -1.0"),
    (
        {"update": {"kind": "fsq"}, "respawn": {}},
        "VectorQuantizer: respawn: found with update.kind",
    ),
    ({"samples": 0}, "VectorQuantizer: samples: found 0; allowed: greater"),
    ({"seed": 2**40}, "VectorQuantizer: seed: found 1099511627776; allowed: less"),
    ({"channel_first": "yes"}, "VectorQuantizer: channel_first: found 'yes'; allowed"),
]


@pytest.mark.parametrize(("settings", "line"), BAD)
def test_bad_settings_are_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        VectorQuantizer(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_bad_latents_masks_and_seeding_are_one_line() -> None:
    vq = module("ema")
    for z in (noise(2, 3), noise(2, 3, 4, 5), noise(0, 3, 4), torch.zeros(2, 4, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"latents: found .*, allowed: floating \[B, ..., 4\]"):
            vq(z)
    with pytest.raises(
        InputError, match=r"mask: found torch.float32 \[2, 3\], allowed: torch.bool \[2, 3\]"
    ):
        vq(torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(InputError, match="kmeans: found null"):
        vq.seed(torch.zeros(20, 4))
    with pytest.raises(InputError, match=r"indices: found torch.int64 \[2, 3\], allowed"):
        module("groups").decode(torch.zeros(2, 3, dtype=torch.int64))


# --- several processes ---------------------------------------------------------------------------

SHARED: dict[str, dict[str, Any]] = {
    "ema": {"update": {"kind": "ema", "decay": 0.9}},
    "growth": {"update": {"kind": "ema", "decay": 0.9}, "growth": {"start": 4, "at": 0.3}},
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
# What the first process alone has: recent latents, to draw from for all.
OWN = ("respawn_ring", "respawn_known", "respawn_seen")
STEPS = 20


def shared(name: str) -> VectorQuantizer:
    return VectorQuantizer(size=16, dim=4, samples=8 * STEPS, **SHARED[name])


def rank(number: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    limit = datetime.timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", rank=number, world_size=2, timeout=limit)
    torch.set_num_threads(1)
    results = {}
    for name, blocks in SHARED.items():
        vq = shared(name)
        if "kmeans" in blocks:
            vq.seed(noise(100, 4, seed=number))
        for i in range(STEPS):
            # Examples are not shared out evenly.
            vq(noise(8, 8, 4, seed=i)[slice(0, 3) if number == 0 else slice(3, 8)])
            if i == STEPS // 2:
                vq.flush()
                resumed = copy.deepcopy(vq)
        vq.flush()
        results[name] = vq.state_dict()
        for i in range(STEPS // 2 + 1, STEPS):
            resumed(noise(8, 8, 4, seed=i)[slice(0, 3) if number == 0 else slice(3, 8)])
        resumed.flush()
        assert_same(resumed.state_dict(), results[name])
    results["wrapped"] = wrapped(number)
    torch.save(results, f"{folder}/{number}.pt")
    torch.distributed.barrier()  # neither ends while the other still waits for it
    torch.distributed.destroy_process_group()


class Encoded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.vq = VectorQuantizer(
            size=16, dim=4, respawn={"period": 16, "threshold": 0.9}, entropy={"weight": 0.1}
        )

    def forward(self, x: Tensor) -> Tensor:
        z_q, _, loss = self.vq(self.encoder(x))
        error: Tensor = (z_q - x).square().mean() + loss
        return error


def wrapped(number: int) -> dict[str, Tensor]:
    """Trained codes in DistributedDataParallel; the first process reads on its own in between."""
    model = Encoded()
    model.encoder.weight.data.fill_(0.3)
    model.encoder.bias.data.zero_()
    parallel = nn.parallel.DistributedDataParallel(model)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for i in range(STEPS):
        adam.zero_grad()
        parallel(noise(4, 8, 4, seed=2 * i + number)).backward()
        adam.step()
        if number == 0:
            assert parallel.state_dict()["module.vq.steps_done"] == i
            copy.deepcopy(model.vq).eval()(noise(4, 8, 4))
            model.eval()(noise(4, 8, 4))
            model.train()
    model.vq.flush()
    return model.state_dict()


@pytest.mark.long
def test_two_processes_end_with_the_codebook_of_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in (0, 1))
    for name, state in first.items():
        common = {key for key in state if not key.endswith(OWN)}
        assert len(common) >= 4
        assert_same({k: state[k] for k in common}, {k: second[name][k] for k in common})
    assert first["wrapped"]["vq.steps_done"] == STEPS
    for name in ("ema", "growth"):
        joined = shared(name)
        for i in range(STEPS):
            joined(noise(8, 8, 4, seed=i))
        torch.testing.assert_close(first[name], kept(joined))
    alone = shared("ema")
    for i in range(STEPS):
        alone(noise(8, 8, 4, seed=i)[:3])
    assert (alone.codebook - first["ema"]["state.codebook"]).abs().max() > 1e-3
