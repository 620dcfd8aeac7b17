"""The examples under cluster/: each is what its own tool asks for, and its command is one of ours.

The launcher's YAML goes through Ray's own schema. For the KubeRay manifest no tool runs without a
cluster: its keys are held against the fields of ray.io/v1, taken from KubeRay v1.6's API reference
(docs.ray.io, "KubeRay CRD API reference") and ray-operator/apis/ray/v1/ray{job,cluster}_types.go.
The SLURM script runs, with stand-ins for what SLURM itself provides.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

from vqtune.cli import main

FOLDER = Path(__file__).parents[1] / "cluster"
LAUNCHER, RAYJOB, SLURM = (FOLDER / n for n in ("ray-cluster.yaml", "rayjob.yaml", "slurm.sh"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def command_of(path: Path) -> list[str]:
    """The arguments of the one `vqtune …` in a file."""
    text = re.sub(r"\\\n", " ", path.read_text())
    if path == LAUNCHER:  # in a comment, as an argument of `ray exec`
        [line] = re.findall(r'"(vqtune .*)"', text)
    elif path == RAYJOB:
        line = load(path)["spec"]["entrypoint"]
    else:
        [line] = re.findall(r"^(vqtune .*) &$", text, re.MULTILINE)
    return shlex.split(line.replace('"${resume[@]}"', "--resume"))[1:]


@pytest.mark.parametrize("path", [LAUNCHER, RAYJOB, SLURM], ids=lambda path: path.name)
def test_every_command_is_one_of_ours(path: Path) -> None:
    name, *rest = command_of(path)
    with click.Context(main) as context:
        command = main.get_command(context, name)
    assert command is not None
    parsed = command.make_context(name, rest).params
    assert parsed["address"]
    assert parsed["gpus_per_trial"] == 0.25
    assert str(parsed["storage"]) in ("/shared/runs", "$runs")
    assert parsed["resume"] == (path == SLURM)


@pytest.mark.parametrize("path", [LAUNCHER, RAYJOB, SLURM], ids=lambda path: path.name)
def test_what_is_to_be_replaced_cannot_be_taken_for_real(path: Path) -> None:
    text = path.read_text()
    assert len(re.findall(r"\bYOUR_[A-Z_]+\b", text)) >= 2
    documentation = ipaddress.ip_network("192.0.2.0/24")  # RFC 5737
    for found in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
        assert ipaddress.ip_address(found) in documentation
    # A token is made when the cluster starts, or copied from its owner's home.
    assert not re.search(r"[0-9a-f]{16}", text)


def test_ray_takes_the_launchers_yaml() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(LAUNCHER))
    validate_config(config)
    assert "~/.ray/auth_token" in config["file_mounts"]
    for part in ("head", "worker"):
        start = config[f"{part}_start_ray_commands"][-1]
        assert start.startswith("RAY_AUTH_MODE=token ray start ")


JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate"),
    *("metadata", "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy"),
    *("entrypoint", "runtimeEnvYAML", "jobId", "submissionMode", "entrypointResources"),
    *("entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished"),
    *("shutdownAfterJobFinishes", "suspend"),
}
CLUSTER = {
    *("headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "authOptions"),
    *("autoscalerOptions", "headServiceAnnotations", "suspend", "gcsFaultToleranceOptions"),
}
GROUP = {"rayStartParams", "template"}
HEAD = GROUP | {"serviceType", "headService", "enableIngress"}
WORKERS = GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"}


def test_the_rayjob_has_the_fields_of_its_kind() -> None:
    import ray

    job = load(RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert spec.keys() <= JOB
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= CLUSTER
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert GROUP <= head.keys() <= HEAD
    assert GROUP | {"groupName", "minReplicas", "maxReplicas"} <= workers.keys() <= WORKERS
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert container["name"] and container["image"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert "/shared" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    # The smallest share of a GPU is one of a node that has it.
    assert int(
        workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    )


def test_slurms_directives_come_first_and_are_whole() -> None:
    lines = SLURM.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [line for line in lines if line.startswith("#SBATCH")]
    options = dict(line.split(maxsplit=1)[1].partition("=")[::2] for line in directives)
    assert {
        "--nodes",
        "--cpus-per-task",
        "--gpus-per-node",
        "--time",
        "--account",
    } <= options.keys()
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in directives)
    # sbatch reads no further than the first command.
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < first
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0


SRUN = """#!/bin/bash
# Runs the command here, as srun does on the nodes.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SPACE = """
description: Two small trials
extends: base
search: {trials: 2, samples: 320}
parameters:
  model: {width: 8, depth: 1}
  codebook: {size: 16, dim: {values: [2, 4]}}
  training: {reports: 2}
"""


@pytest.mark.long
def test_the_slurm_script_runs_a_search_and_goes_on_with_it(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    (tmp_path / "data").mkdir()
    tools.mkdir()
    random = np.random.default_rng(0)
    for i in range(10):
        np.save(tmp_path / "data" / f"{i}.npy", random.normal(size=(64, 8)).astype(np.float32))
    (tmp_path / "own.yaml").write_text(SPACE)
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\nhostname\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        job = free.getsockname()[1] - 20000  # the port of the head, as the script has it
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"])),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "VQTUNE_DATA": str(tmp_path / "data"),
        "VQTUNE_RUNS": str(tmp_path / "runs"),
        "VQTUNE_CACHE": str(tmp_path / "cache"),
    }
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    for said in ("[2/2]", "first is finished: nothing is left to do"):
        done = subprocess.run(
            ["bash", str(SLURM), "own.yaml", "first"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert (tmp_path / "runs" / "first" / "report.html").exists()
