"""The files of cluster/ against published schemas and linters, and the Slurm scripts with stand-ins for Slurm."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from lenspipe.distributed.pools import GROWS_TO, parse_machines

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
SCRIPTS = sorted([CLUSTER / "local.sh", *CLUSTER.glob("slurm/*")])
KUBERAY = sorted(CLUSTER.glob("kuberay/*.yaml"))


def tool(name: str) -> str:
    """A linter beside this Python, as pip installs it."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} comes with the dev dependencies"
    return found


def ray_specs() -> list[tuple[str, dict[str, Any]]]:
    documents = [(path.name, d) for path in KUBERAY for d in yaml.safe_load_all(path.read_text())]
    return [
        (name, d["spec"].get("rayClusterSpec", d["spec"]))
        for name, d in documents
        if d["apiVersion"].startswith("ray.io")
    ]


def test_shell_scripts_pass_shellcheck() -> None:
    arguments = ["-x", "-P", str(CLUSTER / "slurm"), *map(str, SCRIPTS)]
    done = subprocess.run([tool("shellcheck"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint_and_copies_only_what_exists() -> None:
    done = subprocess.run([tool("hadolint"), CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (CLUSTER / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    sent = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(sent)
    assert re.findall(r"^USER (\d+)$", text, re.M)[-1] != "0"


def test_the_cloud_file_is_what_rays_schema_asks_for() -> None:
    found = importlib.util.find_spec("ray")
    assert found and found.origin
    schema = json.loads((Path(found.origin).parent / "autoscaler/ray-schema.json").read_text())
    said = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    jsonschema.validate(said, schema)
    types = said["available_node_types"]
    assert said["head_node_type"] in types
    assert types["head"]["resources"]["CPU"] == 0
    assert all(types[name]["min_workers"] == 0 for name in types if name != "head")  # idle, only the head costs money


@pytest.mark.parametrize(("name", "spec"), ray_specs())
def test_what_a_cluster_is_said_to_grow_to_is_what_its_pools_can_grow_to(name: str, spec: dict[str, Any]) -> None:
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    (said,) = [parse_machines(one["value"]) for one in head["env"] if one["name"] == GROWS_TO]
    for kind, group in zip(said, spec["workerGroupSpecs"], strict=True):
        (worker,) = group["template"]["spec"]["containers"]
        limits = worker["resources"]["limits"]
        assert kind.count == group["maxReplicas"] and kind.each["CPU"] == float(limits["cpu"])
        assert kind.each.get("GPU", 0) == float(limits.get("nvidia.com/gpu", 0))
        # Ray declares 0.7 of a container's memory for work; the rest is its object store's
        assert kind.each["memory"] <= 0.7 * float(limits["memory"].removesuffix("Gi")) * 2**30


def test_what_the_cloud_is_said_to_grow_to_is_what_its_pools_can_grow_to() -> None:
    text = (CLUSTER / "ray-up.yaml").read_text()
    said = parse_machines(re.findall(rf'{GROWS_TO}="([^"]+)"', text)[0])
    types = yaml.safe_load(text)["available_node_types"]
    for kind, name in zip(said, ("cpu", "gpu"), strict=True):
        assert kind.count == types[name]["max_workers"]
        assert {k: v for k, v in kind.each.items() if k != "memory"} == types[name]["resources"]


@pytest.mark.parametrize(("name", "spec"), ray_specs())
def test_pods_of_a_kubernetes_cluster_are_what_the_schema_of_kubernetes_asks_for(
    name: str, spec: dict[str, Any]
) -> None:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        inside = group["template"]["spec"]
        (container,) = inside["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]  # Ray counts limits
        assert {m["name"] for m in container["volumeMounts"]} == {
            v["name"] for v in group["template"]["spec"]["volumes"]
        }
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"] == {"mode": "token"}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


def test_both_kubernetes_files_describe_the_same_cluster() -> None:
    (_, first), (_, second) = ray_specs()
    assert first == second


def test_the_claim_is_what_the_schema_of_kubernetes_asks_for() -> None:
    *_, claim = yaml.safe_load_all((CLUSTER / "kuberay/raycluster.yaml").read_text())
    kubernetes_validate.validate(claim, "1.33", strict=True)
    (volume, _) = ray_specs()[0][1]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Stand-ins that write down how they were called; a job that lasts until it is told to end."""
    commands, home = tmp_path / "bin", tmp_path / "home"
    (tmp_path / "project/.venv/bin").mkdir(parents=True)
    (tmp_path / "project/.venv/bin/activate").touch()
    shutil.copytree(CLUSTER, tmp_path / "project/cluster")
    for folder in (commands, home / ".ray"):
        folder.mkdir(parents=True)
    (home / ".ray/auth_token").write_text("secret")
    for name, does in {
        "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = show ] && printf "n1\\nn2\\n" || true',
        "srun": 'case "$*" in *hostname*) echo "10.0.0.1 fe80::1";; *) echo "srun $*" >> "$CALLS"; eval "$JOB";; esac',
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{does}\n")
        (commands / name).chmod(0o755)
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "HOME": str(home),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_SUBMIT_DIR": str(tmp_path / "project"),
        **told,
    }


@pytest.mark.parametrize(
    ("script", "job", "more"),
    [
        ("scan_survey", "scan_survey", " --resume"),
        ("train", "train_classifier", ""),
        ("sweep", "sweep_models", " --resume"),
    ],
)
def test_a_slurm_job_runs_its_script_on_all_nodes_and_ends_with_its_exit_code(
    slurm: dict[str, str], script: str, job: str, more: str
) -> None:
    run = ["bash", str(CLUSTER / f"slurm/{script}.sbatch"), "tiles of mine", "--out", "/o"]
    assert subprocess.run(run, env=slurm | {"JOB": "exit 3"}).returncode == 3
    called = Path(slurm["CALLS"]).read_text()
    assert "ray symmetric-run --address 10.0.0.1:6379 --min-nodes 2 --num-cpus 8 --num-gpus 0 --" in called
    assert f"RAY_ADDRESS=10.0.0.1:6379 python -u jobs/{job}.py tiles of mine --out /o{more}\n" in called
    assert (ROOT / f"jobs/{job}.py").exists()


def test_a_slurm_job_whose_nodes_are_taken_goes_back_into_the_queue(slurm: dict[str, str]) -> None:
    job = subprocess.Popen(["bash", str(CLUSTER / "slurm/scan_survey.sbatch")], env=slurm | {"JOB": "exec sleep 30"})
    limit = time.monotonic() + 20
    while "symmetric-run" not in (Path(slurm["CALLS"]).read_text() if Path(slurm["CALLS"]).exists() else ""):
        assert time.monotonic() < limit
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(10) == 0
    assert "scontrol requeue 7" in Path(slurm["CALLS"]).read_text()
