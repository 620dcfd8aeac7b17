"""`vqtune export --format vector-quantize-pytorch`: the best configs as programs for it."""

from __future__ import annotations

import textwrap

from analysis.ranking import best
from analysis.records import Records
from analysis.terms import Terms
from trainables.config import TrialConfig
from trainables.errors import InputError, one_line
from vqtune.peer_export import PeerArguments, peer_arguments


def as_python(peer: PeerArguments, heading: str) -> str:
    """Print a program that builds the quantizer and runs it once, with `heading` above."""
    arguments = [f"    {name}={value!r}," for name, value in peer.arguments.items()]
    notes = [
        textwrap.fill(line, 98, initial_indent="# - ", subsequent_indent="#   ")
        for line in peer.lacking
    ]
    lines = [
        f"# {one_line(heading)}, for vector-quantize-pytorch 1.32",
        "import torch",
        f"from vector_quantize_pytorch import {peer.class_name}",
        "",
        f"quantizer = {peer.class_name}(",
        *arguments,
        ")",
        f"latents = torch.randn(2, 32, {peer.arguments['dim']})  # in place of the encoder's",
        *peer.use,
        *(["# What the library lacks or does otherwise:", *notes] if notes else []),
    ]
    return "\n".join(lines) + "\n"


def best_as_python(records: Records, top: int, asked: Terms | None = None) -> str:
    """Print the best `top` trials of a run's front, ranked by `asked` or the search's own terms.

    Raises:
        InputError: nothing to export.
    """
    chosen = best(records, top, asked)
    if chosen.empty:
        raise InputError(
            "no trial has reached its full budget, so there is nothing to export", str(records.run)
        )
    return "\n\n".join(
        as_python(peer_arguments(TrialConfig.from_dict(config)), f"{trial} of {records.run.name}")
        for trial, config in zip(chosen["trial_id"], chosen["config"], strict=True)
    )
