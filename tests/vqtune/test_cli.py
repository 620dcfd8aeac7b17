"""The command: exit codes, and one line on stderr for everything that will not do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vqtune.conftest import TINY, VQTUNE, Searched, vqtune
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.cli import main
from vqtune.cluster import ray_cluster, resources
from vqtune.run_folder import LEAST_FREE_BYTES
from vqtune.session import prepare
from vqtune.spaces import available, load_space


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The one line that a command has for bad input."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    line = result.stderr.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["search", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom vqtune.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'optuna', 'wandb', 'pandas', 'numpy', 'rich', 'pydantic'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {command} ")
    assert "--help" in call().output


# --- spaces -------------------------------------------------------------------------------------


def test_spaces_are_listed() -> None:
    listed = call("spaces")
    assert listed.exit_code == 0
    for space in available():
        assert any(line.split()[:1] == [space.name] for line in listed.stdout.splitlines())


def test_a_space_is_shown(folder: Path) -> None:
    shown = call("spaces", "tiny.yaml")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("tiny: Two techniques on a model for tests\n")
    assert "codebook.update[ema].decay" in shown.stdout


def test_drawn_configs_are_configs(folder: Path) -> None:
    drawn = call("spaces", "tiny.yaml", "--draw", "3")
    assert drawn.exit_code == 0
    texts = drawn.stdout.split("---\n")
    assert len(texts) == 3
    for text in texts:
        (folder / "drawn.yaml").write_text(text)
        config = TrialConfig.from_yaml(folder / "drawn.yaml")
        assert config.codebook.size == 16
    assert len(set(texts)) == 3


# --- bad spaces ---------------------------------------------------------------------------------

SPACES = {
    "misspelt at the top": ("parametres: {}", "parametres: found an unknown key"),
    "misspelt block": (
        "parameters: {codebok: {size: 8}}",
        "codebok: found an unknown key; allowed: .*did you mean 'codebook'",
    ),
    "misspelt deep inside": (
        "parameters: {codebook: {update: {choices: {ema: {kind: ema, dekay: 0.9}}}}}",
        r"codebook.update\[ema\].dekay: found an unknown key; allowed: .*did you mean 'decay'",
    ),
    "min above max": (
        "parameters: {codebook: {commitment: {beta: {min: 2.0, max: 1.0}}}}",
        "codebook.commitment.beta.min: found 2.0 with max 1.0; allowed: a min below max",
    ),
    "no values": (
        "parameters: {codebook: {size: {values: []}}}",
        "codebook.size.values: found an empty list; allowed: a list of at least one value",
    ),
    "negative beta": (
        "parameters: {codebook: {commitment: {beta: {values: [1.0, -0.5]}}}}",
        "codebook.commitment.beta: found -0.5; allowed: greater than or equal to 0",
    ),
    "no codes": (
        "parameters: {codebook: {size: 0}}",
        "codebook.size: found 0; allowed: greater than or equal to 1",
    ),
    "growth from more codes than there are": (
        "parameters: {codebook: {size: 32, growth: {start: 64}}}",
        "codebook.growth.start: found 64, allowed at most codebook.size = 32",
    ),
    "not YAML": ("parameters: {codebook: [", "not valid YAML: "),
    "no mapping": ("- 3", "expected a mapping, found list"),
    "a program": ("parameters: !!python/object/apply:os.getcwd []", "not valid YAML: "),
}


@pytest.mark.parametrize("command", ["search", "spaces"])
@pytest.mark.parametrize(("text", "message"), SPACES.values(), ids=SPACES)
def test_a_bad_space_is_refused(text: str, message: str, command: str, folder: Path) -> None:
    (folder / "bad.yaml").write_text(text)
    line = refused(command, "bad.yaml")
    assert line.startswith("bad.yaml")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)
    assert not (folder / "runs").exists()


def test_an_unknown_space_is_refused(folder: Path) -> None:
    line = refused("search", "quickstrat")
    assert line.startswith(
        "space: found 'quickstrat', which is no file; allowed: a file, or one of"
    )
    assert line.endswith("did you mean 'quickstart'?")
    assert not (folder / "runs").exists()


def key_paths(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict):
        for key, inner in values.items():
            yield (*path, key)
            yield from key_paths(inner, (*path, key))


TINY_KEYS = sorted(key_paths(yaml.safe_load(TINY)))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(TINY_KEYS), st.sampled_from("abyz_"), st.data())
def test_a_misspelt_key_is_refused_wherever_it_is(
    path: tuple[str, ...], letter: str, data: st.DataObject
) -> None:
    """The label of a branch is the user's own, all other keys are not."""
    place = data.draw(st.integers(0, len(path[-1])))
    misspelt = path[-1][:place] + letter + path[-1][place:]
    values = yaml.safe_load(TINY)
    block = values
    for key in path[:-1]:
        block = block[key]
    block[misspelt] = block.pop(path[-1])
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "tiny.yaml"
        space.write_text(yaml.safe_dump(values))
        if len(path) > 1 and path[-2] == "choices":
            assert call("spaces", space).exit_code == 0
            return
        line = refused("search", space, "--storage", f"{folder}/runs")
        # Without its kind a branch is of the default kind, which has other keys.
        assert misspelt in line or path[-1] == "kind"
        assert not (Path(folder) / "runs").exists()


# --- bad flags of search ------------------------------------------------------------------------


def make_files(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    (folder / "text" / "notes.txt").write_text("hello")
    (folder / "one.wav").write_bytes(b"RIFF")
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "spec.yaml").write_text("name: taken")
    (folder / "a file").write_text("")


FLAGS: dict[str, tuple[list[str], str]] = {
    "no such data": (["--data", "nowhere"], "nowhere: cannot be read: No such file or directory"),
    "no data in the folder": (["--data", "empty"], "empty: found no data; allowed: a folder of"),
    "other files in the folder": (["--data", "text"], "text: found no data; allowed: a folder of"),
    "a file of the wrong kind": (["--data", "one.wav"], "one.wav: found no data; allowed:"),
    "resume without a name": (["--resume"], "--resume: needs --name, the run to go on with"),
    "resume of nothing": (["--resume", "--name", "no"], "--resume: there is no run 'no' in"),
    "a taken name": (["--name", "taken"], "--name: the run 'taken' exists in"),
    "a name above the storage": (["--name", "../x"], "--name: found '../x'; allowed: up to 100"),
    "an absolute name": (["--name", "/x"], "--name: found '/x'; allowed"),
    "an empty name": (["--name", ""], "--name: found ''; allowed"),
    "a hidden name": (["--name", ".x"], "--name: found '.x'; allowed"),
    "a long name": (["--name", "x" * 101], "--name: found 'xxx"),
    "a name of two lines": (["--name", "a\nb"], r"--name: found 'a\\nb'; allowed"),
    "a file for the storage": (["--storage", "a file"], "--storage: cannot make .*a file"),
    "storage below a file": (["--storage", "a file/runs"], "--storage: cannot make .*a file/runs"),
    "more trials than none": (
        ["--trials", "+3"],
        r"--trials: found \+3; allowed: with --resume, to go on with a run that has fewer",
    ),
    "no such budget": (["--budget", "2e6samples"], "--budget: found '2e6samples'; allowed: KIND="),
    "a budget of nothing": (
        ["--budget", "samples=0"],
        "--budget: found 'samples=0'; allowed: KIND",
    ),
    "a budget twice": (
        ["--budget", "samples=1", "--budget", "samples=2"],
        "--budget: found samples twice; allowed: once",
    ),
    "a warm start from nothing": (
        ["--warm-start", "nothing"],
        "--warm-start: no run 'nothing': looked for",
    ),
    "a warm start from a damaged run": (
        ["--warm-start", "taken"],
        "--warm-start: .*runs/taken/spec.yaml: objectives: found None",
    ),
    "storage that nobody can write to": (
        ["--storage", "nowhere://bucket/runs"],
        "--storage: nowhere://bucket/runs/.*; allowed: a folder, or a URI that pyarrow or an ins",
    ),
    "storage with a key in it": (
        ["--storage", "s3://me:mine@bucket/runs"],
        "--storage: s3://: found a URI with a key in it.*; allowed: one without",
    ),
}


@pytest.mark.parametrize(("flags", "message"), FLAGS.values(), ids=FLAGS)
def test_a_bad_flag_is_refused(flags: list[str], message: str, folder: Path) -> None:
    make_files(folder)
    before = sorted(folder.rglob("*"))
    line = refused("search", "tiny.yaml", *flags)
    with pytest.raises(AssertionError, match=f"^{message}"):
        raise AssertionError(line)
    assert sorted(folder.rglob("*")) == before


def test_a_space_that_searches_nothing_is_refused(folder: Path) -> None:
    assert refused("search", "base").startswith("nothing is searched in", len("space: "))


USAGE: list[list[str]] = [
    ["search"],
    ["search", "tiny.yaml", "--trails", "3"],
    ["search", "tiny.yaml", "--trials", "0"],
    ["search", "tiny.yaml", "--trials", "three"],
    ["search", "tiny.yaml", "--trials", "+0"],
    ["search", "tiny.yaml", "--trials", "+-3"],
    ["search", "tiny.yaml", "--trials", "1.5"],
    ["search", "tiny.yaml", "--budget"],
    ["search", "tiny.yaml", "--samples", "-1"],
    ["search", "tiny.yaml", "--seed", "-1"],
    ["search", "tiny.yaml", "--seed", str(2**31)],
    ["search", "tiny.yaml", "--gpus-per-trial", "-0.5"],
    ["search", "tiny.yaml", "--cpus-per-trial", "many"],
    ["serch"],
    ["front"],
    ["front", "x", "--format", "xml"],
    ["front", "x", "--top", "0"],
    ["export", "x", "--top", "-1"],
    ["train", "x", "--seeds", "0"],
    ["spaces", "--draw", "2"],
    ["spaces", "tiny.yaml", "--draw", "0"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_a_call_that_is_no_call_is_one_line_too(arguments: list[str], folder: Path) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert not (folder / "runs").exists()


def small_disk(mount: Path) -> Callable[[], object] | None:
    """Mount a file system of 8 MiB where that is allowed; returns how to take it away."""
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "vqtune-test", str(mount)]
    with contextlib.suppress(OSError):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return lambda: subprocess.run(["umount", str(mount)], check=True)
    return None


def test_no_space_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmount = small_disk(folder / "disk")
    if unmount is None:
        usage = shutil.disk_usage(folder)._replace(free=LEAST_FREE_BYTES - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    try:
        line = refused("search", "tiny.yaml", "--storage", "disk/runs", "--name", "x")
        assert "--storage: " in line
        assert "MiB free at" in line
        assert line.endswith("a run needs at least 100 MiB")
        assert not (folder / "disk" / "runs" / "x").exists()
    finally:
        if unmount is not None:
            unmount()


def test_a_disk_that_fills_up_is_one_line(finished: Searched, folder: Path) -> None:
    """And no half-written file is left."""
    unmount = small_disk(folder / "disk")
    if unmount is None:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        fill = folder / "disk" / "fill"
        with contextlib.suppress(OSError), fill.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        result = call("export", finished.run, "--out", "disk/out")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: no space left on the disk")
        assert len(result.stderr.splitlines()) == 1
        assert [path for path in (folder / "disk").rglob("*") if path.is_file()] == [fill]
        fill.unlink()
        assert call("export", finished.run, "--out", "disk/out").exit_code == 0
    finally:
        unmount()


# --- what only the cluster can tell ---------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "nowhere", "no.such.host.invalid:6379", "ray://127.0.0.1:1", "127.0.0.1:x"],
)
def test_a_cluster_that_does_not_answer(address: str, folder: Path) -> None:
    line = refused("search", "tiny.yaml", "--name", "x", "--address", address)
    assert line.startswith(f"--address: no Ray cluster answers at '{address}': ")
    assert "allowed: host:port of a running head, or 'auto'" in line
    assert not (folder / "runs" / "x").exists()


def test_nobody_at_the_address_by_a_real_command(folder: Path) -> None:
    """Ray alone would try for a quarter of an hour, and write of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ended = vqtune("search", "tiny.yaml", "--name", "x", "--address", address, cwd=folder)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert not (folder / "runs" / "x").exists()


def test_more_cpus_than_there_are(cluster: str, folder: Path) -> None:
    line = refused("search", "tiny.yaml", "--cpus-per-trial", "99", "--address", cluster)
    assert line.startswith("--cpus-per-trial, --gpus-per-trial: a trial needs 99 CPUs and 0 GPUs")
    assert list((folder / "runs").iterdir()) == []


USERS = """
import numpy as np
from torch import nn


def too_short():
    return {"a": np.zeros((3, 4), np.float32)}


def fails():
    raise RuntimeError("the tape is torn")


def pair(example_shape, dim):
    return nn.Conv1d(example_shape[0], dim, 1), nn.Conv1d(dim, 1, 1)
"""


BLOCKS = {
    "no module of the model": (
        "model: {kind: factory, factory: 'no_such_module:build'}",
        "no module 'no_such_module', neither installed nor in",
    ),
    "no function of the model": (
        "model: {kind: factory, factory: 'users:biuld'}",
        "users:biuld: module 'users' has no 'biuld'",
    ),
    "a model that does not fit": (
        "model: {kind: factory, factory: 'users:pair'}",
        "model.factory users:pair: decoder gives .* allowed: ",
    ),
    "no module of the data": (
        "data: {kind: factory, factory: 'no_such_module:load'}",
        "no module 'no_such_module'",
    ),
    "data that fail": (
        "data: {kind: factory, factory: 'users:fails'}",
        r"users:fails: raised RuntimeError: the tape is torn \(users.py, line 11\)",
    ),
    "data that are too short": (
        "data: {kind: factory, factory: 'users:too_short'}",
        "users:too_short: nothing usable: skipped 1 of 1: 1 shorter than a clip of 32 frames",
    ),
    "data that are torn": (
        "data: {kind: arrays, path: FOLDER/torn}",
        "torn: nothing usable: skipped 1 of 1: 1 ",
    ),
}


@pytest.fixture(scope="module")
def told(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each of the blocks in TINY's place; the cluster is joined once for all."""
    place = tmp_path_factory.mktemp("user")
    (place / "users.py").write_text(USERS)
    (place / "torn").mkdir()
    (place / "torn" / "a.npy").write_bytes(b"\x93NUMPY torn")
    lines = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with ray_cluster(cluster):
            for name, (text, _) in BLOCKS.items():
                values = yaml.safe_load(TINY)
                values["parameters"] |= yaml.safe_load(text.replace("FOLDER", str(place)))
                (place / "space.yaml").write_text(yaml.safe_dump(values))
                with pytest.raises(InputError) as caught:
                    prepare(load_space("space.yaml").baseline(), resources(None, None))
                lines[name] = str(caught.value)
    return lines


@pytest.mark.parametrize("name", BLOCKS)
def test_a_model_or_data_that_will_not_do_is_found_before_the_first_trial(
    name: str, told: dict[str, str]
) -> None:
    assert "\n" not in told[name]
    with pytest.raises(AssertionError, match=BLOCKS[name][1]):
        raise AssertionError(told[name])


def test_a_start_that_fails_on_the_cluster_leaves_no_run_behind(cluster: str, folder: Path) -> None:
    """By the real command: one line, though it was raised in another process."""
    space = TINY.replace("model: {width: 8, depth: 1}", "model: {kind: factory, factory: 'no:no'}")
    (folder / "tiny.yaml").write_text(space)
    ended = vqtune("search", "tiny.yaml", "--name", "x", "--address", cluster, cwd=folder)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("Error: no:no: no module 'no', neither installed nor in ")
    assert len(ended.err.splitlines()) == 1
    assert list((folder / "runs").iterdir()) == []


def test_ctrl_c_before_the_first_trial_leaves_no_run_behind(folder: Path) -> None:
    process = subprocess.Popen(
        [*VQTUNE, "search", "tiny.yaml", "--name", "x"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (folder / "runs" / "x" / ".lock").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "Interrupted"
    assert "Traceback" not in err
    assert not (folder / "runs" / "x").exists()


@pytest.mark.long
def test_a_kill_ends_as_ctrl_c_does_and_a_log_has_each_line_at_once(folder: Path) -> None:
    process = subprocess.Popen(
        [*VQTUNE, "search", "tiny.yaml", "--name", "x", "--trials", "40"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while not (first := process.stdout.readline()).startswith("["):
        assert process.poll() is None
    assert first.startswith("[1/40] ")
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-1].startswith("Interrupted; everything is saved. Go on with: ")


def test_the_name_of_a_search_that_was_killed_before_its_first_trial_is_free(
    folder: Path,
) -> None:
    (folder / "runs" / "x" / "trials").mkdir(parents=True)
    arguments = ["search", "tiny.yaml", "--name", "x"]
    # Free, and so it gets as far as the cluster.
    assert refused(*arguments, "--address", "127.0.0.1:1").startswith("--address: ")
    (folder / "runs" / "x" / "trials" / "baseline").mkdir(parents=True)
    assert refused(*arguments).startswith("--name: the run 'x' exists")


# --- front and export ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["front", "export"])
def test_a_run_that_does_not_exist(command: str, folder: Path) -> None:
    line = refused(command, "nothing")
    assert line.startswith("no run 'nothing': looked for nothing/spec.yaml or runs/nothing/spec")
    assert line.endswith("there are no runs in runs")


@pytest.mark.parametrize("command", ["front", "export"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid YAML"),
        ("[]", "expected a mapping, found list"),
        ("name: x", "objectives: found None"),
        ("objectives: {recon_loss: down}", "objectives: found"),
        ("\0", "not valid YAML"),
    ],
)
def test_a_broken_spec(text: str, message: str, command: str, folder: Path) -> None:
    (folder / "runs" / "x").mkdir(parents=True)
    (folder / "runs" / "x" / "spec.yaml").write_text(text)
    assert refused(command, "x").startswith(f"runs/x/spec.yaml: {message}")
    assert not (folder / "exported").exists()


def test_nothing_to_export_yet(folder: Path) -> None:
    (folder / "runs" / "x").mkdir(parents=True)
    (folder / "runs" / "x" / "spec.yaml").write_text("objectives: {recon_loss: min}")
    assert refused("export", "x") == (
        "runs/x: no trial has reached its full budget, so there is nothing to export"
    )
    shown = call("front", "x")
    assert shown.exit_code == 0
    assert (
        shown.stdout
        == "x: no trials yet\nNo trial has reached its full budget: there is nothing to rank.\n"
    )


def test_exported_files_are_not_overwritten(finished: Searched, folder: Path) -> None:
    assert call("export", finished.run, "--top", 1, "--out", "out").exit_code == 0
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    line = refused("export", finished.run, "--top", 3, "--out", "out")
    assert line.startswith("out/01-")
    assert line.endswith("exists; allowed: another --out")
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "cut", "another file"])
def test_an_export_without_its_checkpoint(damage: str, finished: Searched, folder: Path) -> None:
    shutil.copytree(finished.run, folder / "runs" / "demo")
    for path in (folder / "runs" / "demo").rglob("checkpoint.safetensors"):
        if damage == "missing":
            path.unlink()
        else:
            whole = path.read_bytes()
            path.write_bytes(
                whole[: len(whole) // 2] if damage == "cut" else b"PK\3\4 not a tensor"
            )
    line = refused("export", "demo", "--out", "out")
    assert "checkpoint.safetensors: not a checkpoint of vqtune: " in line


@pytest.mark.parametrize("out", ["a file", "a file/below"])
def test_a_file_in_the_place_of_the_output(out: str, finished: Searched, folder: Path) -> None:
    make_files(folder)
    assert refused("export", finished.run, "--out", out).startswith(f"--out: cannot make {out}: ")


# --- train --------------------------------------------------------------------------------------

CONFIG = """
data: {kind: synthetic, files: 12, seconds: 1.0}
model: {width: 8, depth: 1}
codebook: {size: 16, dim: 4}
training: {samples: 160, reports: 2}
"""
HOSTILE = {
    "missing": (None, "cannot be read: No such file or directory"),
    "empty": ("", "expected a mapping, but the file is empty"),
    "not YAML": ("codebook: {size: 16", "not valid YAML: "),
    "not text": (b"\xff\xfe\x00\x01", "not valid YAML: "),
    "a space": (TINY, "description: unknown key"),
    "misspelt": ("codebook: {siez: 16}", "codebook.siez: unknown key; allowed: size, dim"),
    "another type": ("codebook: {size: '16'}", "codebook.size: found '16'; allowed: a valid int"),
    "not a number": ("training: {lr: .nan}", "training.lr: found nan; allowed: a finite number"),
    "twice": ("seed: 1\nseed: 2", "not valid YAML: key 'seed' appears twice"),
    "a program": ("seed: !!python/object/apply:os.system ['touch owned']", "not valid YAML: "),
    "an object": ("provenance: {a: !!python/name:os.system }", "not valid YAML: "),
    "deep": ("provenance: " + "[" * 5000, "not valid YAML: "),
    "endless": ("provenance: {a: &a [*a]}", ""),
    "laughs": (
        "provenance:\n  a0: &a0 [lol]\n"
        + "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)),
        "",
    ),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_config_that_will_not_do(text: str | bytes | None, message: str, folder: Path) -> None:
    if text is not None:
        (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused("train", "config.yaml")
    with pytest.raises(AssertionError, match=f"^config.yaml(:[0-9]+)?: {message}"):
        raise AssertionError(line)
    assert not (folder / "trained").exists()
    assert not (folder / "owned").exists()


@pytest.mark.parametrize("threads", [10**6, 10**30, -1, 0, "all", True, 2.5])
def test_a_number_of_threads_that_would_crash_is_not_taken(threads: object, folder: Path) -> None:
    config = yaml.safe_load(CONFIG) | {"provenance": {"threads": threads}}
    (folder / "config.yaml").write_text(json.dumps(config))
    assert call("train", "config.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "nowhere: cannot be read"),
        (["--data", "empty"], "empty: found no data"),
        (["--out", "a file"], "--out: cannot make a file: "),
        (["--out", "a file/below"], "--out: cannot make a file/below: "),
        (["--out", "text"], "text: is not empty and holds no checkpoint"),
        (["--out", "torn"], "torn/checkpoint.safetensors: not a checkpoint of vqtune: "),
    ],
)
def test_a_bad_flag_of_train_is_refused(flags: list[str], message: str, folder: Path) -> None:
    make_files(folder)
    (folder / "torn").mkdir()
    (folder / "torn" / "checkpoint.safetensors").write_bytes(b"torn")
    (folder / "config.yaml").write_text(CONFIG)
    assert refused("train", "config.yaml", *flags).startswith(message)


def test_the_training_of_another_config_is_not_gone_on_with(folder: Path) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    assert call("train", "config.yaml", "--out", "out").exit_code == 0
    line = refused("train", "config.yaml", "--samples", "320", "--out", "out")
    assert line == "out/checkpoint.safetensors: was written by another config"
