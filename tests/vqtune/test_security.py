"""What is trusted and what is not: code, keys, and who may connect."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.vqtune.conftest import TINY, VQTUNE
from tests.vqtune.listening import listening

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

    `folder` is all they could write into, Ray's logs and the home among it.
    """

    folder: Path
    printed: str
    heard: set[tuple[str, IPv4Address | IPv6Address]]


@pytest.fixture(scope="session")
def secretive(own_environment: None) -> Iterator[Secretive]:
    # Paths of Ray's sockets may have a hundred characters, those of pytest's folders have more.
    with tempfile.TemporaryDirectory(prefix="vq-") as name:
        folder = Path(name)
        (folder / "tiny.yaml").write_text(TINY.replace("trials: 5", "trials: 2"))
        places = {"HOME": "home", "RAY_TMPDIR": "ray", "VQTUNE_CACHE": "cache", "TMPDIR": "tmp"}
        for place in places.values():
            (folder / place).mkdir()
        inherited = {k: v for k, v in os.environ.items() if k not in ("WANDB_SERVICE", "NETRC")}
        environment = inherited | {k: str(folder / v) for k, v in places.items()} | SECRETS
        commands = (
            ["search", "tiny.yaml", "--name", "a", "--wandb", "p", "--storage", "runs"],
            ["export", "runs/a", "--top", "1"],
        )
        printed, heard = "", set()
        for command in commands:
            with subprocess.Popen(
                [*VQTUNE, *command],
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
