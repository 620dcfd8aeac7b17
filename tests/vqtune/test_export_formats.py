"""An export's README.md, its formats, and that it is whole; and what a retraining says of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from analysis.confirmed import confirmed
from analysis.ranking import best
from analysis.records import read_run
from tests.vqtune.conftest import Mixed, Searched, digest, python, vqtune
from tests.vqtune.test_cli import refused
from tests.vqtune.test_front_export_train import call, metrics_of
from trainables.codebooks import VectorQuantizer
from trainables.config import TrialConfig
from vqtune.export_python import as_program


@pytest.fixture
def folder(finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder, with a search of their own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.run, tmp_path / "runs" / "demo")
    return tmp_path


def confirm_by_hand(run: Path, ends: dict[str, list[tuple[float, float]]]) -> None:
    """RUN/confirm with these values of perplexity and recon_loss with the seeds 6, 7, ..."""
    folder = run / "confirm"
    seeds = [6 + i for i in range(max(map(len, ends.values())))]
    for trial, values in ends.items():
        for seed, (perplexity, recon_loss) in zip(seeds, values, strict=True):
            place = folder / "trials" / f"{trial}-s{seed}"
            place.mkdir(parents=True)
            source = run / "trials" / trial
            params = json.loads((source / "params.json").read_text())
            (place / "params.json").write_text(
                json.dumps(params | {"trial_id": place.name, "role": "confirm"})
            )
            last = json.loads((source / "result.json").read_text().splitlines()[-1])
            last |= {"perplexity": perplexity, "recon_loss": recon_loss, "trial_id": place.name}
            (place / "result.json").write_text(json.dumps(last) + "\n")
    spec = {"objectives": {"perplexity": "max", "recon_loss": "min"}}
    spec["confirm"] = {"run": "demo", "finalists": list(ends), "seeds": seeds}  # type: ignore[dict-item]
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))


def first_two(run: Path) -> list[str]:
    return [str(trial) for trial in best(read_run(run), 2)["trial_id"]]


# --- README.md ------------------------------------------------------------------------------------


def rows_of(text: str, header: str) -> list[list[str]]:
    """The cells of the table under a header that begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_readme_says_where_each_config_stands(finished: Searched, folder: Path) -> None:
    call("export", "demo", "--top", 2)
    text = (folder / "exported" / "demo" / "README.md").read_text()
    assert text.startswith("# The best of demo\n")
    chosen = best(finished.records, 2)
    rows = rows_of(text, "|  | trial |")
    assert [row[1] for row in rows[: len(chosen)]] == chosen["trial_id"].tolist()
    assert rows[-1][1] == "baseline"
    for row, (_, told) in zip(rows, chosen.iterrows(), strict=False):
        assert row[0] == f"{told['position']}."
        assert row[2].startswith(f"{told['perplexity']:.1f} (")
        assert row[3].startswith(f"{told['recon_loss']:.4g} (")
        assert row[-1] == told["reason"]
        assert f"- {told['trial_id']}: {told['technique']}" in text
    assert "recon_loss <= 1*baseline" in text
    assert f"Not confirmed: {', '.join(chosen['trial_id'])}." in text


def test_an_export_follows_the_users_own_terms(finished: Searched, folder: Path) -> None:
    flags = ("--weight", "recon_loss=1", "--weight", "perplexity=0", "--constraint", "none")
    call("export", "demo", "--top", 1, *flags)
    complete = finished.records.trials.query("state == 'complete'")
    lowest = complete.loc[complete["recon_loss"].idxmin(), "trial_id"]
    names = {path.name for path in (folder / "exported" / "demo").iterdir()}
    assert names == {"README.md", f"01-{lowest}.yaml", f"01-{lowest}.safetensors"}
    text = (folder / "exported" / "demo" / "README.md").read_text()
    assert "by non-dominated rank and weights perplexity=0, recon_loss=1" in text


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    """As they stand there: training to the same metrics, and loading the weights."""
    call("export", "demo", "--top", 1, "--format", "python")
    text = (folder / "exported" / "demo" / "README.md").read_text()
    [trained] = re.findall(r"^    \S+ (train .*)$", text, re.MULTILINE)
    ended = vqtune(*shlex.split(trained), cwd=folder)
    assert ended.code == 0, ended.err
    assert ended.out.count("as exported") == 5
    [again] = re.findall(r"^    \S+ (confirm .*)$", text, re.MULTILINE)
    assert shlex.split(again) == ["confirm", "runs/demo", "--top", "1"]
    [program] = re.findall(r"^    \S*python (\S+\.py)$", text, re.MULTILINE)
    assert (folder / program).exists()
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shape = f"print(list(codes.shape), list(x_hat.shape) == list(x.shape), indices[0].dtype)\n{''}"
    ended = python(block + shape, folder / "exported" / "demo")
    assert (ended.code, ended.out) == (0, "[16, 4] True torch.int64\n"), ended.err


def test_a_confirmation_is_told_in_the_readme_and_the_provenance(folder: Path) -> None:
    run = folder / "runs" / "demo"
    first, second = first_two(run)
    confirm_by_hand(run, {first: [(9.0, 0.5), (10.0, 0.6)], "baseline": [(3.0, 0.9), (3.5, 0.8)]})
    call("export", run, "--top", 2)
    out = folder / "exported" / "demo"
    text = (out / "README.md").read_text()
    row = rows_of(text, "| trial | seeds |")[0]
    assert row[:2] == [first, "2"]
    assert row[2].endswith("→ 9.5 ± 0.7")
    assert row[4:6] == ["yes (100%)", "yes"]
    assert "Searched values were " in text
    assert f"Take {first}: " in text
    assert f"Not confirmed: {second}." in text
    made = TrialConfig.from_yaml(out / f"01-{first}.yaml").provenance
    assert made is not None
    told = made["confirmed"]
    assert isinstance(told, dict)
    table = confirmed(read_run(run))
    assert table is not None
    assert (told["seeds"], told["seeds_complete"], told["probability"]) == (2, 2, 1)
    assert told["perplexity"] == [9.5, pytest.approx(table["perplexity_sd"][0])]
    assert "confirmed" not in (TrialConfig.from_yaml(out / f"02-{second}.yaml").provenance or {})


def test_one_seed_has_no_deviation_to_tell(folder: Path) -> None:
    run = folder / "runs" / "demo"
    [first, _] = first_two(run)
    confirm_by_hand(run, {first: [(9.0, 0.5)]})
    call("export", run, "--top", 1, "--format", "json")
    made = json.loads((folder / "exported" / "demo" / f"01-{first}.json").read_text())
    assert made["provenance"]["confirmed"]["perplexity"] == [9.0, None]
    assert made["provenance"]["confirmed"]["probability"] is None


def test_the_readme_of_a_run_whose_baseline_failed(mixed: Mixed, folder: Path) -> None:
    shutil.copytree(mixed.run, folder / "runs" / "mixed")
    (folder / "models.py").write_text((mixed.run.parents[1] / "models.py").read_text())
    shutil.rmtree(folder / "runs" / "mixed" / "trials" / "baseline")
    call("export", "mixed")
    rows = rows_of((folder / "exported" / "mixed" / "README.md").read_text(), "|  | trial |")
    assert all("×" not in cell for row in rows for cell in row)
    assert {row[4] for row in rows} == {"–"}


# --- formats --------------------------------------------------------------------------------------


def test_json_is_the_config_and_trains(finished: Searched, folder: Path) -> None:
    call("export", "demo", "--top", 2, "--format", "json")
    call("export", "demo", "--top", 2, "--out", "as-yaml")
    out = folder / "exported" / "demo"
    paths = sorted(out.glob("*.json"))
    assert len(paths) == len(best(finished.records, 2))
    for path in paths:
        twin = TrialConfig.from_yaml(folder / "as-yaml" / f"{path.stem}.yaml")
        assert TrialConfig.from_yaml(path) == twin
        assert json.loads(path.read_text()) == twin.to_dict()
    told = call("train", paths[0], "--out", "again")
    assert told.count("as exported") == 5


def test_json_with_what_yaml_reads_otherwise(folder: Path) -> None:
    """Exponents without a point, and characters that YAML takes for the end of a line."""
    run = folder / "runs" / "demo"
    [first, _] = first_two(run)
    odd = "a\x85b\u2028c\x7fd \U0001f600 \u00e9 1e-3"
    checkpoint = run / "trials" / first / "checkpoint.safetensors"
    from trainables.checkpoint import read_tensors, write_tensors

    tensors, header = read_tensors(checkpoint)
    header["trial"]["training"]["lr"] = 1e-05
    header["made"]["versions"]["odd"] = odd
    write_tensors(checkpoint, tensors, header)
    call("export", run, "--top", 1, "--format", "json")
    path = folder / "exported" / "demo" / f"01-{first}.json"
    assert "1e-05" in path.read_text()
    config = TrialConfig.from_yaml(path)
    assert config.training.lr == 1e-05
    assert config.provenance is not None
    assert config.provenance["versions"]["odd"] == odd  # type: ignore[index, call-overload]
    assert config.to_dict() == json.loads(path.read_text())


def test_a_program_runs_as_it_is_with_the_trained_codes(folder: Path) -> None:
    call("export", "demo", "--top", 2, "--format", "python", "--out", "out")
    for program in sorted((folder / "out").glob("*.py")):
        weights = load_file(program.with_suffix(".safetensors"))
        alone = program.read_text()
        ended = python(
            f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", folder
        )
        assert ended.code == 0, ended.err
        assert ended.out.splitlines()[0] == "latents [2, 4, 32] to indices [2, 32]"
        assert ended.out.splitlines()[2].startswith("and back [2, ")
        names: dict[str, Any] = {"__file__": str(program), "__name__": "mine"}
        exec(compile(alone, program, "exec"), names)
        trained: VectorQuantizer = names["trained_codebook"]()
        assert torch.equal(trained.codebook, weights["codebook"])
        untrained: VectorQuantizer = names["new_codebook"]()
        assert untrained.config == trained.config
        assert not torch.equal(untrained.codebook, weights["codebook"])
        model = names["trained_model"]()
        assert torch.equal(model.quantizers[0].codebook, weights["codebook"])
        config = TrialConfig.from_yaml(program.with_suffix(".yaml"))
        assert untrained.config == config.codebook
        assert (untrained.settings.samples, untrained.settings.seed) == (320, 5)


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"kind": "hierarchical"}, "codebook": {"kmeans": {}, "update": {"kind": "ema"}}},
        {"codebook": {"residual": {"levels": 2}, "groups": {"count": 2}}},
        {"codebook": {"update": {"kind": "fsq", "levels": [8, 8, 8]}, "commitment": {"beta": 0.0}}},
    ],
)
def test_a_program_of_any_config_compiles(values: dict[str, Any]) -> None:
    config = TrialConfig.from_dict(values)
    program = as_program(config, "01-x.safetensors")
    names: dict[str, Any] = {"__file__": "01-x.py", "__name__": "mine"}
    exec(compile(program, "01-x.py", "exec"), names)
    assert names["new_codebook"]().config == config.codebook
    assert ("seed(latents)" in program) == (config.codebook.kmeans is not None)
    assert max(len(line) for line in program.splitlines()) <= 160


# --- all of it or nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["README.md", "safetensors", "yaml"])
def test_nothing_is_overwritten(there: str, folder: Path) -> None:
    first, second = first_two(folder / "runs" / "demo")
    out = folder / "exported" / "demo"
    out.mkdir(parents=True)
    name = there if there == "README.md" else f"02-{second}.{there}"
    (out / name).write_text("mine")
    assert refused("export", "demo", "--top", 2) == (
        f"exported/demo/{name}: exists; allowed: another --out"
    )
    assert digest(out).keys() == {name}
    assert (out / name).read_text() == "mine"
    (out / name).rename(out / f"{first}.txt")
    call("export", "demo", "--top", 2)  # other files do not matter
    assert (out / f"{first}.txt").read_text() == "mine"


@pytest.mark.parametrize("new", [True, False])
def test_nothing_is_written_where_a_trial_cannot_be_read(new: bool, folder: Path) -> None:
    run = folder / "runs" / "demo"
    (run / "trials" / first_two(run)[1] / "checkpoint.safetensors").write_bytes(b"torn")
    if not new:
        (folder / "exported" / "demo").mkdir(parents=True)
    assert ": not a checkpoint of vqtune: " in refused("export", "demo", "--top", 2)
    left = list((folder / "exported").rglob("*")) if (folder / "exported").exists() else []
    assert left == ([] if new else [folder / "exported" / "demo"])


def test_nothing_is_left_of_an_export_that_is_cut_short(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vqtune.export.readme", full)
    with pytest.raises(AssertionError, match="no space left on the disk"):
        call("export", "demo")
    assert not (folder / "exported" / "demo").exists()


# --- a claim and other seeds ----------------------------------------------------------------------


def claimed(folder: Path, **metrics: float) -> Path:
    """The first config of an export that claims these metrics."""
    call("export", "demo", "--top", 1, "--out", "out")
    [path] = (folder / "out").glob("01-*.yaml")
    values = yaml.safe_load(path.read_text())
    values["provenance"]["metrics"] |= metrics
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def verdicts(told: str) -> dict[str, str]:
    lines = told.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("The exported claim against"))
    return {line.split()[0]: line for line in lines[start + 1 : start + 6]}


def test_a_claim_that_is_not_met_is_said(folder: Path) -> None:
    path = claimed(folder, perplexity=900.0, recon_loss=90.0)
    told = call("train", path, "--seeds", 3, "--out", "again")
    reports = [metrics_of(folder / "again" / f"seed-{seed}") for seed in (6, 7)]
    values = [report["perplexity"] for report in reports]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    lines = verdicts(told)
    assert "The exported claim against the 2 other seeds (not met: worse than claimed by " in told
    assert f"claimed 900        found {mean:.5g} ± {deviation:.2g}" in lines["perplexity"]
    assert lines["perplexity"].endswith(" deviations")
    assert " not met: 9" in lines["perplexity"]
    assert " met: 9" in lines["recon_loss"]
    assert lines["recon_loss"].endswith("% better")
    assert told.splitlines()[-1].startswith("The exported claim is not met in perplexity")


def test_one_other_seed_only_shows_the_difference(folder: Path) -> None:
    path = claimed(folder, perplexity=900.0)
    told = call("train", path, "--seeds", 2, "--out", "again")
    assert "The exported claim against the one other seed:" in told
    assert verdicts(told)["perplexity"].endswith("% worse")
    assert " met" not in told


def test_a_config_by_hand_and_other_data_have_no_claim(folder: Path) -> None:
    path = claimed(folder)
    told = call("train", path, "--seeds", 2, "--samples", 160, "--out", "shorter")
    assert "claim" not in told
    values = yaml.safe_load(path.read_text())
    del values["provenance"]
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    assert "claim" not in call("train", "mine.yaml", "--seeds", 2, "--out", "mine")
