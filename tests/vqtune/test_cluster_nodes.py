"""Searches on nodes that are not as the driver's machine: without vqtune, with other files."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.vqtune.conftest import run_search
from tests.vqtune.nodes import bare_python, started
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune import node_check
from vqtune.cluster import holding, ray_cluster, resources
from vqtune.node_check import check_nodes

pytestmark = pytest.mark.cluster  # of their own

OWN = """
description: A user's own model and data
extends: base
search: {trials: 2, samples: 320}
parameters:
  data: {kind: factory, factory: clips:make}
  model: {kind: factory, factory: mine.models:build, arguments: {told: TOLD}}
  codebook: {size: 16, dim: {values: [2, 4]}}
  training: {reports: 2}
"""
CLIPS = """
import numpy as np

def make():
    random = np.random.default_rng(0)
    return {str(i): random.normal(size=(64, 8)).astype("float32") for i in range(12)}
"""
MODELS = """
import json, sys
from pathlib import Path
from torch import nn
from layers import layer

def build(example_shape, dim, told):
    packages = ("vqtune", "trainables", "analysis", "search_spaces", "mine", "clips", "layers")
    files = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.partition(".")[0] in packages and getattr(module, "__file__", None)
    }
    Path(told).write_text(json.dumps([sys.executable, files]))
    return layer(example_shape[0], dim), layer(dim, example_shape[0])
"""
LAYERS = """
from torch import nn

def layer(a, b):
    return nn.Conv1d(a, b, 1)
"""


SLOW = """
description: Trials that wait for a word
extends: base
search: {trials: 6, samples: 320, early_stopping: none, sampler: random}
parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model: {kind: factory, factory: slow:build}
  codebook: {size: 16, dim: {values: [2, 3, 4, 5]}}
  training: {reports: 4}
"""
SLOWLY = """
import os, time
from pathlib import Path
from torch import nn

class Slow(nn.Conv1d):
    def forward(self, x):
        own = Path("WAITING") / str(os.getpid())
        while Path("HOLD").exists():
            own.touch()
            time.sleep(0.02)
        return super().forward(x)

def build(example_shape, dim):
    return Slow(example_shape[0], dim, 1), nn.Conv1d(dim, example_shape[0], 1)
"""


SHARED = """
description: A larger share for one dimension
extends: base
search: {trials: 4, samples: 320, sampler: grid, early_stopping: none}
resources: {cpus: 0.5, rules: [{where: {codebook.dim: {min: 4}}, cpus: 2}]}
parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model: {kind: factory, factory: shared:build}
  codebook: {size: 16, dim: {values: [2, 3, 4]}}
  training: {reports: 2}
"""
TOLD = """
import json, os
from pathlib import Path
import ray, torch
from torch import nn

class Encoder(nn.Conv1d):
    def forward(self, x):
        cpus = ray.get_runtime_context().get_assigned_resources()["CPU"]
        told = [cpus, torch.get_num_threads(), os.getpid()]
        (Path("TOLD") / str(self.out_channels)).write_text(json.dumps(told))
        return super().forward(x)

def build(example_shape, dim):
    return Encoder(example_shape[0], dim, 1), nn.Conv1d(dim, example_shape[0], 1)
"""


@pytest.fixture(scope="module")
def bare(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node whose Python knows nothing of vqtune, nor of where it is."""
    folder = tmp_path_factory.mktemp("bare")
    python = bare_python(folder / "venv")
    done = subprocess.run([python, "-c", "import vqtune"], check=False, cwd=folder, stderr=-3)
    assert done.returncode == 1
    with started("head", 1, python=python, cwd=folder) as (address, _):
        yield address


def test_workers_need_the_dependencies_alone(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a trial imports of vqtune and the user's is what was sent."""
    code, cwd = tmp_path / "code", tmp_path / "cwd"
    cwd.mkdir()
    (code / "mine").mkdir(parents=True)
    (code / "mine" / "__init__.py").touch()
    (code / "mine" / "models.py").write_text(MODELS)
    (code / "layers.py").write_text(LAYERS)
    (code / "clips.py").write_text(CLIPS)
    told = tmp_path / "told.json"
    (tmp_path / "own.yaml").write_text(OWN.replace("TOLD", str(told)))
    # Ray lets workers look into the driver's current folder, where they have the same.
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("PYTHONPATH", str(code))
    done = run_search(tmp_path / "own.yaml", bare, storage=tmp_path / "runs", name="own")
    assert set(done.states().values()) <= {"complete", "stopped"}
    executable, files = json.loads(told.read_text())
    assert "venv" in executable
    assert {"trainables.trainer", "mine.models", "layers", "clips"} <= files.keys()
    elsewhere = {name: file for name, file in files.items() if "py_modules_files" not in file}
    assert elsewhere == {}


@pytest.mark.long
def test_nodes_that_join_are_used_and_one_that_leaves_is_survived(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial at a time; then, with two more CPUs, three; then one again."""
    waiting, hold = tmp_path / "waiting", tmp_path / "hold"
    waiting.mkdir()
    (tmp_path / "slow.yaml").write_text(SLOW)
    module = SLOWLY.replace("WAITING", str(waiting)).replace("HOLD", str(hold))
    (tmp_path / "slow.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    seen = []

    def until(true: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        while not true() and time.monotonic() < limit:
            time.sleep(0.02)

    def join_and_leave() -> None:
        until(lambda: len(list((tmp_path / "runs" / "slow").glob("trials/*/result.json"))) == 2)
        hold.touch()
        until(lambda: len(list(waiting.iterdir())) == 1)
        try:
            with started(bare, 2, cwd=tmp_path):
                until(lambda: len(list(waiting.iterdir())) == 3)
                seen.append(len(list(waiting.iterdir())))
        finally:
            hold.unlink()

    node = threading.Thread(target=join_and_leave)
    node.start()
    done = run_search(tmp_path / "slow.yaml", bare, name="slow")
    node.join()
    assert seen == [3]
    assert done.outcome.finished
    assert list(done.states().values()) == ["complete"] * 6
    for trial in done.states():
        assert [report["samples"] for report in done.reports(trial)] == [80, 160, 240, 320]


@pytest.mark.long
def test_a_trial_takes_what_its_config_asks_for(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a process that is reused; and a run that goes on takes what it took."""
    told = tmp_path / "told"
    told.mkdir()
    (tmp_path / "shared.yaml").write_text(SHARED)
    (tmp_path / "shared.py").write_text(TOLD.replace("TOLD", str(told)))
    monkeypatch.chdir(tmp_path)
    with started(bare, 2, cwd=tmp_path):
        done = run_search(tmp_path / "shared.yaml", bare, name="shared")
        assert list(done.states().values()) == ["complete"] * 4
        seen = {path.name: json.loads(path.read_text()) for path in told.iterdir()}
        taken = {dim: tuple(said[:2]) for dim, said in seen.items()}
        assert taken == {"2": (0.5, 1), "3": (0.5, 1), "4": (2.0, 2)}
        assert seen["4"][2] not in (seen["2"][2], seen["3"][2])
        spec = done.records.spec
        assert spec["resources"] == {"cpus": 0.5, "gpus": 0.0}
        assert spec["space"]["resources"]["rules"][0]["cpus"] == 2
        more = {"resume": True, "name": "shared"}
        (tmp_path / "shared.yaml").write_text(SHARED.replace("cpus: 2}", "cpus: 1}"))
        with pytest.raises(InputError, match=r"resources.rules: the run was started with"):
            run_search(tmp_path / "shared.yaml", bare, **more)
    (tmp_path / "shared.yaml").write_text(SHARED)
    message = "resources.rules.0: a trial needs 2 CPUs and 0 GPUs on one node, the cluster's nodes"
    with pytest.raises(InputError, match=message):
        run_search(tmp_path / "shared.yaml", bare, name="other")
    assert not (tmp_path / "runs" / "other").exists()


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """Two machines' homes with the same data."""
    made = tmp_path / "here", tmp_path / "there"
    for home in made:
        (home / "clips").mkdir(parents=True)
        for i in range(3):
            np.save(home / "clips" / f"{i}.npy", np.zeros((40, 4), np.float32))
    return made


def test_data_are_looked_for_on_every_node(
    bare: str, homes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~` is another folder on the second node, whose home is another one."""
    here, there = homes
    monkeypatch.setenv("HOME", str(here))
    config = TrialConfig.from_dict({"data": {"kind": "arrays", "path": "~/clips"}})
    relative = TrialConfig.from_dict({"data": {"kind": "arrays", "path": "clips"}})
    with started(bare, 2, HOME=str(there)) as (_, second), ray_cluster(bare):
        every = holding(resources(1, 0))
        assert len(every) == 2
        nodes = {second: every[second]}
        ip = every[second]
        # Of two CPUs only the second has enough.
        assert holding(resources(2, 0)) == nodes
        check_nodes(nodes, [config], tmp_path)
        assert not list(tmp_path.glob(".vqtune*"))

        def refused(*configs: TrialConfig) -> str:
            with pytest.raises(InputError) as caught:
                check_nodes(nodes, configs or [config], tmp_path)
            return str(caught.value)

        allowed = "; allowed: the same files on every node that trains"
        (there / "clips" / "3.npy").write_bytes(bytes(100))
        assert refused() == (f"~/clips: node {ip}: 4 files of 2,404 bytes, not 3 of 2,304{allowed}")
        (there / "clips" / "3.npy").unlink()
        (there / "clips" / "2.npy").rename(there / "clips" / "two.npy")
        assert refused() == f"~/clips: node {ip}: files of other names or sizes{allowed}"
        shutil.rmtree(there / "clips")
        line = f"~/clips: node {ip}: cannot be read: No such file or directory{allowed}"
        assert refused() == line
        assert refused(config, config) == line
        assert refused(relative).startswith("data.path: found 'clips', which each node would look")
        # What the driver does not have the nodes may have all the same.
        (here / "clips").rename(there / "clips")
        check_nodes(nodes, [config], tmp_path)


def test_a_folder_that_the_nodes_do_not_share(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second node sees an empty file system where the driver keeps its runs."""
    monkeypatch.setattr(node_check, "_SEEN", 1.0)
    storage = tmp_path / "runs"
    storage.mkdir()
    own = f'mount -t tmpfs none {storage} && exec "$@"'
    apart = ["unshare", "--mount", "sh", "-c", own, "sh"]
    able = subprocess.run([*apart, "true"], check=False, capture_output=True)
    if able.returncode:
        pytest.skip("needs the right to mount: " + able.stderr.decode().strip())
    with started(bare, 2, prefix=apart) as (_, second), ray_cluster(bare):
        ip = ray.util.get_node_ip_address()
        message = f"^--storage: node {ip} does not see {storage}; allowed: a folder that all nodes"
        with pytest.raises(InputError, match=message):
            check_nodes(holding(resources(1, 0)), [], storage)
        assert list(storage.iterdir()) == []
        check_nodes(holding(resources(2, 0)), [], None)
        assert second in holding(resources(2, 0))
