"""What is trusted and what is not: code, keys, and who may connect."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import analysis
import search_spaces
import trainables
import vqtune
from analysis import run_yaml
from tests.vqtune import malformed
from tests.vqtune.conftest import TINY, Searched
from tests.vqtune.listening import listening
from trainables import yaml_file
from vqtune.cli import main

pytestmark = pytest.mark.cluster  # of its own

COMMAND = Path(sys.executable).with_name("vqtune")
SHADOWS = ("torch", "numpy", "pandas", "yaml", "json", "random", "queue", "sitecustomize")
EVIL = """
from pathlib import Path

Path(__file__).with_name("owned").touch()


def build(*arguments, **more):
    raise ValueError("was called")
"""

SECRETS = {
    "WANDB_API_KEY": "0123456789" * 3 + "wandbsecret",  # as long as a key has to be
    "RAY_AUTH_TOKEN": "ray-secret-" * 4,
    "AWS_ACCESS_KEY_ID": "aws-id-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-key-secret",
    "AWS_SESSION_TOKEN": "aws-session-secret",
    "MY_PASSWORD": "nobody-knows-me",
}


@dataclass(frozen=True)
class Secretive:
    """A search with its report, and an export, in an environment full of secrets.

    `folder` is all they could write into, Ray's logs and the home among it; modules are in it that
    are called as the library's.
    """

    folder: Path
    printed: str
    heard: set[tuple[str, IPv4Address | IPv6Address]]


@pytest.fixture(scope="session")
def secretive(own_environment: None) -> Iterator[Secretive]:
    # Paths of Ray's sockets may have a hundred characters, those of pytest's folders have more.
    with tempfile.TemporaryDirectory(prefix="vq-") as name:
        folder = Path(name)
        for module in SHADOWS:
            (folder / f"{module}.py").write_text(EVIL)
        token = folder / "home" / ".ray" / "auth_token"  # as Ray leaves it
        token.parent.mkdir(parents=True)
        token.write_text("0" * 64)
        token.chmod(0o644)
        (folder / "tiny.yaml").write_text(TINY.replace("trials: 5", "trials: 2"))
        places = {"HOME": "home", "RAY_TMPDIR": "ray", "VQTUNE_CACHE": "cache", "TMPDIR": "tmp"}
        for place in places.values():
            (folder / place).mkdir(exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k not in ("WANDB_SERVICE", "NETRC")}
        environment = inherited | {k: str(folder / v) for k, v in places.items()} | SECRETS
        commands = (
            ["search", "tiny.yaml", "--name", "a", "--wandb", "p", "--storage", "runs"],
            ["export", "runs/a", "--top", "1"],
        )
        printed, heard = "", set()
        for command in commands:
            with subprocess.Popen(
                [COMMAND, *command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                while process.poll() is None:
                    heard |= listening(process.pid)
                    time.sleep(0.1)
                assert process.stdout is not None
                printed += process.stdout.read()
            assert process.returncode == 0, printed
        yield Secretive(folder, printed, heard)


def test_a_search_of_ones_own_listens_on_loopback_alone(secretive: Secretive) -> None:
    names = {name for name, _ in secretive.heard}
    assert {"gcs_server", "raylet"} <= names  # it was looked at
    assert any(name.startswith("ray::") for name in names)  # workers, too
    assert not {(name, str(ip)) for name, ip in secretive.heard if not ip.is_loopback}


def test_rays_token_is_the_users_alone(secretive: Secretive) -> None:
    assert (secretive.folder / "home/.ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_the_current_folder_hides_no_library(secretive: Secretive) -> None:
    assert not (secretive.folder / "owned").exists()


def test_secrets_are_in_no_file_and_in_no_line(secretive: Secretive) -> None:
    assert not [name for name, secret in SECRETS.items() if secret in secretive.printed]
    files = [path for path in secretive.folder.rglob("*") if path.is_file()]
    kinds = {path.relative_to(secretive.folder).parts[0] for path in files}
    assert {"runs", "exported", "ray", "home"} <= kinds
    assert any(path.suffix == ".wandb" for path in files)
    found = {
        (name, str(path.relative_to(secretive.folder)))
        for path in files
        for content in [path.read_bytes()]
        for name, secret in SECRETS.items()
        if secret.encode() in content
    }
    assert not found


@pytest.mark.parametrize(
    "flags",
    [
        ["--storage", "s3://key:hunter2@bucket/runs"],
        ["--storage", "https://:hunter2@host/runs"],
        ["--address", "ray://me:hunter2@host:10001"],
        ["--address", "me:hunter2@host:6379"],
    ],
    ids=" ".join,
)
def test_a_password_in_an_address_is_refused_and_not_repeated(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    result = call("search", "tiny.yaml", "--name", "a", *flags)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "hunter2" not in result.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.name != "runs"] == ["tiny.yaml"]


# --- code -----------------------------------------------------------------------------------------

PACKAGES: tuple[ModuleType, ...] = (vqtune, trainables, analysis, search_spaces)
# Modules and functions that turn a file or a text into code.
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.load_all", "yaml.load"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "np.load", "numpy.load", "pd.read_pickle"),
    *("importlib.import_module", "subprocess.run", "subprocess.Popen", "subprocess.call"),
}
# What is meant, and why.
MEANT = {
    ("trainables/factory.py", "importlib.import_module"): "the user's own code, by its name",
    ("vqtune/joining.py", "subprocess.run"): "our own head_probe.py, without a shell",
    ("trainables/yaml_file.py", "yaml.load"): "with a SafeLoader",
    ("analysis/run_yaml.py", "yaml.load"): "with a SafeLoader",
    ("trainables/data/arrays.py", "np.load"): "with allow_pickle=False",
    ("trainables/data/dataset.py", "np.load"): "the user's own cache, with pickles off by default",
}


def called(node: ast.expr) -> str:
    """A dotted name, or nothing."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_nothing_turns_a_file_into_code() -> None:
    found = set()
    for package in PACKAGES:
        folder = Path(next(iter(package.__path__)))
        for path in folder.rglob("*.py"):
            place = str(path.relative_to(folder.parent))
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [alias.name for alias in node.names]
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
                    found |= {(place, n) for n in names if n.split(".")[0] in UNSAFE_MODULES}
                elif isinstance(node, ast.Call):
                    found |= {(place, n) for n in {called(node.func)} & UNSAFE_CALLS}
                    given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                    assert given.get("shell") in (None, False), place
                    assert given.get("allow_pickle") in (None, False), place
    assert found == MEANT.keys()


@pytest.mark.parametrize("loader", [yaml_file._Loader, run_yaml._Loader])
def test_yaml_makes_plain_values_alone(loader: type[yaml.SafeLoader], tmp_path: Path) -> None:
    assert issubclass(loader, yaml.SafeLoader)
    assert not [tag for tag in loader.yaml_constructors if tag and "python" in tag]
    assert not loader.yaml_multi_constructors
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.load(malformed.tagged(tmp_path / "owned"), Loader=loader)
    assert not [*tmp_path.iterdir()]


# --- a run by another hand ------------------------------------------------------------------------


@pytest.fixture
def foreign(finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that brings a module with it, and names it wherever a module can be named."""
    run = Path(shutil.copytree(finished.run, tmp_path / "foreign"))
    (run / "evil.py").write_text(EVIL)
    for name in SHADOWS:
        (run / f"{name}.py").write_text(EVIL)
    factory = {"kind": "factory", "factory": "evil:build"}
    for path in run.glob("trials/*/params.json"):
        params = json.loads(path.read_text())
        params["trial"]["model"] = factory
        path.write_text(json.dumps(params))
        checkpoint = path.with_name("checkpoint.safetensors")
        header, data = malformed.tensors_of(checkpoint)
        values = json.loads(header["__metadata__"]["vqtune"])
        values["trial"]["model"] = factory
        header["__metadata__"]["vqtune"] = json.dumps(values)
        checkpoint.write_bytes(malformed.safetensors(header, data))
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    spec["space"]["parameters"]["model"] = factory
    (run / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    monkeypatch.chdir(run)  # where its modules would be found
    return run


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


READING = (
    *(["front", "."], ["records", "."], ["report", "."], ["export", ".", "--out", "x"]),
    *(["export", ".", "--out", "x", "--format", form] for form in ("json", "python")),
    ["export", ".", "--format", "vector-quantize-pytorch"],
)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_what_reads_a_run_imports_nothing_from_it(foreign: Path, command: list[str]) -> None:
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert not (foreign / "owned").exists()


def test_nor_does_a_process_that_is_started_in_it(foreign: Path) -> None:
    done = subprocess.run([COMMAND, "front", "."], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (foreign / "owned").exists()


def test_a_warm_start_imports_nothing(foreign: Path, tmp_path: Path) -> None:
    (foreign / "tiny.yaml").write_text(TINY.replace("beta: {", "beta: {x"))
    assert call("search", "tiny.yaml", "--warm-start", ".").exit_code == 2
    assert not (foreign / "owned").exists()


def test_a_report_says_how_to_see_what_it_does_not_run(foreign: Path) -> None:
    assert call("report", ".").exit_code == 0
    page = (foreign / "report.html").read_text()
    assert "needs evil:build, code that is not run unasked; allowed: with --trust" in page


def test_a_report_imports_what_the_user_trusts(foreign: Path) -> None:
    assert call("report", ".", "--trust").exit_code == 0
    assert (foreign / "owned").exists()


def test_trust_is_in_what_the_space_names(foreign: Path) -> None:
    spec = yaml.safe_load((foreign / "spec.yaml").read_text())
    spec["space"]["parameters"]["model"]["factory"] = "another:build"
    (foreign / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert call("report", ".", "--trust").exit_code == 0
    assert not (foreign / "owned").exists()


def test_a_program_is_no_place_for_a_name(finished: Searched, tmp_path: Path) -> None:
    name = 'x""";open("owned","w");"""\\'
    run = Path(shutil.copytree(finished.run, tmp_path / name))
    assert (
        call("export", str(run), "--format", "python", "--out", str(tmp_path / "x")).exit_code == 0
    )
    for program in (tmp_path / "x").glob("*.py"):
        tree: Any = ast.parse(program.read_text())
        assert not [
            node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "open"
        ]
