"""The Ray Tune wrapper, driven as Tune drives it but in a plain process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables import search_trial
from trainables.config import TrialConfig
from trainables.config_data import DataConfig
from trainables.errors import InputError
from trainables.search_trial import TuneConfig
from trainables.trainer import CHECKPOINT, Trainer
from trainables.tune_trainable import VQTrial

CPU = torch.device("cpu")
TIMES = ("seconds", "cpu_seconds", "gpu_seconds", "steps_per_second")


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[DataConfig]:
    """Trials get the tiny data set; returns what they asked for."""
    dataset, asked = make_dataset(), []

    def load(config: DataConfig) -> Any:
        asked.append(config)
        return dataset

    monkeypatch.setattr(search_trial, "load_dataset", load)
    monkeypatch.setattr("trainables.trainer.default_device", lambda: CPU)
    return asked


def tune_config(folder: Path, seed: int = 0, trial_id: str = "t1") -> TuneConfig:
    trial = make_config(MIXES["all"], samples=160, reports=4).to_dict() | {"seed": seed}
    return TuneConfig(
        trial_id=trial_id, role="searched", trial=trial, folder=str(folder), threads=1, gpus=0.0
    )


def reports_of(trial: VQTrial, count: int = 100) -> list[dict[str, Any]]:
    """The next reports, up to the last, as Tune asks for them."""
    reports: list[dict[str, Any]] = []
    while len(reports) < count and not (reports and reports[-1]["done"]):
        reports.append({k: v for k, v in trial.step().items() if k not in TIMES})
    return reports


@pytest.fixture
def expected(tmp_path: Path) -> list[dict[str, Any]]:
    """All reports of a trial that nothing disturbs."""
    return reports_of(VQTrial(config=tune_config(tmp_path / "undisturbed")))


def test_an_iteration_is_a_report_of_the_plain_trainer(
    tmp_path: Path, loaded: list[DataConfig]
) -> None:
    config = tune_config(tmp_path / "new")
    trial = VQTrial(config=config)
    plain = Trainer(TrialConfig.from_dict(config["trial"]), make_dataset())
    assert loaded == [plain.config.data]
    for i in range(1, 5):
        result = trial.train()  # what Tune calls: `step`, and Tune's own bookkeeping
        report = plain.advance()
        assert result["training_iteration"] == i
        assert {k: result[k] for k in report if k not in TIMES} == {
            k: v for k, v in report.items() if k not in TIMES
        }
        assert result["done"] == plain.done == (i == 4)


def test_the_checkpoint_is_on_the_disk_before_its_report_is_sent(tmp_path: Path) -> None:
    config = tune_config(tmp_path)
    trial = VQTrial(config=config)
    assert not (tmp_path / CHECKPOINT).exists()
    for _ in range(4):
        [report] = reports_of(trial, 1)
        saved = Trainer(TrialConfig.from_dict(config["trial"]), make_dataset())
        saved.load(tmp_path)
        assert saved.report["samples"] == report["samples"]
        assert saved.done == report["done"]


@pytest.mark.parametrize("sent", [1, 2, 3, 4])
def test_a_restarted_trial_sends_its_last_report_again_and_goes_on(
    sent: int, tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    reports_of(VQTrial(config=tune_config(tmp_path)), sent)
    restarted = VQTrial(config=tune_config(tmp_path))
    assert reports_of(restarted) == expected[sent - 1 :]


def test_a_trial_restarted_before_every_report_ends_the_same(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    seen = reports_of(VQTrial(config=tune_config(tmp_path)), 1)
    while not seen[-1]["done"]:
        again, following = reports_of(VQTrial(config=tune_config(tmp_path)), 2)
        assert again == seen[-1]
        seen.append(following)
    assert seen == expected


def test_a_reused_actor_gives_the_metrics_of_a_fresh_one(tmp_path: Path) -> None:
    config = tune_config(tmp_path / "a", seed=5)
    alone = reports_of(VQTrial(config=config))
    actor = VQTrial(config=tune_config(tmp_path / "b", seed=6))
    reports_of(actor, 2)  # another trial, stopped early
    second = tune_config(tmp_path / "c", seed=5, trial_id="t2")
    assert actor.reset(second)
    assert reports_of(actor) == alone
    # Each trial has kept its own checkpoint.
    samples = [
        Trainer(TrialConfig.from_dict(c["trial"]), make_dataset())
        for c in (tune_config(tmp_path / "b", seed=6), second)
    ]
    for trainer, folder, drawn in zip(samples, ("b", "c"), (80, 160), strict=True):
        trainer.load(tmp_path / folder)
        assert trainer.report["samples"] == drawn


def test_a_reused_actor_also_resumes_what_it_finds(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    reports_of(VQTrial(config=tune_config(tmp_path / "stopped")), 2)
    actor = VQTrial(config=tune_config(tmp_path / "other", seed=9))
    reports_of(actor)
    assert actor.reset(tune_config(tmp_path / "stopped"))
    assert reports_of(actor) == expected[1:]


def test_tunes_own_checkpoints_carry_a_trial_to_another_place(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    first = VQTrial(config=tune_config(tmp_path / "a"))
    reports_of(first, 2)
    kept = tmp_path / "kept"
    kept.mkdir()
    first.save(str(kept))
    reports_of(first)
    second = VQTrial(config=tune_config(tmp_path / "b"))
    second.restore(str(kept))
    assert reports_of(second) == expected[2:]


def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path) -> None:
    """By the first step: Ray keeps no exception of an actor that cannot be made."""
    reports_of(VQTrial(config=tune_config(tmp_path, seed=1)), 1)
    trial = VQTrial(config=tune_config(tmp_path, seed=2))
    with pytest.raises(InputError, match="was written by another config"):
        trial.step()
    # It gets no better.
    with pytest.raises(InputError, match="was written by another config"):
        trial.step()
    assert trial.reset(tune_config(tmp_path, seed=1))
    assert trial.step()["samples"] == 40


def test_a_bad_config_names_the_trial(tmp_path: Path) -> None:
    config = tune_config(tmp_path, trial_id="t7")
    config["trial"]["codebook"]["size"] = 0
    trial = VQTrial(config=config)
    with pytest.raises(InputError, match=r"^trial t7: codebook\.size: found 0; allowed: "):
        trial.step()


def test_a_diverged_trial_is_done_and_stays_so(tmp_path: Path) -> None:
    trial = VQTrial(config=tune_config(tmp_path))
    reports_of(trial, 1)
    with torch.no_grad():
        trial._ours().trainer.stack.adam.parameters["decoder.out.bias"].fill_(torch.nan)
    [report] = reports_of(trial, 1)
    assert (report["done"], report["diverged"], report["complete"]) == (True, True, False)
    assert report["reason"] == "diverged: the loss is not finite after 80 samples"
    [again] = reports_of(VQTrial(config=tune_config(tmp_path)))
    assert (again["done"], again["diverged"], again["complete"]) == (True, True, False)
    assert again["reason"] == report["reason"]


def test_the_trial_runs_on_the_threads_it_was_given(tmp_path: Path) -> None:
    config = tune_config(tmp_path)
    config["threads"] = 2
    VQTrial(config=config)
    assert torch.get_num_threads() == 2
