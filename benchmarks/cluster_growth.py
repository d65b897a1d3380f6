"""
Scans on a cluster that has no CPU and no GPU when they begin: Ray's autoscaler starts nodes as the work asks for them.

    python -m benchmarks.cluster_growth

Fake nodes of Ray stand in for a cloud: processes of this machine that its autoscaler starts and ends. Their GPUs are
numbers that Ray counts, and what would run on one runs on the CPU: the graph of operators, the pools and the growth
are those of a GPU scan, its speed is not. The rows must be those of the plain loop, and a job that the cluster can
never hold must be refused at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import ray

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.distributed.pools import GROWS_TO
from lenspipe.rundir import read_json

LIMIT_S = 600
GROWN = "2xCPU=1 2xCPU=1,GPU=1"
"""What the cluster can have in the end."""


def free_port() -> int:
    """Port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def configuration(most: int) -> dict[str, Any]:
    """Autoscaler's settings: a head without CPUs, up to ``most`` nodes of one CPU, and as many with a GPU beside."""
    node: dict[str, Any] = {"node_config": {}, "min_workers": 0}
    return {
        "cluster_name": "growth",
        "max_workers": 2 * most,
        "idle_timeout_minutes": 1,
        "provider": {"type": "fake_multinode", "disable_node_updaters": True},
        "available_node_types": {
            "ray.head.default": {"node_config": {}, "resources": {"CPU": 0}, "max_workers": 0},
            "cpu": node | {"resources": {"CPU": 1}, "max_workers": most},
            "gpu": node | {"resources": {"CPU": 1, "GPU": 1}, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 100.0,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def scan(out: Path, *more: str, env: dict[str, str], code: int = 0) -> tuple[float, list[str]]:
    """Seconds of a scan of the sample, and what it said; it must end with ``code``."""
    clock = Clock()
    command = [sys.executable, "-m", "lenspipe", "scan", "--sample", "--shard-px", "256", "--out", str(out), *more]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != code:
        raise RuntimeError(done.stderr[-3000:])
    return round(clock.wall_s, 1), (done.stdout + done.stderr).splitlines()


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Grow from nothing, scan, compare."""
    port = 6379  # the one at which fake nodes look for their head
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        settings = here / "autoscaler.json"
        settings.write_text(json.dumps(configuration(2)))
        head = subprocess.Popen(
            ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=0", "--node-ip-address=127.0.0.1",
             "--include-dashboard=false", f"--dashboard-agent-listen-port={free_port()}",
             f"--dashboard-agent-grpc-port={free_port()}", f"--metrics-export-port={free_port()}",
             "--object-store-memory=200000000", f"--autoscaling-config={settings}"],
            env=env, stdout=(here / "head.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: off
        try:
            joined = env | {"RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}", GROWS_TO: GROWN}
            while subprocess.run(
                ["ray", "health-check", "--address", joined["RAY_ADDRESS"]], env=joined, capture_output=True
            ).returncode:
                if head.poll() is not None:
                    raise RuntimeError((here / "head.log").read_text()[-3000:])
                time.sleep(1)
            by_ray = ("--runner", "ray", "--workers", "0:2")
            cpu_s, _ = scan(here / "grown", *by_ray, env=joined)
            gpu_s, told = scan(here / "gpus", *by_ray, "--gpus", "0:2", "--scorers-per-gpu", "2", env=joined)
            refused_s, refusal = scan(here / "refused", *by_ray, "--gpus", "3", env=joined, code=2)
            plain_s, _ = scan(here / "plain", "--runner", "local", env=env)
            tables = [pq.read_table(here / name / "candidates.parquet") for name in ("grown", "gpus", "plain")]
            pools = read_json(here / "gpus" / "run.json")["ray"]["pools"]
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{(here / 'head.log').read_text()[-3000:]}") from error
        finally:
            os.killpg(head.pid, signal.SIGKILL)
    same = all(table.equals(tables[-1]) for table in tables)
    result = {
        "seconds_from_no_node": cpu_s,
        "seconds_from_no_gpu": gpu_s,
        "seconds_plain": plain_s,
        "rows": tables[0].num_rows,
        "rows_are_the_same": same,
        "pools": pools,
        "table": [line for line in told if line.startswith(("pool", "readers", "scorers", "committers"))],
        "refused_after_s": refused_s,
        "refusal": refusal[-1],
    }
    aims = [
        record.at_least("rows_are_the_same", float(same), 1.0),
        record.at_least("a job that can never run is refused", float("can never hold" in refusal[-1]), 1.0),
    ]
    record.write("cluster_growth", result, aims, keep=keep)


if __name__ == "__main__":
    main()
