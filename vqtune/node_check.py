"""Before the first trial on a joined cluster: does every node see the data and the run's folder.

A node that does not would fail each trial that it gets, one after another, for as long as the
search runs.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.remote import Remote, is_uri

# Seconds for all nodes to answer, and for what one machine writes to be seen on another: a
# network's file system may keep what it knew of a folder for some of them.
_ANSWER = 120.0
_SEEN = 10.0
_SHOWN = 3


class Files(NamedTuple):
    """What a machine sees at a path: names and sizes, not contents; or why it sees nothing."""

    number: int = 0
    size: int = 0
    digest: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Answer:
    """What a node says of the data and of the storage."""

    files: dict[str, Files]
    storage: str


def check_nodes(
    nodes: Mapping[str, str],
    configs: Iterable[TrialConfig],
    storage: Path | None,
    remote: str | None = None,
) -> None:
    """Ask each node what it sees.

    Args:
        nodes: addresses by node id.
        configs: what is to be trained; those with a folder of data count.
        storage: a folder that all have to write to; None for no such.
        remote: the URI that all have to write to instead.

    Raises:
        InputError: nodes that do not see what the driver sees, or that do not answer.
    """
    paths = dict(_data(config) for config in configs if _data(config)[0])
    for path in paths:
        if not Path(path).expanduser().is_absolute():
            raise InputError(
                f"found {path!r}, which each node would look for in a folder of its own; allowed: "
                "an absolute path, or --data",
                "data.path",
            )
    with _probe(storage if remote is None else None) as probe:
        answers = _ask(nodes, paths, remote if probe is None else str(probe))
        for path, kind in paths.items():
            _compare(path, files_at(path, kind), nodes, answers)
        if probe is not None:
            _check_storage(probe, nodes, answers)
    if remote is not None:
        _check_remote(remote, nodes, answers)


def files_at(path: str, kind: Any) -> Files:
    """What this machine sees at a path."""
    from trainables.data.folder import list_files  # noqa: PLC0415

    try:
        found = list_files(path, kind)
    except InputError as error:
        return Files(missing=str(error).partition(": ")[2] or str(error))
    digest, total = hashlib.sha256(), 0
    for name in found.names:
        try:
            size = (found.root / name).stat().st_size
        except OSError:
            size = -1
        total += max(0, size)
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogatepass"))
    return Files(len(found.names), total, digest.hexdigest())


def answer(paths: Mapping[str, str], probe: str | None, node: str, patience: float) -> Answer:
    """What the node that this runs on sees; leaves its own file beside the probe's.

    It waits `patience` seconds for the probe.
    """
    files = {path: files_at(path, kind) for path, kind in paths.items()}
    if probe is None:
        return Answer(files, "")
    if is_uri(probe):
        return Answer(files, _written(probe, node))
    return Answer(files, _storage_seen(Path(probe), node, patience))


def _data(config: TrialConfig) -> tuple[str, str]:
    return getattr(config.data, "path", ""), config.data.kind


def _storage_seen(probe: Path, node: str, patience: float) -> str:
    until = time.monotonic() + patience
    while not probe.exists():
        if time.monotonic() > until:
            return "does not see"
        time.sleep(0.1)
        with suppress(OSError):
            list(probe.parent.iterdir())  # lets a network's file system look again
    try:
        _mark(probe, node).write_text("")
    except OSError as error:
        return f"cannot write ({error.strerror}) to"
    return ""


def _written(uri: str, node: str) -> str:
    try:
        with tempfile.NamedTemporaryFile() as empty:
            Remote(uri).upload(Path(empty.name), _remote_mark(node))
    except (OSError, InputError) as error:
        return f"cannot write ({' '.join(str(error).split())[:200]}) to"
    return ""


def _check_remote(uri: str, nodes: Mapping[str, str], answers: dict[str, Answer]) -> None:
    told: dict[str, list[str]] = {}
    remote = Remote(uri)
    there = remote.sizes().keys()
    for node, found in answers.items():
        if found.storage:
            told.setdefault(found.storage, []).append(node)
        elif _remote_mark(node) not in there:
            told.setdefault("writes to another place than", []).append(node)
        else:
            remote.remove(_remote_mark(node))
    if told:
        what = "; ".join(f"{_named(those, nodes)} {how}" for how, those in told.items())
        raise InputError(f"{what} {uri}; allowed: a URI that all nodes can write to", "--storage")


def _remote_mark(node: str) -> str:
    return f"nodes/{node[:12]}"


def _mark(probe: Path, node: str) -> Path:
    return probe.with_name(f"{probe.name}-{node[:12]}")


@contextmanager
def _probe(storage: Path | None) -> Any:
    """A small file in the storage, taken away at the end with what the nodes left beside it."""
    if storage is None:
        yield None
        return
    probe = storage / f".vqtune-probe-{token_hex(8)}"
    try:
        probe.write_text("")
        yield probe
    finally:
        for path in storage.glob(f"{probe.name}*"):
            path.unlink(missing_ok=True)


def _ask(
    nodes: Mapping[str, str], paths: Mapping[str, str], place: str | None
) -> dict[str, Answer]:
    """Run `answer` on every node."""
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        # Without a CPU it runs at once also where others' work fills the node.
        task = ray.remote(answer).options(num_cpus=0, max_retries=1, scheduling_strategy=here)
        asked[task.remote(dict(paths), place, node, _SEEN)] = node
    ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
    answers, silent, broken = {}, [], {}
    for task, node in asked.items():
        try:
            answers[node] = ray.get(task, timeout=0)
        except ray.exceptions.GetTimeoutError:
            silent.append(node)
        except ray.exceptions.RayError as error:
            broken[node] = _reason(error)
    if broken:
        node, reason = next(iter(broken.items()))
        raise InputError(
            f"{_named(broken, nodes)} cannot run vqtune: {reason}; allowed: nodes with the "
            "packages of requirements.lock",
            "--address",
        )
    if silent:
        raise InputError(
            f"{_named(silent, nodes)} did not answer within {_ANSWER:.0f} seconds", "--address"
        )
    return answers


def _reason(error: Exception) -> str:
    """The last line that says something: what was raised, not where."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or [type(cause).__name__])[-1][:300]


def _compare(path: str, here: Files, nodes: Mapping[str, str], answers: dict[str, Answer]) -> None:
    """Refuse data that are not the same on all nodes, and on this machine if it has them."""
    seen = {node: found.files[path] for node, found in answers.items()}
    there = [files for files in seen.values() if not files.missing]
    right = here if not here.missing or not there else there[0]
    without = [node for node, files in seen.items() if files.missing]
    other = [node for node, files in seen.items() if not files.missing and files != right]
    told = []
    if without:
        told.append(f"{_named(without, nodes)}: {seen[without[0]].missing}")
    if other:
        files = seen[other[0]]
        how = f"{files.number} files of {files.size:,} bytes, not {right.number} of {right.size:,}"
        if (files.number, files.size) == (right.number, right.size):
            how = "files of other names or sizes"
        told.append(f"{_named(other, nodes)}: {how}")
    if told:
        raise InputError(
            f"{'; '.join(told)}; allowed: the same files on every node that trains", path
        )


def _check_storage(probe: Path, nodes: Mapping[str, str], answers: dict[str, Answer]) -> None:
    place = probe.parent
    told: dict[str, list[str]] = {}
    for node, found in answers.items():
        if found.storage:
            told.setdefault(found.storage, []).append(node)
    until = time.monotonic() + _SEEN
    well = [node for node, found in answers.items() if not found.storage]
    while unseen := [node for node in well if not _mark(probe, node).exists()]:
        if time.monotonic() > until:
            told["writes to another folder than"] = unseen
            break
        time.sleep(0.1)
        list(place.iterdir())
    if told:
        what = "; ".join(f"{_named(those, nodes)} {how}" for how, those in told.items())
        raise InputError(f"{what} {place}; allowed: a folder that all nodes share", "--storage")


def _named(those: Iterable[str], nodes: Mapping[str, str]) -> str:
    """Nodes by their addresses, not more than a few."""
    found: Sequence[str] = sorted({nodes[node] for node in those})
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"node{'s' if len(found) > 1 else ''} {', '.join(found[:_SHOWN])}{more}"
