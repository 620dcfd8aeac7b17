"""Every command, given what a mistake, a crash or an enemy may leave in the place of its input.

Each is refused in one line, before anything is executed, written elsewhere, or started; a damaged
trial of a run is told of and left out.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import yaml
from click.testing import CliRunner, Result

from tests.vqtune import malformed
from tests.vqtune.conftest import TINY, Searched, vqtune
from tests.vqtune.malformed import NO_FILES, NO_TEXTS
from trainables.config import TrialConfig
from vqtune.cli import main

# A machine under load takes its time; alone, it takes a second or two at most.
SECONDS = 90
LONGEST_LINE = 2100

# By the name of the file that each reads.
CONFIG = {"train": ["train", "it.json"], "ablate": ["ablate", "it.json", "--name", "n"]}
SPACE = {"spaces": ["spaces", "it.json"], "search": ["search", "it.json", "--name", "n"]}
RUN = {
    "front": ["front", "demo"],
    "front as JSON": ["front", "demo", "--format", "json"],
    "records": ["records", "demo"],
    "report": ["report", "demo"],
    "export": ["export", "demo"],
    "confirm": ["confirm", "demo"],
    "resume": ["search", "tiny.yaml", "--name", "demo", "--seed", "5", "--resume"],
    "warm start": ["search", "tiny.yaml", "--name", "n", "--warm-start", "demo"],
}


@dataclass(frozen=True)
class Place:
    """The user's current folder, with a run in it; beside it what nobody may touch."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "demo"

    @property
    def trial(self) -> Path:
        return self.run / "trials" / "t0002"

    @property
    def marker(self) -> Path:
        """What only executed code makes."""
        return self.folder.parent / "owned"

    @property
    def victim(self) -> Path:
        return self.folder.parent / "victim"


@pytest.fixture
def place(finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path / "here")
    shutil.copytree(finished.run, place.run)
    (place.folder / "tiny.yaml").write_text(TINY)
    place.victim.mkdir()
    (place.victim / "file").write_text("precious")
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(ray, "init", _no_cluster)
    yield place
    assert {path.name for path in tmp_path.iterdir()} == {"here", "victim"}
    assert [path.name for path in place.victim.iterdir()] == ["file"]
    assert (place.victim / "file").read_text() == "precious"


class Started(Exception):  # noqa: N818 - no error
    """A command has found nothing wrong before it would have started a cluster."""


def _no_cluster(*_: Any, **__: Any) -> None:
    raise Started


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Nothing hangs, and nothing takes the memory that it is told to."""

    def late(*_: Any) -> None:
        raise AssertionError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 2**20  # KiB


def call(arguments: list[str]) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(arguments: list[str]) -> str:
    """The one line of a command that does nothing else."""
    result = call(arguments)
    if not isinstance(result.exception, SystemExit):
        raise AssertionError(result.output) from result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr.removesuffix("\n")
    assert line.startswith("Error: ")
    assert line.isprintable(), line
    assert len(line) < LONGEST_LINE
    return line


def done_or_refused(arguments: list[str]) -> Result:
    """What a command says that may well do without the damaged part."""
    result = call(arguments)
    if isinstance(result.exception, Started):
        return result
    if result.exit_code == 0:
        printed = result.stdout.replace("\n", "") + result.stderr.replace("\n", "")
        assert printed.isprintable(), printed
        return result
    refused(arguments)
    return result


def rng_of(*words: object) -> random.Random:
    return random.Random(" ".join(map(str, words)))


def cases(*tables: Any, quick: int = 5) -> Any:
    """All pairs of keys, of tables and numbers of repetitions; one in `quick` is no long test."""
    keys = [[*range(t)] if isinstance(t, int) else [*t] for t in tables]
    pairs = [
        pytest.param(a, b, marks=[pytest.mark.long] * ((i + j) % quick > 0))
        for i, a in enumerate(keys[0])
        for j, b in enumerate(keys[1])
    ]
    return pytest.mark.parametrize(("first", "second"), pairs)


# --- the file of a config or a space --------------------------------------------------------------


def sound(command: str) -> Any:
    """What the command's input is before it is damaged."""
    if command in CONFIG:
        return TrialConfig().to_dict()
    return yaml.safe_load(TINY)


@cases({**CONFIG, **SPACE}, {**NO_FILES, **NO_TEXTS}, quick=3)
def test_configs_and_spaces_that_are_none(place: Place, first: str, second: str) -> None:
    path = place.folder / "it.json"
    path.write_text("seed: 0\n")
    {**NO_FILES, **NO_TEXTS}[second](path)
    refused({**CONFIG, **SPACE}[first])


@cases({**CONFIG, **SPACE}, 6)
def test_truncated_configs_and_spaces(place: Place, first: str, second: int) -> None:
    path = place.folder / "it.json"
    path.write_text(malformed.as_json(sound(first)))
    malformed.truncated(rng_of(first, second))(path)
    assert "it.json" in refused({**CONFIG, **SPACE}[first])


@cases({**CONFIG, **SPACE}, 20)
def test_wrong_types_in_configs_and_spaces(place: Place, first: str, second: int) -> None:
    rng, values = rng_of(first, second), sound(first)
    # Any text is a description.
    where = rng.choice([place for place in malformed.places(values) if place != ("description",)])
    malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
    (place.folder / "it.json").write_text(malformed.as_json(values))
    refused({**CONFIG, **SPACE}[first])


def test_a_description_does_nothing_to_the_terminal(place: Place) -> None:
    values = sound("spaces") | {"description": "a\x1b]0;owned\x07b\u202ec"}
    (place.folder / "it.json").write_text(malformed.as_json(values))
    result = call(SPACE["spaces"])
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0,
        "it: a\ufffd]0;owned\ufffdb\ufffdc",
    )


@pytest.mark.parametrize("command", {**CONFIG, **SPACE})
def test_yaml_executes_nothing(place: Place, command: str) -> None:
    (place.folder / "it.json").write_text(malformed.tagged(place.marker))
    refused({**CONFIG, **SPACE}[command])


# --- the spec of a run ----------------------------------------------------------------------------


@cases(RUN, {**NO_FILES, **NO_TEXTS}, quick=8)
def test_specs_that_are_none(place: Place, first: str, second: str) -> None:
    {**NO_FILES, **NO_TEXTS}[second](place.run / "spec.yaml")
    refused(RUN[first])


@cases(RUN, 4)
def test_truncated_specs(place: Place, first: str, second: int) -> None:
    path = place.run / "spec.yaml"
    path.write_text(malformed.as_json(yaml.safe_load(path.read_text())))
    malformed.truncated(rng_of(first, second))(path)
    refused(RUN[first])


@cases(RUN, 20, quick=16)
def test_wrong_types_in_specs(place: Place, first: str, second: int) -> None:
    path = place.run / "spec.yaml"
    rng, values = rng_of(first, second), yaml.safe_load(path.read_text())
    where = rng.choice([*malformed.places(values)])
    malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
    path.write_text(malformed.as_json(values))
    done_or_refused(RUN[first])


@pytest.mark.parametrize("command", RUN)
def test_specs_execute_nothing(place: Place, command: str) -> None:
    (place.run / "spec.yaml").write_text(malformed.tagged(place.marker))
    refused(RUN[command])


# --- the trials of a run --------------------------------------------------------------------------

# Those that do not go on with a trial.
READING = {name: RUN[name] for name in ("front as JSON", "records", "report", "export")}
RECORDS = ("params.json", "result.json", "error.txt")


def read_and_told(arguments: list[str]) -> Result:
    """What a command says that leaves a damaged trial out."""
    result = call(arguments)
    if result.exit_code == 2:
        refused(arguments)
        return result
    if result.exception is not None:
        raise AssertionError(result.output) from result.exception
    printed = result.stdout.replace("\n", "") + result.stderr.replace("\n", "")
    assert printed.isprintable(), printed
    return result


@cases(RECORDS, {**NO_FILES, **NO_TEXTS}, quick=4)
def test_records_that_are_none(place: Place, first: str, second: str) -> None:
    {**NO_FILES, **NO_TEXTS}[second](place.trial / first)
    result = read_and_told(RUN["front"])
    if first == "params.json" and result.exit_code == 0:
        assert "Note: t0002/params.json: " in result.stdout


@cases(READING, 20, quick=20)
def test_wrong_types_in_params(place: Place, first: str, second: int) -> None:
    path = place.trial / "params.json"
    rng, values = rng_of(first, second), json.loads(path.read_text())
    where = rng.choice([*malformed.places(values)])
    malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
    path.write_text(json.dumps(values))
    read_and_told(READING[first])


@cases(READING, 20, quick=20)
def test_wrong_types_in_reports(place: Place, first: str, second: int) -> None:
    path = place.trial / "result.json"
    rng, lines = rng_of(first, second), [*map(json.loads, path.read_text().splitlines())]
    for values in lines:
        where = rng.choice([*malformed.places(values)])
        malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
    path.write_text("".join(json.dumps(values) + "\n" for values in lines))
    read_and_told(READING[first])


@cases({**READING, "resume": RUN["resume"], "confirm": RUN["confirm"]}, 4)
def test_trials_of_names_that_lead_elsewhere(place: Place, first: str, second: int) -> None:
    for path in place.run.glob("trials/*/params.json"):
        values = json.loads(path.read_text())
        values["trial_id"] = HOSTILE_NAMES[second * len(HOSTILE_NAMES) // 4]
        path.write_text(json.dumps(values))
    done_or_refused(RUN[first])


# --- checkpoints ----------------------------------------------------------------------------------

CHECKPOINT = "checkpoint.safetensors"


def safetensors_cases(place: Place) -> dict[str, bytes]:
    """Files that are called safetensors."""
    header, data = malformed.tensors_of(place.trial / CHECKPOINT)
    made = malformed.safetensors
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "pickle": malformed.pickled(place.marker),
        "torch file": malformed.torch_file(place.marker),
        "nothing": b"",
        "half a length": b"\1\0\0",
        "length of all": made(b"{}", length=2**64 - 1),
        "length of a gigabyte": made(b"{}", length=2**30),
        "no JSON": made(b"{" * 1000),
        "deep JSON": made(b'{"a":' * 100_000),
        "list": made([]),
        "no tensors": made({}),
        "tensor of a terabyte": made({"a": tensor | {"shape": [2**38]}}, bytes(8)),
        "shape beyond all": made({"a": tensor | {"shape": [2**63, 2**63]}}, bytes(8)),
        "shape below none": made({"a": tensor | {"shape": [-2]}}, bytes(8)),
        "offsets of a terabyte": made({"a": tensor | {"data_offsets": [0, 2**40]}}, bytes(8)),
        "offsets back": made({"a": tensor | {"data_offsets": [8, 0]}}, bytes(8)),
        "offsets that overlap": made({"a": tensor, "b": tensor}, bytes(8)),
        "unknown type": made({"a": tensor | {"dtype": "OBJ"}}, bytes(8)),
        "weights of another": made({"a": tensor}, bytes(8)),
        "metadata of numbers": made({"__metadata__": {"vqtune": 1}, "a": tensor}, bytes(8)),
        "metadata of no JSON": made({"__metadata__": {"vqtune": "{"}, "a": tensor}, bytes(8)),
        "metadata of a list": made({"__metadata__": {"vqtune": "[1]"}, "a": tensor}, bytes(8)),
        "metadata of nothing": made({"__metadata__": {"vqtune": "{}"}, "a": tensor}, bytes(8)),
        "deep metadata": made({"__metadata__": {"vqtune": "[" * 100_000}, "a": tensor}, bytes(8)),
        "no tensors of its own": made({"__metadata__": header["__metadata__"]}),
        "half of itself": (place.trial / CHECKPOINT).read_bytes()[:-100],
        "a bit more": (place.trial / CHECKPOINT).read_bytes() + b"x",
        "flipped": made(header, bytes([data[0] ^ 1]) + data[1:]),
    }


NO_CHECKPOINTS = (
    *("pickle", "torch file", "nothing", "half a length", "length of all", "length of a gigabyte"),
    *("no JSON", "deep JSON", "list", "no tensors", "tensor of a terabyte", "shape beyond all"),
    *("shape below none", "offsets of a terabyte", "offsets back", "offsets that overlap"),
    *("unknown type", "weights of another", "metadata of numbers", "metadata of no JSON"),
    *("metadata of a list", "metadata of nothing", "deep metadata", "no tensors of its own"),
    *("half of itself", "a bit more", "flipped"),
)


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_checkpoints_that_are_none(place: Place, kind: str) -> None:
    content = safetensors_cases(place)[kind]
    for path in place.run.glob(f"trials/*/{CHECKPOINT}"):
        path.write_bytes(content)
    assert CHECKPOINT in refused(RUN["export"])
    assert not (place.folder / "exported").exists()


@pytest.mark.parametrize("damage", NO_FILES)
def test_checkpoints_that_are_no_files(place: Place, damage: str) -> None:
    for path in place.run.glob(f"trials/*/{CHECKPOINT}"):
        NO_FILES[damage](path)
    assert CHECKPOINT in refused(RUN["export"])


@pytest.mark.parametrize("kind", ["pickle", "flipped", "no tensors of its own"])
def test_a_report_does_without_damaged_checkpoints(place: Place, kind: str) -> None:
    content = safetensors_cases(place)[kind]
    for path in place.run.glob(f"trials/*/{CHECKPOINT}"):
        path.write_bytes(content)
    assert call(RUN["report"]).exit_code == 0
    assert CHECKPOINT in (place.run / "report.html").read_text()


@cases(40, 1, quick=10)
def test_wrong_types_in_checkpoints(place: Place, first: int, second: int) -> None:
    rng = rng_of(first, second)
    for path in place.run.glob(f"trials/*/{CHECKPOINT}"):
        header, data = malformed.tensors_of(path)
        values = json.loads(header["__metadata__"]["vqtune"])
        where = rng.choice([*malformed.places(values)])
        malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
        header["__metadata__"] = {"vqtune": json.dumps(values)}
        path.write_bytes(malformed.safetensors(header, data))
    command = ["export", "demo", "--format", rng.choice(["yaml", "json", "python"])]
    done_or_refused(command)
    assert call(RUN["report"]).exit_code == 0


@pytest.mark.parametrize("kind", ["pickle", "tensor of a terabyte", "no tensors of its own"])
def test_a_training_does_not_go_on_from_a_damaged_checkpoint(place: Place, kind: str) -> None:
    out = place.folder / "trained" / "it"
    out.mkdir(parents=True)
    (out / CHECKPOINT).write_bytes(safetensors_cases(place)[kind])
    header, _ = malformed.tensors_of(place.trial / CHECKPOINT)
    config = json.loads(header["__metadata__"]["vqtune"])["trial"]
    (place.folder / "it.json").write_text(malformed.as_json(config))
    assert CHECKPOINT in refused(CONFIG["train"])


# --- links ----------------------------------------------------------------------------------------

LINKS = (
    *("spec.yaml", "trials", "trials/t0009", "trials/t0002/params.json", "report.html"),
    *(f"trials/t0002/{CHECKPOINT}", "trials/t0002/result.json", "report", "confirm", "wandb"),
    *(".lock", "optuna.journal", "report.html.part", "wandb.json", "spec.yaml.part"),
)


@cases(RUN, LINKS)
def test_links_that_lead_out_of_the_run(place: Place, first: str, second: str) -> None:
    path = place.run / second
    target = place.victim if not path.suffix and second != ".lock" else place.victim / "file"
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    line = refused(RUN[first])
    assert "link" in line or second == "spec.yaml"


# --- names ----------------------------------------------------------------------------------------

HOSTILE_NAMES = (
    *(
        "../x",
        "/etc/x",
        "..",
        ".",
        "a/b",
        "a\\b",
        "-rf",
        "a\nb",
        "",
        " ",
        "x" * 300,
        "~root",
    ),
    *("a\x1b[2Jb", "\x9b31m", "\u202egnp.exe", "a\u200bb", "\udcff", "%s%n", "$(touch owned)", "é"),
)


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_names_that_no_run_can_have(place: Place, name: str) -> None:
    (place.folder / "it.yaml").write_text(TrialConfig().to_yaml())
    refused(["search", "tiny.yaml", "--name", name])
    refused(["search", "tiny.yaml", "--resume", "--name", name])
    refused(["ablate", "it.yaml", "--name", name])


@cases(
    ("front", "records", "report", "export", "confirm", "train", "spaces"),
    [name for name in HOSTILE_NAMES if name.strip(" .")],
)
def test_names_of_nothing(place: Place, first: str, second: str) -> None:
    refused([first, second])


# --- what else may be in a run --------------------------------------------------------------------


@cases(("resume", "warm start"), {**NO_FILES, **NO_TEXTS}, quick=4)
def test_journals_that_are_none(place: Place, first: str, second: str) -> None:
    {**NO_FILES, **NO_TEXTS}[second](place.run / "optuna.journal")
    if second == "empty":
        done_or_refused(RUN[first])  # a journal that nothing was written to
    else:
        refused(RUN[first])


@cases(("resume", "warm start"), 30, quick=10)
def test_wrong_types_in_journals(place: Place, first: str, second: int) -> None:
    path = place.run / "optuna.journal"
    rng, lines = rng_of(first, second), [*map(json.loads, path.read_text().splitlines())]
    values = rng.choice(lines)
    where = rng.choice([*malformed.places(values)])
    malformed.put(values, where, malformed.strange(rng, malformed.at(values, where)))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done_or_refused(RUN[first])


@cases(("report", "export", "confirm"), {**NO_FILES, **NO_TEXTS}, quick=16)
def test_confirmations_that_are_none(place: Place, first: str, second: str) -> None:
    (place.run / "confirm").mkdir()
    {**NO_FILES, **NO_TEXTS}[second](place.run / "confirm" / "spec.yaml")
    done_or_refused(RUN[first])


@cases(NO_TEXTS, 1, quick=16)
def test_addresses_that_are_none(place: Place, first: str, second: int) -> None:
    NO_TEXTS[first](place.run / "wandb.json")
    assert call(RUN["report"]).exit_code == 0


# --- data -----------------------------------------------------------------------------------------


def data_cases(folder: Path, marker: Path) -> dict[str, Callable[[], Any]]:
    """Data that is none, made in a folder."""
    objects = np.array([malformed.Bomb(marker)], dtype=object)
    return {
        "pickle called npy": lambda: (folder / "a.npy").write_bytes(malformed.pickled(marker)),
        "pickle called npz": lambda: (folder / "a.npz").write_bytes(malformed.pickled(marker)),
        "pickle": lambda: (folder / "a.safetensors").write_bytes(malformed.pickled(marker)),
        "pickle called wav": lambda: (folder / "a.wav").write_bytes(malformed.pickled(marker)),
        "pickle called png": lambda: (folder / "a.png").write_bytes(malformed.pickled(marker)),
        "torch file": lambda: (folder / "a.safetensors").write_bytes(malformed.torch_file(marker)),
        "objects": lambda: np.save(folder / "a.npy", objects),
        "objects in npz": lambda: np.savez(folder / "a.npz", a=objects),
        "array of a terabyte": lambda: (folder / "a.npy").write_bytes(malformed.npy((2**38, 4))),
        "fifo": lambda: os.mkfifo(folder / "a.npy"),
        "endless device": lambda: (folder / "a.npy").symlink_to("/dev/zero"),
        "nothing": lambda: None,
    }


DATA = (
    *("pickle called npy", "pickle called npz", "pickle", "pickle called wav", "pickle called png"),
    *("torch file", "objects", "objects in npz", "array of a terabyte", "fifo", "endless device"),
    "nothing",
)


@pytest.mark.parametrize("kind", DATA)
def test_data_that_is_none(place: Place, kind: str) -> None:
    folder = place.folder / "data"
    folder.mkdir()
    data_cases(folder, place.marker)[kind]()
    (place.folder / "it.json").write_text(malformed.as_json(TrialConfig().to_dict()))
    refused([*CONFIG["train"], "--data", "data"])
    files = [*folder.iterdir()]
    if files:
        refused([*CONFIG["train"], "--data", str(files[0])])


@pytest.mark.parametrize("damage", ["fifo", "endless device", "null device", "socket", "gone"])
def test_places_that_are_no_folders(place: Place, damage: str) -> None:
    (place.folder / "it.json").write_text(malformed.as_json(TrialConfig().to_dict()))
    NO_FILES[damage](place.folder / "there")
    refused([*CONFIG["train"], "--data", "there"])
    if damage != "gone":
        refused([*CONFIG["train"], "--out", "there"])
        refused([*RUN["export"], "--out", "there"])
        refused([*SPACE["search"][:1], "tiny.yaml", "--storage", "there"])
        refused([*RUN["records"], "--out", "there"])


# --- real processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["spaces", "front"])
def test_a_real_process_answers_in_one_line_too(place: Place, command: str) -> None:
    os.mkfifo(place.folder / "it.json")
    (place.run / "trials" / "t0009").symlink_to("/etc")
    done = vqtune(*{**SPACE, **RUN}[command], cwd=place.folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: ") and done.err.count("\n") == 1
