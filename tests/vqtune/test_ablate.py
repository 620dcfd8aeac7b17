"""`vqtune ablate`: which variants there are, and a run of them that Ray really trains."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.ablation import ablation_table
from analysis.records import Records, read_run
from tests.vqtune.conftest import VQTUNE, Finished, Searched, lines, vqtune
from tests.vqtune.test_cli import call, refused
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune.ablation import plain, planned_trials, techniques, variants
from vqtune.fixed_list import FixedList
from vqtune.spaces import load_space

# Three techniques on a model for tests; a trial takes about a tenth of a second.
CONFIG: dict[str, Any] = {
    "seed": 3,
    "data": {"kind": "synthetic", "files": 12, "seconds": 1.0},
    "model": {"width": 8, "depth": 1},
    "codebook": {
        "size": 16,
        "dim": 4,
        "update": {"kind": "ema", "decay": 0.95},
        "commitment": {"beta": 1.0},
    },
    "training": {"samples": 320, "reports": 4, "lr": 0.002},
    "evaluation": {"latents": 160},
}


def config_of(codebook: dict[str, Any], **training: Any) -> TrialConfig:
    return TrialConfig.from_dict({"codebook": codebook, "training": training})


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG | changes))
    return path


# --- the variants of a config, without training --------------------------------------------------


@pytest.mark.parametrize(
    ("codebook", "training", "names"),
    [
        ({}, {}, []),
        ({"size": 64, "dim": 8}, {"samples": 5, "reports": 2, "precision": "float64"}, []),
        ({"update": {"kind": "ema"}}, {}, ["ema"]),
        ({"update": {"lr_ratio": 4.0, "lr_final": 0.1}}, {}, ["codebook_lr"]),
        ({"update": {"weight": 2.0}}, {}, ["codebook_loss"]),
        (
            {"respawn": {}, "update": {"kind": "simvq"}, "commitment": {"beta": 1.0}}
            | {"respawn": None, "entropy": {}, "rotation": {}},
            {},
            ["simvq", "beta", "entropy", "rotation"],
        ),
        (
            {"residual": {}, "groups": {}, "normalization": {"kind": "layer"}},
            {"batch_size": 8, "lr": 0.01, "warmup": 0.1, "lr_final": 0.5},
            ["normalization", "groups", "residual", "batch_size", "lr", "warmup", "lr_final"],
        ),
    ],
)
def test_techniques_are_what_differs_from_the_plain_vq_vae(
    codebook: dict[str, Any], training: dict[str, Any], names: list[str]
) -> None:
    config = config_of(codebook, **training)
    assert list(techniques(config)) == names
    assert techniques(plain(config)) == {}


def test_the_model_is_no_technique() -> None:
    values = {"model": {"kind": "hierarchical"}, "codebook": {"respawn": {}}}
    config = TrialConfig.from_dict(values)
    assert list(techniques(config)) == ["respawn"]
    assert plain(config).model == config.model


def test_each_variant_is_one_technique_from_an_end() -> None:
    config = config_of(
        {"size": 64, "update": {"kind": "ema"}, "respawn": {"period": 50}}, lr=0.01, samples=7
    )
    found, refused_ones = variants(config)
    assert refused_ones == []
    assert [variant.name for variant in found] == [
        *("config", "baseline", "without-ema", "without-respawn", "without-lr"),
        *("only-ema", "only-respawn", "only-lr"),
    ]
    assert [variant.trials for variant in found] == [variant.name for variant in found]
    assert [(variant.kind, variant.technique) for variant in found[:3]] == [
        ("config", ""),
        ("baseline", ""),
        ("without", "ema"),
    ]
    size, ema, respawn = {"size": 64}, {"update": {"kind": "ema"}}, {"respawn": {"period": 50}}
    assert [variant.config for variant in found] == [
        config,
        config_of(size, samples=7),
        config_of(size | respawn, lr=0.01, samples=7),
        config_of(size | ema, lr=0.01, samples=7),
        config_of(size | ema | respawn, samples=7),
        config_of(size | ema, samples=7),
        config_of(size | respawn, samples=7),
        config_of(size, lr=0.01, samples=7),
    ]


def test_two_variants_that_are_one_config_are_trained_once() -> None:
    found, _ = variants(config_of({"respawn": {}}))
    assert {variant.name: variant.trials for variant in found} == {
        "config": "config",
        "baseline": "baseline",
        "without-respawn": "baseline",
        "only-respawn": "config",
    }
    found, _ = variants(config_of({"respawn": {}, "rotation": {}}))
    shared = {variant.name: variant.trials for variant in found if variant.trials != variant.name}
    assert shared == {"only-rotation": "without-respawn", "only-respawn": "without-rotation"}
    planned = planned_trials(found, [4, 5])
    assert [trial.trial_id for trial in planned] == [
        f"{name}-s{seed}"
        for seed in (4, 5)
        for name in ("config", "baseline", "without-rotation", "without-respawn")
    ]
    assert [trial.config.seed for trial in planned] == [4] * 4 + [5] * 4
    baselines = [trial.trial_id for trial in planned if trial.role == "baseline"]
    assert baselines == ["baseline-s4"]


def test_what_the_config_refuses_is_named_with_the_reason() -> None:
    """Seeding from 40 latents is enough only while the codebook starts small."""
    codebook = {"size": 64, "kmeans": {"latents": 40}, "growth": {"start": 32}}
    found, refused_ones = variants(config_of(codebook))
    assert [variant.name for variant in found] == [
        *("config", "baseline", "without-kmeans", "only-growth"),
    ]
    reason = "codebook.kmeans.latents: found 40, allowed at least the 64 codes to seed"
    assert refused_ones == [f"without-growth: {reason}", f"only-kmeans: {reason}"]


def test_any_config_of_the_full_space_is_taken_apart() -> None:
    space = load_space("full")
    baseline = space.baseline()
    for config in space.draw(40, seed=1):
        assert plain(config).training == baseline.training
        assert plain(config).codebook.size == config.codebook.size
        named = list(techniques(config))
        found, refused_ones = variants(config)
        expected = ["config", "baseline", *(f"without-{n}" for n in named)]
        expected += [f"only-{n}" for n in named]
        left_out = [line.partition(":")[0] for line in refused_ones]
        assert [v.name for v in found] == [name for name in expected if name not in left_out]
        for variant in found:
            if variant.kind == "only":
                assert list(techniques(variant.config)) == [variant.technique]
            if variant.kind == "without":
                assert list(techniques(variant.config)) == [
                    name for name in named if name != variant.technique
                ]


def test_an_exported_config_is_ablated_without_its_provenance() -> None:
    values = config_of({"respawn": {}}).to_dict()
    found, _ = variants(TrialConfig.from_dict({**values, "provenance": {"trial": "t0001"}}))
    assert all(variant.config.provenance is None for variant in found)
    assert [variant.trials for variant in found] == ["config", "baseline", "baseline", "config"]


def test_a_fixed_list_is_proposed_once_and_in_order() -> None:
    searcher = FixedList([{"trial_id": "a"}, {"trial_id": "b"}])
    assert searcher.suggest("1") == {"trial_id": "a"}
    searcher.on_trial_complete("1", error=True)
    assert searcher.suggest("2") == {"trial_id": "b"}
    assert searcher.suggest("3") == FixedList.FINISHED


# --- an ablation that is trained -----------------------------------------------------------------


@dataclass(frozen=True)
class Ablated:
    """An ablation that has ended, and what the command printed."""

    folder: Path
    run: Path
    ended: Finished

    @property
    def records(self) -> Records:
        return read_run(self.run)


SEEDS = (3, 4)
NAMES = (
    *("config", "baseline", "without-ema", "without-beta", "without-lr"),
    *("only-ema", "only-beta", "only-lr"),
)


@pytest.fixture(scope="module")
def ablated(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Ablated:
    folder = tmp_path_factory.mktemp("ablated")
    write(folder)
    arguments = ("config.yaml", "--name", "demo", "--seeds", len(SEEDS), "--address", cluster)
    ended = vqtune("ablate", *arguments, cwd=folder)
    assert ended.code == 0, ended.err
    return Ablated(folder, folder / "runs" / "demo", ended)


def test_every_variant_is_trained_with_every_seed(ablated: Ablated) -> None:
    found, _ = variants(TrialConfig.from_dict(CONFIG))
    configs = {variant.name: variant.config.to_dict() for variant in found}
    assert list(configs) == list(NAMES)
    trials = ablated.records.trials
    assert set(trials["state"]) == {"complete"}
    assert trials["trial_id"].tolist() == [f"{name}-s{seed}" for seed in SEEDS for name in NAMES]
    for name in NAMES:
        for seed in SEEDS:
            folder = ablated.run / "trials" / f"{name}-s{seed}"
            params = json.loads((folder / "params.json").read_text())
            assert params["trial"] == configs[name] | {"seed": seed}
            first = (name, seed) == ("baseline", SEEDS[0])
            assert params["role"] == ("baseline" if first else "ablation")
            files = {path.name for path in folder.iterdir()}
            assert files == {"params.json", "result.json", "checkpoint.safetensors"}


def test_a_trial_gives_the_numbers_of_a_plain_training(ablated: Ablated) -> None:
    records = ablated.records
    for trial in records.trials.to_dict("records"):
        trainer = Trainer(TrialConfig.from_dict(records.configs[trial["trial_id"]]))
        while not trainer.done:
            report = trainer.advance()
        for metric in ("perplexity", "recon_loss", "active_codes", "usage"):
            assert report[metric] == trial[metric]


def test_the_written_table_is_that_of_the_reports(ablated: Ablated) -> None:
    table = pd.read_csv(ablated.run / "ablation.csv").set_index("variant")
    assert sorted(table.index) == sorted(NAMES)
    last = {
        name: [lines(ablated.run / "trials" / f"{name}-s{seed}")[-1] for seed in SEEDS]
        for name in NAMES
    }
    for name, reports in last.items():
        values = [report["recon_loss"] for report in reports]
        assert table.loc[name, "recon_loss"] == pytest.approx(statistics.mean(values))
        assert table.loc[name, "recon_loss_sd"] == pytest.approx(statistics.stdev(values))
    for name, other in (("only-lr", "baseline"), ("without-lr", "config")):
        pairs = zip(last[name], last[other], strict=True)
        change = statistics.mean(mine["perplexity"] - its["perplexity"] for mine, its in pairs)
        assert table.loc[name, "perplexity_change"] == pytest.approx(change)


def test_the_printed_table_has_a_row_a_variant_and_ends_with_the_headlines(
    ablated: Ablated,
) -> None:
    out = ablated.ended.out.splitlines()
    assert ablated.ended.err == ""
    [start] = [line for line in out if line.startswith("demo: 8 configs")]
    assert start == "demo: 8 configs with 2 seeds, 16 trials"
    rows = [line.split()[0] for line in out[out.index("demo: 16 complete") + 2 :]][: len(NAMES)]
    assert rows == ablation_table(ablated.records)["variant"].tolist()
    assert out[-3].startswith("Taken away, ")
    assert out[-2].startswith("On its own, ")
    assert out[-1] == "Records: runs/demo   Table: runs/demo/ablation.csv"


def test_nothing_else_is_left_in_the_run(ablated: Ablated) -> None:
    kept = {path.name for path in ablated.run.iterdir() if path.name != ".lock"}
    assert kept == {"spec.yaml", "trials", "tensorboard", "ablation.csv"}


def test_a_finished_ablation_says_so_and_shows_its_table_again(ablated: Ablated) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ablated.run / "trials").rglob("*")}
    again = vqtune(
        *("ablate", "config.yaml", "--name", "demo", "--seeds", len(SEEDS), "--resume"),
        cwd=ablated.folder,
    )
    assert again.code == 0
    first, second = ablated.ended.out.splitlines(), again.out.splitlines()
    assert second[0] == "demo is finished: nothing is left to do"
    assert second[1:] == first[first.index("demo: 16 complete") :]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_front_of_an_ablation_can_be_exported(ablated: Ablated, tmp_path: Path) -> None:
    assert call("front", ablated.run).exit_code == 0
    assert call("export", ablated.run, "--out", tmp_path / "out").exit_code == 0
    exported = TrialConfig.from_yaml(next((tmp_path / "out").glob("01-*.yaml")))
    assert exported.data == TrialConfig.from_dict(CONFIG).data


MODELS = """
import torch
from torch import nn


class Decoder(nn.Module):
    def __init__(self, dim, channels):
        super().__init__()
        self.layer = nn.Conv1d(dim, channels, 1)

    def forward(self, z):
        return torch.exp(self.layer(z))


def build(example_shape, dim):
    return nn.Conv1d(example_shape[0], dim, 1), Decoder(dim, example_shape[0])
"""


@pytest.mark.long
def test_seeds_that_diverge_are_counted_and_named(cluster: str, tmp_path: Path) -> None:
    """The user's decoder overflows, unless the learning rate is taken away."""
    (tmp_path / "models.py").write_text(MODELS)
    model = {"kind": "factory", "factory": "models:build"}
    codebook = {"size": 16, "dim": 4, "commitment": {"beta": 1.0}}
    training = {"samples": 320, "reports": 2, "lr": 10.0}
    write(tmp_path, model=model, codebook=codebook, training=training)
    arguments = ("config.yaml", "--name", "x", "--seeds", 1, "--address", cluster)
    ended = vqtune("ablate", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.err
    out = ended.out.splitlines()
    assert "x: 2 diverged, 2 complete" in out
    assert [line.split()[:4] for line in out if "0 of 1" in line] == [
        [name, "0", "of", "1"] for name in ("config", "without-beta", "only-lr")
    ]
    for name in ("config", "without-beta"):
        told = [line for line in out if line.startswith(f"Not counted: {name}-s3, diverged: ")]
        assert len(told) == 1


# --- interrupted, killed, and gone on with -------------------------------------------------------

# A trial takes about a second.
LONG = {
    "codebook": {"size": 16, "dim": 4, "update": {"kind": "ema"}},
    "training": {"samples": 3840, "reports": 40},
}


def all_reports(run: Path) -> dict[str, list[dict[str, Any]]]:
    found = {path.name: lines(path) for path in (run / "trials").glob("*")}
    return {trial: reports for trial, reports in found.items() if reports}


def stopped(arguments: list[str], folder: Path, run: Path, sent: int) -> Finished:
    """Start a session, and send it a signal when one more trial has ended and one is midway."""
    ended_before = sum(reports[-1]["done"] for reports in all_reports(run).values())
    with subprocess.Popen(
        [*VQTUNE, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        limit = time.monotonic() + 60
        while True:
            now = [reports for reports in all_reports(run).values() if len(reports) > 3]
            done = sum(reports[-1]["done"] for reports in now)
            if ended_before < done < len(now):
                break
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.kill(process.pid, sent)
        out, err = process.communicate(timeout=60)
    return Finished(process.returncode, out, err)


@pytest.mark.long
def test_an_interrupted_ablation_ends_with_the_same_table(cluster: str, tmp_path: Path) -> None:
    """Ctrl-C, kill -9, and to the end; against the same in one go."""
    write(tmp_path, **LONG)
    asked = ["ablate", "config.yaml", "--seeds", "2", "--address", cluster]
    run = tmp_path / "runs" / "parts"
    first = stopped([*asked, "--name", "parts"], tmp_path, run, signal.SIGINT)
    assert (first.code, first.err) == (130, "")
    told = first.out.splitlines()[-1]
    assert told.startswith("Interrupted; everything is saved. Go on with: ")
    command = shlex.split(told.partition("Go on with: ")[2])[1:]
    assert command[-1] == "--resume"
    assert not (run / "ablation.csv").exists()
    after_first = all_reports(run)
    assert stopped(command, tmp_path, run, signal.SIGKILL).code == -signal.SIGKILL
    after_second = all_reports(run)
    last = vqtune(*command, cwd=tmp_path)
    assert last.code == 0, last.err
    after = all_reports(run)
    for earlier in (after_first, after_second):
        for trial, reports in earlier.items():
            assert after[trial][: len(reports)] == reports
            if reports[-1]["done"]:
                assert len(after[trial]) == len(reports)
    for reports in after.values():  # the report of a checkpoint may come twice, none before it
        samples = [report["samples"] for report in reports]
        assert samples == sorted(samples)
        assert len(samples) <= 40 + 2
    whole = vqtune(*asked, "--name", "whole", cwd=tmp_path)
    table = (tmp_path / "runs" / "whole" / "ablation.csv").read_text()
    assert (run / "ablation.csv").read_text() == table
    shown = last.out[last.out.index("parts: 4 complete") :].replace("parts", "whole")
    assert whole.out.endswith(shown)


# --- what is refused -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "nothing.yaml: cannot be read: No such file or directory"),
        (["broken.yaml"], "broken.yaml:1: not valid YAML: "),
        (["wrong.yaml"], "wrong.yaml: codebook.siez: unknown key"),
        (["plain.yaml"], "plain.yaml: is the plain VQ-VAE: it has no technique to take away"),
        (["config.yaml", "--seeds", "0"], "Invalid value for '--seeds': 0 is not in the range"),
        (["config.yaml", "--samples", "0"], "Invalid value for '--samples': 0 is not in the range"),
        (["late.yaml"], "--seeds: seed: found 2147483648; allowed: less than 2147483648"),
        (["config.yaml", "--data", "nowhere"], "nowhere: cannot be read"),
        (["config.yaml", "--resume"], "--resume: needs --name, the run to go on with"),
        (["config.yaml", "--resume", "--name", "x"], "--resume: there is no run 'x' in "),
        (["config.yaml", "--name", "../x"], "--name: found '../x'; allowed: "),
        (["config.yaml", "--address", "127.0.0.1:1"], "--address: no Ray cluster answers"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], message: str, folder: Path) -> None:
    (folder / "broken.yaml").write_text("codebook: {size: 16")
    (folder / "wrong.yaml").write_text("codebook: {siez: 16}")
    (folder / "plain.yaml").write_text("codebook: {size: 16}\ntraining: {samples: 100}")
    (folder / "late.yaml").write_text("codebook: {rotation: {}}\nseed: 2147483646")
    assert refused("ablate", *arguments).startswith(message)
    assert not (folder / "runs").exists() or list((folder / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, ["--seeds", "3"], "seeds: the run was started with [3, 4], now it is [3, 4, 5]"),
        ({"seed": 4}, [], "config.seed: the run was started with 3, now it is 4"),
        (
            {},
            ["--samples", "640"],
            "config.training.samples: the run was started with 320, now it is 640",
        ),
    ],
)
def test_another_ablation_is_not_gone_on_with(
    changes: dict[str, Any], flags: list[str], message: str, ablated: Ablated, folder: Path
) -> None:
    shutil.copytree(ablated.run, folder / "runs" / "demo")
    write(folder, **changes)
    asked = ["config.yaml", "--name", "demo", "--resume", "--seeds", "2", *flags]
    line = refused("ablate", *asked)
    assert line == f"--resume demo: {message}; allowed: the same config and flags"


def test_a_search_and_an_ablation_are_not_taken_for_each_other(
    ablated: Ablated, finished: Searched, folder: Path
) -> None:
    shutil.copytree(finished.run, folder / "runs" / "search")
    line = refused("ablate", "config.yaml", "--name", "search", "--resume")
    assert line.endswith("ablation: found None, allowed: what an ablation has written")
    shutil.copytree(ablated.run, folder / "runs" / "ablation")
    line = refused("search", "ema", "--name", "ablation", "--resume")
    assert line.endswith("space: found None, allowed: what a search has written")
