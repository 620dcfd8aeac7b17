"""What a report shows beside its numbers."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from trainables.config import TrialConfig
from trainables.metrics import stream_metrics
from trainables.snapshot import Snapshot, snapshot
from trainables.trainer import Trainer

SYNTHETIC = {"kind": "synthetic", "files": 12, "seconds": 1.0}


def trained(**blocks: Any) -> Trainer:
    config = {
        "data": SYNTHETIC,
        "model": {"width": 8, "depth": 1},
        "codebook": {"size": 16, "dim": 4},
        "training": {"samples": 160, "reports": 2},
        **blocks,
    }
    trainer = Trainer(TrialConfig.from_dict(config))
    trainer.advance()
    return trainer


@pytest.fixture(scope="module")
def speech() -> Trainer:
    return trained()


@pytest.fixture(scope="module")
def shown(speech: Trainer) -> Snapshot:
    return snapshot(speech, sound=True)


def test_counts_are_those_behind_the_metrics(speech: Trainer, shown: Snapshot) -> None:
    [counts] = shown.counts
    metrics = stream_metrics(counts.astype(np.float64), 16)
    for name in ("perplexity", "hit_codes", "active_codes"):
        assert metrics[name] == speech.report[name]


def test_a_resumed_trial_counts_again(speech: Trainer, shown: Snapshot, tmp_path: Any) -> None:
    speech.save(tmp_path)
    again = Trainer(speech.config)
    again.load(tmp_path)
    np.testing.assert_array_equal(snapshot(again, sound=False).counts, shown.counts)


def test_training_goes_on_as_without(speech: Trainer, tmp_path: Any) -> None:
    alone = trained()
    seen = trained()
    snapshot(seen, sound=True)
    alone.advance()
    seen.advance()
    assert seen.report["recon_loss"] == alone.report["recon_loss"]
    assert seen.report["perplexity"] == alone.report["perplexity"]


def test_examples_stand_on_the_scale_of_the_input(speech: Trainer, shown: Snapshot) -> None:
    assert shown.kind == "spectrogram"
    assert len(shown.inputs) == len(shown.outputs) == 3
    for x, y in zip(shown.inputs, shown.outputs, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype == np.uint8
        assert (x.min(), x.max()) == (0, 255)
        assert not np.array_equal(x, y)


def test_sound_is_made_when_it_is_asked_for(speech: Trainer, shown: Snapshot) -> None:
    assert snapshot(speech, sound=False).sounds == ()
    (before, rate), (after, _) = (soundfile.read(io.BytesIO(wav)) for wav in shown.sounds)
    assert rate == 16_000
    assert len(before) == len(after)


def test_it_is_small(shown: Snapshot) -> None:
    assert len(pickle.dumps(shown)) < 100_000


def test_images_are_shown_as_they_are() -> None:
    shown = snapshot(trained(data={"kind": "digits"}), sound=True)
    assert shown.kind == "image"
    assert [x.shape for x in shown.inputs] == [(8, 8)] * 3
    assert shown.sounds == ()


def test_every_stream_is_counted() -> None:
    codebook = {"size": 16, "dim": 4, "residual": {"levels": 3}}
    shown = snapshot(trained(codebook=codebook), sound=False)
    assert [len(counts) for counts in shown.counts] == [16] * 3


def test_a_trial_that_diverged_shows_no_pictures() -> None:
    trainer = trained()
    with torch.no_grad():
        trainer.stack.adam.parameters["encoder.in.bias"].fill_(torch.nan)
    trainer.advance()
    assert trainer.report["diverged"]
    shown = snapshot(trainer, sound=True)
    assert (shown.inputs, shown.outputs, shown.sounds) == ((), (), ())
