"""What the report shows of a trained trial is what its metrics were computed from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.data import Dataset, Split
from trainables.data.examples import shown_examples
from trainables.errors import InputError
from trainables.examine import Examination, examine, restore
from trainables.metrics import stream_metrics
from trainables.trainer import CHECKPOINT, Trainer

HIERARCHY = {"kind": "hierarchical", "width": 8, "depth": 1, "top_strides": [2]}


def trained(folder: Path, config: TrialConfig, dataset: Dataset, reports: int = 2) -> Trainer:
    trainer = Trainer(config, dataset)
    for _ in range(reports):
        trainer.advance()
    trainer.save(folder)
    return trainer


def examined(folder: Path, dataset: Dataset, **more: Any) -> Examination:
    return examine(restore(folder, dataset), shown_examples(dataset, 3, 16), **more)


@pytest.mark.parametrize("reports", [1, 2])
@pytest.mark.parametrize("mix", [*MIXES, "hierarchy"])
def test_the_counts_are_those_behind_the_recorded_metrics(
    mix: str, reports: int, tmp_path: Path, dataset: Dataset
) -> None:
    config = make_config(MIXES.get(mix))
    if mix == "hierarchy":
        config = TrialConfig.from_dict({**config.to_dict(), "model": HIERARCHY})
    report = trained(tmp_path, config, dataset, reports).report
    found = examined(tmp_path, dataset, latents=30)
    assert found.perplexity == report["perplexity"]
    for i, counts in enumerate(found.histograms):
        prefix = f"stream_{i}/" if len(found.histograms) > 1 else ""
        again = stream_metrics(counts, report[f"{prefix}codes_in_use"])
        assert again == {name: report[f"{prefix}{name}"] for name in again}
    # The codes in use, with the counts they are drawn by, on the axes of the latents.
    first = "stream_0/" if len(found.histograms) > 1 else ""
    assert found.codes.shape == (report[f"{first}codes_in_use"], found.latents.shape[1])
    assert len(found.latents) == 30
    assert np.isfinite(found.latents).all()
    assert np.isfinite(found.codes).all()
    assert found.code_use.sum() == found.histograms[0].sum()


@pytest.mark.parametrize("mix", ["plain", "simvq", "fsq", "low dim", "cosine", "groups", "growth"])
def test_codes_and_latents_are_what_the_lookup_compares(
    mix: str, tmp_path: Path, dataset: Dataset
) -> None:
    """The nearest code of every latent, counted here, is what the histogram says."""
    config = make_config(MIXES[mix])
    trained(tmp_path, config, dataset)
    found = examined(tmp_path, dataset, latents=10**6)
    distance = np.square(found.latents[:, None] - found.codes[None]).sum(-1)
    nearest = np.bincount(distance.argmin(1), minlength=len(found.codes))
    if mix == "fsq":  # whose margins are not those of the nearest grid point
        assert np.abs(nearest - found.code_use).sum() <= 0.1 * len(found.latents)
    else:
        np.testing.assert_array_equal(nearest, found.code_use)


def test_reconstructions_of_all_held_out_data_have_the_recorded_loss(tmp_path: Path) -> None:
    dataset = replace(make_dataset(), mean=3.0, std=2.0)
    config = make_config()
    config = TrialConfig.from_dict({**config.to_dict(), "evaluation": {"latents": 10**6}})
    report = trained(tmp_path, config, dataset).report
    everything = [run[None] for run in dataset.heldout.starts]
    found = examine(restore(tmp_path, dataset), everything)
    pairs = list(zip(found.inputs, found.outputs, strict=True))
    assert len(pairs) == len(dataset.heldout)
    errors = [np.square(x.astype(np.float64) - y).mean() for x, y in pairs]
    assert np.mean(errors) / dataset.std**2 == pytest.approx(report["recon_loss"], rel=1e-5)
    # As the data were before normalisation.
    first = dataset.heldout.values[: dataset.clip_frames].T * 2.0 + 3.0
    np.testing.assert_allclose(found.inputs[0], first, rtol=1e-6)


def test_clips_that_follow_one_another_are_one_example(tmp_path: Path, dataset: Dataset) -> None:
    trained(tmp_path, make_config(), dataset)
    runs = shown_examples(dataset, 2, frames=20)
    found = examine(restore(tmp_path, dataset), runs)
    for run, x, y in zip(runs, found.inputs, found.outputs, strict=True):
        assert x.shape == y.shape == (6, 24)
        np.testing.assert_allclose(x, dataset.heldout.values[run[0] : run[0] + 24].T, rtol=1e-6)


def test_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        values = rng.standard_normal((n, 1, 8, 8)).astype(np.float32)
        return Split(values, np.arange(n, dtype=np.int64), np.zeros(n, dtype=np.int64))

    dataset = replace(
        make_dataset(),
        train=split(40),
        heldout=split(12),
        clip_frames=None,
        example_shape=(1, 8, 8),
    )
    report = trained(tmp_path, make_config(), dataset).report
    found = examine(restore(tmp_path, dataset), shown_examples(dataset, 4, frames=300))
    assert [x.shape for x in found.inputs] == [(1, 8, 8)] * 4
    assert found.perplexity == report["perplexity"]


# --- what cannot be shown -----------------------------------------------------------------------


def refused(folder: Path, dataset: Dataset, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        restore(folder, dataset)
    assert len(str(caught.value).splitlines()) == 1
    for part in parts:
        assert part in str(caught.value)


def test_a_checkpoint_that_is_missing_or_damaged(tmp_path: Path, dataset: Dataset) -> None:
    refused(tmp_path, dataset, "not a checkpoint", CHECKPOINT)
    trained(tmp_path, make_config(), dataset)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        refused(tmp_path, dataset, "not a checkpoint")


def test_other_data(tmp_path: Path, dataset: Dataset) -> None:
    trained(tmp_path, make_config(), dataset)
    refused(tmp_path, replace(dataset, fingerprint="other"), "other data")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: header["report"].update(diverged=True), "diverged"),
        (lambda header: header.pop("made"), "checkpoint of a trial"),
        (lambda header: header["trial"]["codebook"].update(size="many"), "codebook.size"),
        (lambda header: header["trial"]["codebook"].update(size=17), "shape"),
    ],
    ids=["diverged", "weights", "config", "shapes"],
)
def test_a_checkpoint_that_will_not_do(
    change: Any, said: str, tmp_path: Path, dataset: Dataset
) -> None:
    trained(tmp_path, make_config(), dataset)
    tensors, header = read_tensors(tmp_path / CHECKPOINT)
    header = json.loads(json.dumps(header))
    change(header)
    write_tensors(tmp_path / CHECKPOINT, tensors, header)
    refused(tmp_path, dataset, said)


def test_a_trial_of_a_gpu_is_shown_where_there_is_none(tmp_path: Path, dataset: Dataset) -> None:
    report = trained(tmp_path, make_config(), dataset).report
    tensors, header = read_tensors(tmp_path / CHECKPOINT)
    header["made"].update(device="cuda", threads=64)
    write_tensors(tmp_path / CHECKPOINT, tensors, header)
    assert examined(tmp_path, dataset).perplexity == pytest.approx(report["perplexity"], rel=0.05)
