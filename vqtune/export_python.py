"""`vqtune export --format python`: a trained trial as a program that runs where vqtune is."""

from __future__ import annotations

from typing import Any

from trainables.config import TrialConfig
from trainables.config_model import HierarchicalModel

_PROGRAM = '''\
"""{heading}.

{metrics}
Run it as it is, with {weights} beside it:

    python {name}.py
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from trainables.codebooks import VectorQuantizer
from trainables.tokenizer import Tokenizer

WEIGHTS = Path(__file__).with_name("{weights}")

# The codebook of the config{levels}, for a model of your own.
CODEBOOK = {{
{codebook}
}}


def new_codebook() -> VectorQuantizer:
    """The same settings, untrained; the loss that it gives in training joins yours.{seeding}"""
    return VectorQuantizer(channel_first=True, samples={samples}, seed={seed}, **CODEBOOK)


def trained_codebook() -> VectorQuantizer:
    """The same with the codes that the trial has learned."""
    quantizer = new_codebook()
    quantizer.load_exported(load_file(WEIGHTS){level})
    return quantizer


def trained_model() -> Tokenizer:
    """The whole trial: encode(x) gives indices, decode(indices, shape) examples again."""
    return Tokenizer.load(WEIGHTS)


if __name__ == "__main__":
    torch.manual_seed(0)
    quantizer = trained_codebook().eval()
    latents = torch.randn(2, {dim}, 32)  # in place of your encoder's
    z_q, indices, loss = quantizer(latents)
    print("latents", list(latents.shape), "to indices", list(indices.shape))
{example}'''

_MODEL = """
    model = trained_model()
    x = torch.randn(2, {shape})  # in place of examples, normalised: (x - mean) / std
    indices = model.encode(x)
    x_hat = model.decode(indices, x.shape[1:])
    print("examples", list(x.shape), "to indices", [list(one.shape) for one in indices])
    print("and back", list(x_hat.shape))
"""

_SEEDING = """

    Call its seed(latents) with latents of your encoder before training.
    """


def as_program(config: TrialConfig, weights: str) -> str:
    """A program that builds the codebook and the whole trial with their trained weights.

    Args:
        config: an exported one, whose provenance tells what it reached.
        weights: name of the safetensors file beside the program.
    """
    made: dict[str, Any] = config.provenance or {}
    claimed = made.get("metrics", {})
    metrics = " and ".join(
        f"{name} {claimed[name]:.5g}" for name in ("perplexity", "recon_loss") if name in claimed
    )
    codebook = {k: v for k, v in config.to_dict()["codebook"].items() if v is not None}
    several = isinstance(config.model, HierarchicalModel)
    shape = made.get("example_shape")
    return _PROGRAM.format(
        heading=_in_quotes(
            f"Trial {made.get('trial')} of the search {made.get('run')}, exported by vqtune"
        ),
        metrics=f"On held-out data it reached {metrics}.\n" if metrics else "",
        name=weights.removesuffix(".safetensors"),
        weights=weights,
        levels=", one of two alike, for the top and the bottom" if several else "",
        codebook="\n".join(f"    {name!r}: {value!r}," for name, value in codebook.items()),
        seeding=_SEEDING if config.codebook.kmeans else "",
        samples=config.training.samples,
        seed=config.seed,
        level=', level="bottom"' if several else "",
        dim=config.codebook.dim,
        # Checkpoints of before it was written down lack it.
        example=_MODEL.format(shape=", ".join(map(str, shape))) if shape else "",
    )


def _in_quotes(text: str) -> str:
    """Text that does not end the quotes around it; a folder's name may hold anything."""
    return "".join(c if c.isprintable() and c not in '"\\' else "?" for c in text)
