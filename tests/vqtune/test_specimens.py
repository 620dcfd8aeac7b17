"""What the report is shown of a run's codebooks, and what it is told where there is nothing."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from analysis.records import Records, read_run
from analysis.specimen import Specimen, Specimens
from tests.vqtune.conftest import Mixed, Searched
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.data import load_dataset
from trainables.shown import picture
from trainables.trainer import CHECKPOINT, Trainer
from vqtune.specimens import _PICTURE, _principal_axes, specimens

TITLES = {"baseline": "baseline", "t0002": "No. 1: t0002"}


@pytest.fixture(scope="module")
def shown(finished: Searched) -> Specimens:
    return specimens(finished.records, TITLES)


def test_each_trial_is_there_in_order(shown: Specimens) -> None:
    assert [(one.trial_id, one.title) for one in shown.trials] == list(TITLES.items())
    assert (shown.kind, shown.note) == ("spectrogram", "")
    assert [one.note for one in shown.trials] == ["", ""]


def test_histograms_are_those_behind_the_metrics(shown: Specimens, finished: Searched) -> None:
    for one in shown.trials:
        [counts] = one.histograms
        last = finished.reports(one.trial_id)[-1]
        assert len(counts) == 16
        assert int((counts > 0).sum()) == last["hit_codes"]


def test_latents_and_codes_are_two_dimensional(shown: Specimens) -> None:
    for one in shown.trials:
        assert one.codebook is not None and one.latents is not None and one.code_use is not None
        assert one.codebook.shape == (16, 2)
        assert one.latents.shape[1] == 2
        assert 100 < len(one.latents) <= 1500
        assert one.code_use.sum() == one.histograms[0].sum()
        # The first axis is the one along which latents vary most, around 0.
        assert np.abs(one.latents.mean(0)).max() < 1e-3
        assert one.latents[:, 0].std() >= one.latents[:, 1].std()


def test_the_examples_are_the_same_for_every_trial(shown: Specimens) -> None:
    first, second = shown.trials
    assert len(first.inputs) == 3
    for x, y, z in zip(first.inputs, second.inputs, second.outputs, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.shape == z.shape
        assert x.shape[0] == 64
        assert x.min() >= np.log(1e-6) - 1e-4  # log-mels as they were before normalisation
        assert not np.array_equal(x, z)


def test_the_sound_lasts_as_long_as_the_picture(shown: Specimens) -> None:
    for one in shown.trials:
        assert one.sample_rate == 16_000
        assert len(one.audio) == len(one.inputs)
        for image, pair in zip(one.inputs, one.audio, strict=True):
            for wav in pair:
                samples, rate = soundfile.read(io.BytesIO(wav))
                assert rate == 16_000
                assert len(samples) == 512 + (image.shape[1] - 1) * 160
                assert np.abs(samples).max() > 0.001
                assert len(wav) < 100_000


def test_a_second_look_shows_the_same(shown: Specimens, finished: Searched) -> None:
    for one, other in zip(shown.trials, specimens(finished.records, TITLES).trials, strict=True):
        np.testing.assert_array_equal(one.latents, other.latents)
        assert one.audio == other.audio


# --- data that is not sound ---------------------------------------------------------------------


def one_trial(run: Path, data: dict[str, Any], **more: Any) -> Records:
    """A run with one trial, trained here."""
    config = TrialConfig.from_dict(
        {
            "data": data,
            "model": {"width": 8, "depth": 1},
            "codebook": {"size": 16, "dim": 4},
            "training": {"samples": 32, "batch_size": 4, "reports": 1},
            "evaluation": {"latents": 200},
            **more,
        }
    )
    folder = run / "trials" / "baseline"
    folder.mkdir(parents=True)
    trainer = Trainer(config)
    report = trainer.advance()
    trainer.save(folder)
    params = {"trial_id": "baseline", "role": "baseline", "trial": config.to_dict()}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "result.json").write_text(json.dumps({**report, "trial_id": "baseline"}) + "\n")
    (run / "spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    return read_run(run)


def looked_at(records: Records) -> tuple[Specimen, Specimens]:
    found = specimens(records, {"baseline": "baseline"})
    return found.trials[0], found


@pytest.mark.parametrize(
    ("shape", "kind", "drawn"),
    [
        ((40, 1, 12, 12), "image", (12, 12)),
        ((40, 3, 12, 12), "image", (12, 12, 3)),
        ((20, 3, 200, 400), "image", (100, 200, 3)),
        ((40, 5, 24), "series", (5, 24)),
        ((400, 5), "series", (5, 8)),
    ],
)
def test_arrays_are_images_or_series(
    shape: tuple[int, ...], kind: str, drawn: tuple[int, ...], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random(shape, np.float32))
    model = {"width": 4, "depth": 1, "strides": [4, 4] if shape[-1] == 400 else []}
    data = {"kind": "arrays", "path": str(tmp_path / "x.npy"), "clip_frames": 8}
    one, found = looked_at(one_trial(tmp_path / "run", data, model=model))
    assert (found.kind, one.note) == (kind, "")
    assert [x.shape for x in one.inputs] == [drawn] * 3
    assert [x.shape for x in one.outputs] == [drawn] * 3
    assert (one.audio, one.sample_rate) == ((), None)
    assert 0 <= min(x.min() for x in one.inputs) < max(x.max() for x in one.inputs) <= 1.001


def test_more_than_three_channels_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 5, 8, 8), np.float32))
    data = {"kind": "arrays", "path": str(tmp_path / "x.npy")}
    one, _ = looked_at(one_trial(tmp_path / "run", data))
    assert one.note == "of 5 channels the first is shown"
    assert one.inputs[0].shape == (8, 8)


def test_a_large_picture_keeps_its_mean() -> None:
    image = np.random.default_rng(0).random((3, 320, 960)).astype(np.float32)
    assert picture(image, _PICTURE).shape == (160, 320, 3)
    assert picture(image, _PICTURE).mean() == pytest.approx(image.mean(), abs=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_the_projection_is_that_of_the_principal_components(dim: int) -> None:
    from sklearn.decomposition import PCA

    points = np.random.default_rng(dim).standard_normal((50, dim)) * np.arange(1, dim + 1)
    mine = _principal_axes(points)(points)
    theirs = PCA(min(2, dim)).fit_transform(points)
    for axis in range(theirs.shape[1]):
        assert np.abs(mine[:, axis]) == pytest.approx(np.abs(theirs[:, axis]), abs=1e-4)
    assert mine.shape == (50, 2)


def test_latents_that_are_all_equal_are_one_point() -> None:
    assert not _principal_axes(np.ones((9, 4)))(np.ones((9, 4))).any()


# --- what is missing or broken ------------------------------------------------------------------


@pytest.fixture
def copied(finished: Searched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.run, tmp_path / "demo"))


def told(run: Path) -> str:
    """The baseline's note, where nothing else of it is there; the other trial is shown."""
    found = specimens(read_run(run), TITLES)
    one, other = found.trials
    assert other.note == "" and other.histograms
    assert (one.histograms, one.inputs, one.audio) == ((), (), ())
    assert one.codebook is one.latents is one.code_use is None
    assert one.note and len(one.note.splitlines()) == 1
    return one.note


def test_a_missing_checkpoint(copied: Path) -> None:
    (copied / "trials" / "baseline" / CHECKPOINT).unlink()
    assert "not a checkpoint" in told(copied)


def test_a_damaged_checkpoint(copied: Path) -> None:
    path = copied / "trials" / "baseline" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a checkpoint" in told(copied)


def changed(run: Path, change: Any) -> None:
    path = run / "trials" / "baseline" / CHECKPOINT
    tensors, header = read_tensors(path)
    change(header)
    write_tensors(path, tensors, header)


def test_data_that_have_changed(copied: Path) -> None:
    changed(copied, lambda header: header["made"].update(data_fingerprint="another"))
    assert "other data than there are now" in told(copied)


def test_data_that_are_gone(copied: Path) -> None:
    gone = {"kind": "audio", "path": "/nowhere/at/all"}
    changed(copied, lambda header: header["trial"].update(data=gone))
    assert "/nowhere/at/all" in told(copied)


def test_a_trial_that_is_not_there(finished: Searched) -> None:
    found = specimens(finished.records, {"t0099": "No. 1: t0099"})
    assert found.trials[0].note == "is not in this run"
    assert found.note == "No codebook of this run can be looked into here."


def test_a_factory_that_is_not_there(mixed: Mixed) -> None:
    """Its module lies in the folder of the search, and this is another one."""
    found = specimens(mixed.records, {"baseline": "baseline"})
    assert "models" in found.trials[0].note
    assert len(found.trials[0].note.splitlines()) == 1


def test_an_error_in_the_depths(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("out of\n memory")

    monkeypatch.setattr("vqtune.specimens.examine", fails)
    found = specimens(read_run(copied), TITLES)
    assert [one.note for one in found.trials] == ["RuntimeError: out of memory"] * 2


def test_numbers_of_another_machine_are_told(copied: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header["report"]["perplexity"] *= 1.5
        header["made"]["versions"]["torch"] = "2.0.1"

    changed(copied, change)
    [one] = specimens(read_run(copied), {"baseline": "baseline"}).trials
    assert one.histograms
    assert "was recorded (torch 2.0.1 on cpu)" in one.note


def test_nothing_to_show(finished: Searched) -> None:
    assert specimens(finished.records, {}) == Specimens((), "series", "")


def test_it_leaves_the_number_of_threads(finished: Searched) -> None:
    import torch

    torch.set_num_threads(2)
    specimens(finished.records, {"baseline": "baseline"})
    assert torch.get_num_threads() == 2
    assert load_dataset(TrialConfig.from_dict(finished.records.configs["baseline"]).data)
