"""Joining a cluster: every reason why it cannot be is one line that comes within seconds."""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient

from tests.vqtune.conftest import TINY, python, vqtune
from tests.vqtune.nodes import started
from trainables.errors import InputError
from vqtune import joining
from vqtune.joining import check_head

JOIN = """
import sys
from vqtune.cluster import ray_cluster
try:
    with ray_cluster(sys.argv[1] if len(sys.argv) > 1 else {address!r}):
        import ray
        print("joined", ray.cluster_resources()["CPU"])
except ValueError as error:
    print(error)
"""


def joined(address: str, home: Path, **environment: str) -> str:
    """What a process of its own prints that joins; an empty variable is as good as none."""
    done = python(JOIN.format(address=address), cwd=home, HOME=str(home), **environment)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    [line] = done.out.strip().splitlines()
    return line


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_the_right_token_is_sent_wherever_it_stands(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert joined(cluster, tmp_path) == "joined 1.0"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    file = tmp_path / "token"
    file.write_text(token)
    assert joined(cluster, tmp_path, RAY_AUTH_TOKEN_PATH=str(file)) == "joined 1.0"
    (tmp_path / ".ray").mkdir()
    file.rename(tmp_path / ".ray" / "auth_token")
    assert joined(cluster, tmp_path, RAY_ADDRESS=cluster) == "joined 1.0"
    assert joined("auto", tmp_path, RAY_ADDRESS=cluster) == "joined 1.0"


@pytest.mark.long
def test_after_a_cluster_of_ones_own_the_right_token_is_sent(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps to the token that it has sent once, here that of a cluster that is gone."""
    program = f"""
import os, ray
from vqtune.cluster import ray_cluster
with ray_cluster(None):
    pass
os.environ["RAY_AUTH_TOKEN"] = {os.environ["RAY_AUTH_TOKEN"]!r}
with ray_cluster({cluster!r}):
    print("joined", ray.cluster_resources()["CPU"])
"""
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    done = python(program, cwd=tmp_path, HOME=str(tmp_path))
    assert (done.code, done.out) == (0, "joined 1.0\n"), done.err


@pytest.mark.usefixtures("no_token")
def test_a_missing_token(cluster: str, tmp_path: Path) -> None:
    line = joined(cluster, tmp_path)
    assert line.startswith(f"--address: the cluster at {cluster} asks for a token, and there is no")
    assert "allowed: the cluster's own in RAY_AUTH_TOKEN, or in a file named by" in line
    line = joined(cluster, tmp_path, RAY_AUTH_MODE="disabled")
    assert "asks for a token, but RAY_AUTH_MODE is 'disabled'; allowed: the cluster's" in line
    line = joined(cluster, tmp_path, RAY_AUTH_MODE="token")
    assert line.startswith("Ray's token: RAY_AUTH_MODE is token, but there is none; allowed: the")


@pytest.mark.usefixtures("no_token")
def test_a_wrong_token(cluster: str, tmp_path: Path) -> None:
    token = secrets.token_hex(32)
    line = joined(cluster, tmp_path, RAY_AUTH_TOKEN=token)
    assert line.startswith(
        f"--address: the cluster at {cluster} refuses the token in RAY_AUTH_TOKEN"
    )
    file = tmp_path / "token"
    file.write_text(token)
    line = joined(cluster, tmp_path, RAY_AUTH_TOKEN_PATH=str(file))
    assert f"refuses the token in RAY_AUTH_TOKEN_PATH ({file}); allowed: the cluster's" in line
    assert token not in line


@pytest.fixture(scope="module")
def open_cluster(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node that lets everybody in."""
    folder = tmp_path_factory.mktemp("open")
    with started("head", 1, cwd=folder, RAY_AUTH_MODE="disabled") as (address, _):
        yield address


@pytest.fixture
def home_with_token(no_token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the token that Ray leaves where it has started a cluster by itself."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_mode_is_the_clusters(
    cluster: str, open_cluster: str, home_with_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that lies here is sent to whom asks for it, and to nobody else."""
    assert check_head(open_cluster) == open_cluster
    assert "RAY_AUTH_MODE" not in os.environ
    with pytest.raises(InputError, match=f"the cluster at {cluster} refuses the token in "):
        check_head(cluster)
    assert "RAY_AUTH_MODE" not in os.environ
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert check_head(open_cluster) == open_cluster
    monkeypatch.setenv("RAY_AUTH_MODE", "Token")
    message = (
        f"^--address: the cluster at {open_cluster} asks for no token, but RAY_AUTH_MODE is "
        "'token', and no trial would begin; allowed: RAY_AUTH_MODE=disabled, or none$"
    )
    with pytest.raises(InputError, match=message):
        check_head(open_cluster)


def test_the_mode_of_a_cluster_that_asks_for_a_token(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert check_head(cluster) == cluster
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.long
def test_trials_begin_on_a_cluster_that_asks_for_no_token(
    open_cluster: str, home_with_token: Path
) -> None:
    """A driver that asks its workers for one is never told that they have begun."""
    (home_with_token / "tiny.yaml").write_text(TINY)
    flags = ("--trials", "2", "--name", "demo", "--address", open_cluster)
    done = vqtune("search", "tiny.yaml", *flags, cwd=home_with_token)
    assert done.code == 0, done.out + done.err
    assert "demo: 2 complete" in done.out


@pytest.mark.usefixtures("no_token")
def test_a_token_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    address = "{}:{}".format(*listener.getsockname())
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH .*absent: cannot be read: No such"):
        check_head(address)
    (tmp_path / "absent").touch()
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH .*absent: holds no token"):
        check_head(address)


def test_other_versions(cluster: str) -> None:
    """The cluster's own record of its versions is what Ray compares, too."""
    client = GcsClient(address=cluster)
    place = (b"CLUSTER_METADATA", b"cluster")
    recorded = client.internal_kv_get(place[0], namespace=place[1])

    def refused(**other: str) -> str:
        changed = json.dumps({**json.loads(recorded), **other}).encode()
        client.internal_kv_put(place[0], changed, True, namespace=place[1])
        with pytest.raises(InputError) as caught:
            check_head(cluster)
        return str(caught.value)

    here = platform.python_version()
    minor = here.rpartition(".")[0]
    try:
        line = refused(ray_version="2.9.3")
        assert f"runs Ray 2.9.3 on Python {here}, this is Ray {ray.__version__} on" in line
        assert line.endswith("allowed: the same versions")
        assert "on Python 3.8.1, this is Ray" in refused(python_version="3.8.1")
        line = refused(python_version=f"{minor}.99")
        assert f"{minor}.99, this is" in line
        assert "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor lets the last part differ" in line
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
            assert check_head(cluster) == cluster
    finally:
        client.internal_kv_put(place[0], recorded, True, namespace=place[1])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        yield server


def test_somebody_else_listens(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_ANSWER", 2.0)
    address = "{}:{}".format(*listener.getsockname())
    with pytest.raises(InputError, match=f"{address} takes connections, but does not answer as a"):
        check_head(address)


def test_packets_that_are_swallowed(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full backlog drops what comes, as a firewall does."""
    monkeypatch.setattr(joining, "_CONNECT", 1.0)
    waiting = [socket.socket() for _ in range(8)]
    try:
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        address = "{}:{}".format(*listener.getsockname())
        with pytest.raises(InputError, match=f"no Ray cluster answers at '{address}' within 1 s"):
            check_head(address)
    finally:
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "127.0.0.1:1",
            "no Ray cluster answers at '127.0.0.1:1': Connection refused; allowed: host:p",
        ),
        ("[::1]:1", "no Ray cluster answers at '.::1.:1': "),
        ("no-such-host.invalid:6379", "no Ray cluster answers at .*: there is no such host; al"),
        ("head", "no Ray cluster answers at 'head': not host:port; allowed: host"),
        ("head:0", "no Ray cluster answers at 'head:0': not host:port; allowed: host"),
        ("head:99999", "no Ray cluster answers at 'head:99999': not host:port; allowed: host"),
        ("", "no Ray cluster answers at '': not host:port; allowed"),
        (
            "ray://head:10001",
            "no Ray cluster answers at 'ray://head:10001': not host:port; allowed: host",
        ),
        (
            "http://head:8265",
            "no Ray cluster answers at 'http://head:8265': not host:port; allowed: host",
        ),
        ("a\nb:1", "no Ray cluster answers at 'a.nb:1': not host:port; allowed"),
    ],
)
def test_an_address_where_nobody_is(address: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^--address: {message}"):
        check_head(address)


def test_auto_where_the_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no Ray cluster answers at .*: Connection refused"):
        check_head("auto")
