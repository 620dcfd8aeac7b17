"""A step of the codebook, forward and backward, against vector-quantize-pytorch.

    python -m benchmarks.quantizer [--rounds N] [--threads N] [--sizes 512,8192] [--only ema]

First the EMA update over sizes, then every technique that the peer has too, at K=512.

Both quantize the same latents, give the gradient of the straight-through output and of the
commitment loss, and update codebook and counts. The peer runs as it comes (with its rotation trick)
and with the plain straight-through estimator. `held` is what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
from importlib.metadata import version
from typing import Any

import torch
from rich.console import Console
from vector_quantize_pytorch import VectorQuantize

from benchmarks import technique_contenders
from benchmarks.technique_contenders import TECHNIQUES
from benchmarks.timing import Work, interleaved, median_ratio
from trainables.codebooks import Clock, Quantizer
from trainables.config import TrialConfig
from trainables.stack import default_device, wait_for

DIM = 64
LATENTS = (512, 4096, 16_384, 65_536)


def ours(size: int, z: torch.Tensor) -> Work:
    values: dict[str, Any] = {"size": size, "dim": DIM, "update": {"kind": "ema"}}
    config = TrialConfig.from_dict({"codebook": values})
    zero = torch.zeros(1, dtype=torch.int64, device=z.device)
    quantizer = Quantizer([config.codebook], [24_000], zero, z.device, torch.float32)
    clock = Clock(zero, zero + 16, zero + 1, zero)

    def work() -> None:
        z.grad = None
        quantized = quantizer.quantize(z.unsqueeze(0), clock)
        (quantized.z_q.mean() + quantized.loss.sum()).backward()
        quantizer.after_step(quantized, [0], [16])

    return work


def peer(size: int, z: torch.Tensor, **options: Any) -> Work:
    quantizer = VectorQuantize(dim=DIM, codebook_size=size, **options).to(z.device)

    def work() -> None:
        z.grad = None
        quantized, _, loss = quantizer(z.unsqueeze(0))
        (quantized.mean() + loss.sum()).backward()

    return work


def held_for_backward(work: Work) -> float:
    """MiB that autograd keeps, views of one storage counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(kept.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="512,8192", help="K of the EMA rows")
    parser.add_argument("--only", choices=["ema", "techniques"], help="one of the two tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = default_device()
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} CPU threads"
    )
    console = Console(width=120)
    console.print(
        f"Steps at d={DIM} on {name}; "
        f"vector-quantize-pytorch {version('vector-quantize-pytorch')}, "
        f"torch {torch.__version__}; medians of {options.rounds} interleaved rounds"
    )
    if options.only != "techniques":
        ema_rows(options, device, console)
    if options.only != "ema":
        technique_rows(options, device, console)


def ema_rows(options: argparse.Namespace, device: torch.device, console: Console) -> None:
    columns = "{:>6} {:>8} {:>9} {:>9} {:>9} {:>7} {:>7} {:>9} {:>9} {:>9}"
    heads = ("K", "latents", "ours", "defaults", "plain", "× def.", "× plain")
    console.print(columns.format(*heads, "held", "held def.", "K × lat."))
    console.print(columns.format("", "", "ms", "ms", "ms", "", "", "MiB", "MiB", "MiB"))
    for size in (int(part) for part in options.sizes.split(",")):
        for count in LATENTS:
            z = torch.randn(count, DIM, device=device, requires_grad=True)
            contenders = {
                "ours": synchronised(ours(size, z), device),
                "defaults": synchronised(peer(size, z), device),
                "plain": synchronised(peer(size, z, rotation_trick=False), device),
            }
            small = size * count < 2**27
            rounds = options.rounds if small else max(3, options.rounds // 5)
            warmup = 2 if small else 1
            seconds = interleaved(contenders, rounds, warmup=warmup, slice_seconds=0.05)
            ms = [f"{1e3 * statistics.median(values):.2f}" for values in seconds.values()]
            ratios = [
                f"{median_ratio(seconds['ours'], seconds[name]):.1f}"
                for name in ("defaults", "plain")
            ]
            held = [f"{held_for_backward(contenders[name]):.1f}" for name in ("ours", "defaults")]
            matrix = f"{size * count * 4 / 2**20:.0f}"
            console.print(columns.format(size, count, *ms, *ratios, *held, matrix))


def technique_rows(options: argparse.Namespace, device: torch.device, console: Console) -> None:
    columns = "{:40} {:>8} {:>9} {:>9} {:>7}"
    console.print(columns.format("technique, K=512", "latents", "ours", "peer", "×"))
    console.print(columns.format("", "", "ms", "ms", ""))
    for name, blocks, build in TECHNIQUES:
        for count in (512, 4096):
            z = torch.randn(count, DIM, device=device, requires_grad=True)
            contenders = {
                "ours": synchronised(technique_contenders.ours(blocks, z), device),
                "peer": synchronised(technique_contenders.peer(build, z), device),
            }
            seconds = interleaved(contenders, options.rounds, slice_seconds=0.05)
            ms = [f"{1e3 * statistics.median(values):.2f}" for values in seconds.values()]
            ratio = median_ratio(seconds["ours"], seconds["peer"])
            console.print(columns.format(name, count, *ms, f"{ratio:.1f}"))


def synchronised(work: Work, device: torch.device) -> Work:
    """On a GPU, wait for the work: the clock reads the host."""

    def waited() -> None:
        work()
        wait_for(device)

    return waited


if __name__ == "__main__":
    main()
