"""A trained trial for use: its weights alone encode and decode as the trainer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.conftest import MIXES, make_config
from trainables.checkpoint import write_tensors
from trainables.codebooks import VectorQuantizer
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.errors import InputError
from trainables.tokenizer import Tokenizer
from trainables.trainer import Trainer, weights_of


def trained(config: TrialConfig, dataset: Dataset) -> tuple[Trainer, dict[str, torch.Tensor]]:
    trainer = Trainer(config, dataset)
    while not trainer.done:
        trainer.advance()
    return trainer, weights_of(trainer.stack.lane_state(0))


def heldout(dataset: Dataset) -> torch.Tensor:
    split, frames = dataset.heldout, dataset.clip_frames
    assert frames is not None
    return torch.stack(
        [torch.from_numpy(split.values[s : s + frames].T.copy()) for s in split.starts]
    )


def changed(config: TrialConfig, **blocks: Any) -> TrialConfig:
    return TrialConfig.from_dict({**config.to_dict(), **blocks})


@pytest.mark.parametrize(
    ("mix", "model"),
    [(mix, "conv") for mix in MIXES]
    + [(mix, "hierarchical") for mix in ("ema", "simvq", "low dim", "grouped residual")],
)
def test_it_reconstructs_as_the_trial_was_evaluated(
    mix: str, model: str, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(MIXES[mix])
    block = {"kind": model, "width": 8, "depth": 1, "strides": [2]}
    config = changed(config, model=block, evaluation={"latents": 15 * 4})
    trainer, weights = trained(config, dataset)
    write_tensors(tmp_path / "x.safetensors", weights, {"trial": config.to_dict()})
    tokenizer = Tokenizer.load(tmp_path / "x.safetensors")
    x = heldout(dataset)
    codes = tokenizer.encode(x)
    loss = (tokenizer(x) - x).square().mean().item()
    assert loss == pytest.approx(trainer.report["recon_loss"], rel=1e-4)
    assert len(codes) == (1 if model == "conv" else 2)
    if model == "conv" and tokenizer._quantizers()[0]._quantizer.streams == 1:
        assert len(codes[0].unique()) == trainer.report["hit_codes"]


@pytest.mark.parametrize("mix", MIXES)
def test_training_goes_on_from_the_exported_codes(mix: str, dataset: Dataset) -> None:
    """What is kept beside the codes does not undo them in the next step."""
    config = make_config(MIXES[mix])
    _, weights = trained(config, dataset)
    quantizer = VectorQuantizer.from_config(config.codebook, samples=80)
    quantizer.load_exported(weights)
    before = quantizer.codebook.clone()
    with torch.no_grad():
        quantizer(torch.randn(1, 2, 4))
    after = quantizer.codebook
    unmoved = (after - before).flatten(0, -2).square().sum(-1) < 1e-8
    assert unmoved.float().mean() > 0.5


def test_another_length_than_in_training(dataset: Dataset) -> None:
    config = changed(make_config(), model={"width": 8, "depth": 1, "strides": [2]})
    _, weights = trained(config, dataset)
    tokenizer = Tokenizer(config, weights)
    x = torch.randn(2, 6, 13)
    [codes] = tokenizer.encode(x)
    assert codes.shape == (2, 7)
    assert tokenizer.decode([codes], (6, 13)).shape == x.shape


def test_weights_that_do_not_fit_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config()
    _, weights = trained(config, dataset)
    with pytest.raises(
        InputError, match=r"weights: 'codebook' has shape \[16, 4\], allowed: \[32,"
    ):
        Tokenizer(make_config({"size": 32}), weights)
    with pytest.raises(InputError, match=r"weights: lacks 'codebook\.project_in\.weight'"):
        Tokenizer(make_config({"low_dim": {"dim": 2}}), weights)
    save_file(weights, tmp_path / "x.safetensors", {"vqtune": json.dumps({})})
    with pytest.raises(InputError, match="tells no config"):
        Tokenizer.load(tmp_path / "x.safetensors")
