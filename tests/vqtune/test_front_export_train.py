"""After a search: its front is shown, its best are exported, and these train to their metrics."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file

from analysis.ranking import best, front_table
from tests.vqtune.conftest import MODELS, VQTUNE, Mixed, Searched, vqtune
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune.cli import main
from vqtune.train import train, trained_folder

SHOWN = ("perplexity", "active_codes", "usage", "bits_per_frame", "recon_loss")


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


# --- front --------------------------------------------------------------------------------------


def test_the_front_as_csv(finished: Searched) -> None:
    rows = list(csv.DictReader(io.StringIO(call("front", finished.run, "--format", "csv"))))
    table = front_table(finished.records)
    assert [row["trial_id"] for row in rows] == table["trial_id"].tolist()
    assert [float(row["perplexity"]) for row in rows] == table["perplexity"].tolist()
    assert rows[0]["config.codebook.size"] == "16"
    for row in rows:
        last = finished.reports(row["trial_id"])[-1]
        assert float(row["recon_loss"]) == last["recon_loss"]
        assert float(row["active_codes"]) == last["active_codes"]


def test_the_front_as_json(finished: Searched) -> None:
    rows = json.loads(call("front", finished.run, "--format", "json"))
    assert [row["trial_id"] for row in rows] == front_table(finished.records)["trial_id"].tolist()
    for row in rows:
        assert row["config"] == finished.records.configs[row["trial_id"]]
    baseline = next(row for row in rows if row["role"] == "baseline")
    assert (baseline["perplexity_x"], baseline["recon_loss_x"]) == (1, 1)


def test_the_front_as_a_table(finished: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # no text is broken
    first, order, header, *rows = call("front", finished.run).splitlines()
    assert first == "demo: 5 complete"
    assert order.startswith("Best first: those that hold recon_loss <= 1*baseline, by ")
    assert header.split()[:5] == ["#", "trial", "perplexity", "×", "baseline"]
    table = front_table(finished.records)
    assert [row.split()[1] for row in rows] == table["trial_id"].tolist()
    for row, expected in zip(rows, table.to_dict("records"), strict=True):
        assert row.split()[2] == f"{expected['perplexity']:.1f}"
        assert row.rstrip().endswith(expected["reason"])


@pytest.mark.parametrize("columns", [80, 160])
def test_numbers_are_never_broken(
    columns: int, finished: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    told = call("front", finished.run)
    assert max(len(line) for line in told.splitlines()) <= columns
    for trial in front_table(finished.records).to_dict("records"):
        (line,) = [line for line in told.splitlines() if line.split()[1:2] == [trial["trial_id"]]]
        assert f"{trial['perplexity']:.1f}" in line.split()
        assert f"{trial['recon_loss']:.4g}" in line.split()


def test_the_best_of_the_front(finished: Searched) -> None:
    rows = json.loads(call("front", finished.run, "--top", 1, "--format", "json"))
    assert rows[0]["trial_id"] == best(finished.records, 1)["trial_id"].iloc[0]
    assert {row["trial_id"] for row in rows[1:]} <= {"baseline"}


def test_the_front_by_a_users_own_terms(finished: Searched) -> None:
    options = ["--objective", "cpu_seconds:min", "--constraint", "none", "--weight", "usage=1"]
    result = CliRunner().invoke(main, ["front", str(finished.run), *options])
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: weight: found 'usage=1', allowed METRIC=NUMBER with a number of 0 or more, once "
        "for each of perplexity, recon_loss, cpu_seconds\n"
    )
    options[-1] = "cpu_seconds=1e9"
    rows = json.loads(call("front", finished.run, *options, "--format", "json"))
    costs = [row["cpu_seconds"] for row in rows if row["on_front"]]
    assert costs == sorted(costs)
    assert "highest weighted score 1.00; " in rows[0]["reason"]  # the baseline may be that one


def test_a_run_is_found_by_its_name(finished: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.run.parents[1])
    assert call("front", "demo") == call("front", finished.run)


def test_the_states_of_all_trials_are_counted(mixed: Mixed) -> None:
    name, _, counts = call("front", mixed.run).splitlines()[0].partition(": ")
    assert name == "mixed"
    assert set(counts.split(", ")) == {"3 complete", "1 stopped", "1 failed", "1 diverged"}


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("*", ["demo: no trials yet", "No trial has reached its full budget: there is "]),
        ("baseline", ["demo: 4 complete", "Best first: ", "No baseline is complete, so all hold "]),
    ],
)
def test_what_a_run_lacks_is_told(
    gone: str, told: list[str], finished: Searched, tmp_path: Path
) -> None:
    shutil.copytree(finished.run, tmp_path / "demo")
    for trial in (tmp_path / "demo" / "trials").glob(gone):
        shutil.rmtree(trial)
    lines = call("front", tmp_path / "demo").splitlines()
    assert [line[: len(start)] for line, start in zip(lines, told, strict=False)] == told


# --- records ------------------------------------------------------------------------------------


def test_every_report_as_a_table(finished: Searched, tmp_path: Path) -> None:
    printed = call("records", finished.run)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == len(finished.records.reports)
    assert [row["samples"] for row in rows[:4]] == ["80.0", "160.0", "240.0", "320.0"]
    told = call("records", finished.run, "--out", tmp_path / "r.csv")
    assert told == f"Written to {tmp_path / 'r.csv'}: {len(rows)} rows of {len(rows[0])} columns\n"
    assert (tmp_path / "r.csv").read_text() == printed
    call("records", finished.run, "--out", tmp_path / "r.parquet")
    table = pd.read_parquet(tmp_path / "r.parquet")
    assert table["recon_loss"].tolist() == [float(row["recon_loss"]) for row in rows]
    for name in ("r.parquet", "r.json"):
        result = CliRunner().invoke(
            main, ["records", str(finished.run), "--out", str(tmp_path / name)]
        )
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_a_reader_that_has_seen_enough_ends_it_quietly(finished: Searched) -> None:
    command = f"{shlex.join(VQTUNE)} records {finished.run} | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("trial_id,role,")
    assert ended.stderr == ""


# --- export -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(finished: Searched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three best of the finished run."""
    out = tmp_path_factory.mktemp("exported") / "demo"
    call("export", finished.run, "--top", 3, "--out", out)
    return out


def first_config(exported: Path) -> Path:
    return sorted(exported.glob("*.yaml"))[0]


def test_an_export_holds_the_best_in_order(finished: Searched, exported: Path) -> None:
    chosen = best(finished.records, 3)["trial_id"].tolist()
    names = [f"{i:02d}-{trial_id}" for i, trial_id in enumerate(chosen, 1)]
    files = {f"{name}.{kind}" for name in names for kind in ("yaml", "safetensors")}
    assert {path.name for path in exported.iterdir()} == files | {"README.md"}


def test_an_exported_config_is_the_trials(finished: Searched, exported: Path) -> None:
    for path in exported.glob("*.yaml"):
        config = TrialConfig.from_yaml(path)
        trial_id = path.stem.partition("-")[2]
        assert config.to_dict()["provenance"] is not None
        assert {k: v for k, v in config.to_dict().items() if k != "provenance"} == (
            finished.records.configs[trial_id]
        )


def test_provenance_says_where_a_config_came_from(finished: Searched, exported: Path) -> None:
    path = first_config(exported)
    trial_id = path.stem.partition("-")[2]
    provenance = yaml.safe_load(path.read_text())["provenance"]
    last = finished.reports(trial_id)[-1]
    assert (provenance["run"], provenance["trial"]) == ("demo", trial_id)
    assert provenance["metrics"]["samples"] == 320
    for name in SHOWN:
        assert provenance["metrics"][name] == last[name]
    assert (provenance["device"], provenance["threads"]) == ("cpu", 1)
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["weights"] == f"{path.stem}.safetensors"
    assert re.fullmatch("[0-9a-f]{64}", provenance["data_fingerprint"])


def test_exported_weights_give_the_exported_loss(exported: Path) -> None:
    """The weights alone are the trained model: their reconstruction, computed here from scratch."""
    path = first_config(exported)
    config = TrialConfig.from_yaml(path)
    weights = load_file(path.with_suffix(".safetensors"))
    assert weights["codebook"].shape == (16, 4)
    trainer = Trainer(config)
    stack = trainer.stack
    for name, value in stack.weights.items():
        assert value[0].shape == weights[name].shape
    assert weights.keys() == {*stack.weights, "codebook"}

    lane = {name: value.unsqueeze(0) for name, value in weights.items()}
    heldout = trainer.dataset.heldout
    clips = [heldout.values[start : start + config.data.clip_frames].T for start in heldout.starts]
    x = torch.from_numpy(np.stack(clips)).unsqueeze(0)
    with torch.no_grad():
        z = stack.model.encode(lane, x)
        nearest = torch.cdist(z[0].mT, weights["codebook"]).argmin(-1)
        z_q = weights["codebook"][nearest].mT.unsqueeze(0)
        loss = (stack.model.decode(lane, z_q) - x).square().mean().item()
    assert config.provenance is not None
    assert isinstance(metrics := config.provenance["metrics"], dict)
    assert loss == pytest.approx(metrics["recon_loss"], rel=1e-5)
    assert len(nearest.unique()) == metrics["hit_codes"]


def test_weights_carry_their_config(exported: Path) -> None:
    path = first_config(exported)
    with safe_open(path.with_suffix(".safetensors"), "pt") as file:
        header = json.loads(file.metadata()["vqtune"])
    config = yaml.safe_load(path.read_text())
    assert header["trial"] == {key: value for key, value in config.items() if key != "provenance"}
    assert header["provenance"] == config["provenance"]


def test_export_says_what_to_do_next(
    finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = call("export", finished.run, "--top", 2).splitlines()
    configs = sorted(Path("exported/demo").glob("*.yaml"))
    assert [line.split()[1] for line in told[:-2]] == [str(path) for path in configs]
    assert told[-2].endswith(": exported/demo/README.md")
    assert told[-1].endswith(f" train {configs[0]}")


def test_a_failed_trial_is_never_exported(mixed: Mixed, tmp_path: Path) -> None:
    call("export", mixed.run, "--top", 99, "--out", tmp_path / "out")
    trials = {path.stem.partition("-")[2] for path in (tmp_path / "out").glob("*.yaml")}
    assert trials
    assert trials <= {"baseline", "t0001", "t0005"}


# --- train --------------------------------------------------------------------------------------


def metrics_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return report


def test_an_exported_config_gives_its_metrics_again(exported: Path, tmp_path: Path) -> None:
    """To the last digit, in a process of its own that starts with another number of threads."""
    path = first_config(exported)
    ended = vqtune("train", path, cwd=tmp_path, OMP_NUM_THREADS="2")
    assert (ended.code, ended.err) == (0, "")
    made = yaml.safe_load(path.read_text())["provenance"]
    claim = made["metrics"]
    # By run, since the first config of another may have this name too.
    found = metrics_of(tmp_path / "trained" / made["run"] / path.stem)
    assert {name: found[name] for name in claim} == claim
    lines = [line for line in ended.out.splitlines() if line.split()[0] in SHOWN]
    assert [line.split()[0] for line in lines] == list(SHOWN)
    for line in lines:
        assert line.endswith("   as exported")
        assert float(line.split()[1]) == claim[line.split()[0]]


@pytest.mark.parametrize("run", ["../../etc", "/abs", "", 3, None, "a\nb"])
def test_a_run_that_is_no_name_leads_nowhere_else(run: Any) -> None:
    config = TrialConfig.from_dict({"provenance": {"run": run}})
    assert trained_folder(config, "mine") == Path("trained/mine")


def test_trained_weights_are_the_exported_ones(exported: Path, tmp_path: Path) -> None:
    path = first_config(exported)
    torch.set_num_threads(2)  # the config records 1
    call("train", path, "--out", tmp_path / "out")
    theirs = load_file(path.with_suffix(".safetensors"))
    mine = load_file(tmp_path / "out" / "weights.safetensors")
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name])
    assert TrialConfig.from_yaml(tmp_path / "out" / "config.yaml") == TrialConfig.from_yaml(path)


@pytest.fixture
def config(exported: Path, tmp_path: Path) -> Path:
    """The best config without its provenance, as if written by hand."""
    values = yaml.safe_load(first_config(exported).read_text())
    del values["provenance"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_several_seeds(config: Path, tmp_path: Path) -> None:
    told = call("train", config, "--seeds", 2, "--out", tmp_path / "out")
    reports = [metrics_of(tmp_path / "out" / f"seed-{seed}") for seed in (5, 6)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"seed-5", "seed-6"}
    values = [report["recon_loss"] for report in reports]
    assert values[0] != values[1]
    assert "2 of 2 seeds ended well; mean ± deviation:" in told
    spread = f"{'recon_loss':15} {np.mean(values):.5g} ± {np.std(values, ddof=1):.2g}"
    assert spread in told.splitlines()
    single = call("train", config, "--out", tmp_path / "single")
    assert "as exported" not in single
    assert metrics_of(tmp_path / "single")["recon_loss"] == values[0]
    for seed in (5, 6):
        written = TrialConfig.from_yaml(tmp_path / "out" / f"seed-{seed}" / "config.yaml")
        assert written.seed == seed


def test_another_budget(exported: Path, tmp_path: Path) -> None:
    """A claim for another budget is not held against it."""
    told = call("train", first_config(exported), "--samples", 640, "--out", tmp_path / "out")
    assert metrics_of(tmp_path / "out")["samples"] == 640
    assert "export" not in told


def test_other_data(config: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "arrays").mkdir()
    for name in "abc":
        values = rng.standard_normal((400, 6)).astype(np.float32)
        np.save(tmp_path / "arrays" / f"{name}.npy", values)
    call("train", config, "--data", tmp_path / "arrays", "--out", tmp_path / "out")
    written = TrialConfig.from_yaml(tmp_path / "out" / "config.yaml")
    assert written.data.kind == "arrays"
    assert metrics_of(tmp_path / "out")["complete"]
    assert load_file(tmp_path / "out" / "weights.safetensors")["decoder.out.bias"].shape == (6,)


def test_data_that_are_not_the_exported_ones_are_told(exported: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(first_config(exported).read_text())
    values["data"]["seed"] = 1
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(values))
    told = call("train", tmp_path / "changed.yaml", "--out", tmp_path / "out")
    assert "Note: the data are not those that the config was exported with" in told
    assert "   exported with " in told


def test_a_finished_training_is_not_repeated(config: Path, tmp_path: Path) -> None:
    call("train", config, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "checkpoint.safetensors").stat().st_mtime_ns
    report = metrics_of(tmp_path / "out")
    call("train", config, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint.safetensors").stat().st_mtime_ns == before
    assert metrics_of(tmp_path / "out") == report


def samples_in(folder: Path) -> int:
    try:
        # Torch's reader opens the file twice, and it may be another one the second time.
        with safe_open(folder / "checkpoint.safetensors", "np") as file:
            return int(json.loads(file.metadata()["vqtune"])["samples"])
    except OSError:
        return 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_an_interrupted_training_goes_on(how: signal.Signals, config: Path, tmp_path: Path) -> None:
    """And ends as one that was not interrupted."""
    values = yaml.safe_load(config.read_text())
    values["training"] |= {"samples": 1600, "reports": 100}
    config.write_text(yaml.safe_dump(values))
    process = subprocess.Popen(
        [*VQTUNE, "train", str(config), "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while samples_in(tmp_path / "out") < 160:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    left = samples_in(tmp_path / "out")
    assert 160 <= left < 1600
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert err == ""
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert out.splitlines()[-1] == (
            "Interrupted; run the same command again to go on from the last report."
        )
    told: list[int] = []
    resumed = train(TrialConfig.from_yaml(config), tmp_path / "out", told.append, print)
    assert told[0] == left
    assert told == sorted(told)
    assert resumed == metrics_of(tmp_path / "out")
    trainer = Trainer(TrialConfig.from_yaml(config))
    while not trainer.done:
        through = trainer.advance()
    for name in ("samples", *SHOWN):
        assert resumed[name] == through[name]


def test_a_training_that_diverges_ends_with_1(config: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(config.read_text())
    values["model"] = {"kind": "factory", "factory": "models:build"}
    values["model"]["arguments"] = {"ending": "diverges"}
    config.write_text(yaml.safe_dump(values))
    (tmp_path / "models.py").write_text(MODELS)
    ended = vqtune("train", config, "--out", "out", cwd=tmp_path)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[-2] == "diverged: the loss is not finite after 160 samples"
    assert metrics_of(tmp_path / "out")["diverged"]
