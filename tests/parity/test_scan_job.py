# The scan as a submitted job, on a one-node cluster that is started for it.

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300
AGENT_LIMIT_S = 60


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """`ray start --head` of its own; ended by signal, since `ray stop` would end every Ray of this machine."""
    port, dashboard, agent, agent_grpc, metrics = (free_port() for _ in range(5))
    log = (tmp_path_factory.mktemp("cluster") / "head.log").open("w+")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    head = subprocess.Popen(
        [
            "ray",
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}",
            f"--metrics-export-port={metrics}",
            "--num-cpus=2",
            "--object-store-memory=200000000",
            "--disable-usage-stats",
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{dashboard}"
    limit = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
            break
        except (urllib.error.URLError, OSError):
            assert head.poll() is None, f"ray start ended: {Path(log.name).read_text()}"
            assert time.monotonic() < limit, f"the cluster did not come up: {Path(log.name).read_text()}"
            time.sleep(0.5)
    yield address, environment
    for process in (*psutil.Process(head.pid).children(recursive=True), head):
        process.kill()
    head.wait(60)


def submit(cluster, script: str) -> tuple[int, dict]:
    address, environment = cluster
    limit = time.monotonic() + AGENT_LIMIT_S
    while True:  # a dashboard that answers may still have no agent to run jobs
        name = f"scan-{time.monotonic_ns()}"
        done = subprocess.run(
            [
                "ray",
                "job",
                "submit",
                "--address",
                address,
                "--submission-id",
                name,
                "--working-dir",
                ".",
                "--",
                "sh",
                "-c",
                script,
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if "No available agent" not in done.stderr or time.monotonic() > limit:
            break
        time.sleep(2)
    try:
        details = json.load(urllib.request.urlopen(f"{address}/api/jobs/{name}"))
    except urllib.error.HTTPError as error:
        raise AssertionError(f"the job was not accepted ({error}):\n{done.stdout}\n{done.stderr}") from error
    return done.returncode, details | {"output": done.stdout + done.stderr}


def test_a_submitted_sample_scan_leaves_its_catalogue_where_it_was_told_and_refuses_a_relative_folder(
    cluster, tmp_path
):
    """One job for both: the refusal is by where a job runs, which only a submitted one shows."""
    out, scan = tmp_path / "run", "python jobs/scan_survey.py --sample"
    code, job = submit(cluster, f"{scan} --out runs/here; echo refused with $?; {scan} --limit 1 --out {out}")
    assert "give --out as an absolute path" in job["output"], job["output"][-3000:]
    assert "refused with 2" in job["output"]
    assert code == 0, job["output"][-3000:]
    assert job["driver_exit_code"] == 0
    assert pq.read_table(out / "candidates.parquet").num_rows > 20
    assert json.loads((out / "run.json").read_text())["exit_code"] == 0
