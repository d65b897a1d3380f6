"""What is killed and held up: an object store in a process of its own, a Ray cluster of two nodes of one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.cluster_growth import free_port
from benchmarks.forks import fork, in_fork
from benchmarks.timing import Clock

ALIVE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(*(node["NodeID"] for node in ray.nodes() if node["Alive"]))
"""
URL = "s3://survey/run"
"""A place in the store."""


class Store:
    """moto's S3 in a process of its own; it refuses while a file is there."""

    def __init__(self, work: Path) -> None:
        self.refuses, self._port = work / "refuses", free_port()
        self.refuses.unlink(missing_ok=True)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "soak", "AWS_SECRET_ACCESS_KEY": "soak-soak-soak", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_MAX_ATTEMPTS": "1", "LENSPIPE_STORE_PATIENCE_S": "4",
        }  # fmt: skip
        self.pid = fork(self._serve, work / "store.log")
        clock = Clock()
        while True:
            try:
                in_fork(empty_store)
                return
            except RuntimeError:
                if clock.wall_s > 60:
                    raise
                time.sleep(0.5)

    def _serve(self) -> int:
        import boto3
        from s3_server import BUCKET, S3Server

        server = S3Server(self._port)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        server.fail = lambda method, path: self.refuses.exists()
        while os.getppid() != 1:
            time.sleep(0.5)
        return 0

    def stop(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGCONT)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Rays:
    """A Ray cluster of two nodes of this machine, of which the second may die and come back."""

    def __init__(self, work: Path) -> None:
        self._log, port = work, free_port()
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_register_timeout_seconds": "600",
            "RAY_health_check_timeout_ms": "60000"
        }  # fmt: skip
        self.address = f"127.0.0.1:{port}"
        self.head = self._start("head", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false")
        self.node = self.second()
        os.environ |= {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}

    def _start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        ports = [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
                 f"--metrics-export-port={free_port()}", "--object-store-memory=150000000"]  # fmt: skip
        log = (self._log / f"{name}.log").open("a")
        words = ["ray", "start", "--block", "--node-ip-address=127.0.0.1", *ports, *more]
        node = subprocess.Popen(words, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        asked = ["ray", "health-check", "--address", self.address]
        while subprocess.run(asked, env=self._env, capture_output=True).returncode:
            if node.poll() is not None:
                raise RuntimeError((self._log / f"{name}.log").read_text()[-2000:])
            time.sleep(1)
        return node

    def second(self) -> subprocess.Popen[bytes]:
        """Start the second node, and wait until the cluster has it: who asks for two CPUs is refused before."""
        before = self._alive()
        node = self._start("node", f"--address={self.address}", "--num-cpus=1")
        while not self._alive() - before:
            time.sleep(0.5)
        return node

    def _alive(self) -> set[str]:
        asked = [sys.executable, "-c", ALIVE, self.address]
        for _ in range(5):  # a node that has just died may be asked
            done = subprocess.run(asked, env=self._env, capture_output=True, text=True)
            if not done.returncode:
                return set(done.stdout.split())
            time.sleep(2)
        raise RuntimeError(done.stderr[-2000:])

    def make_whole(self) -> None:
        """On a machine that is busy Ray gives a node up by itself: another comes, before a command asks for it."""
        if self.node.poll() is not None or len(self._alive()) < 2:
            self.kill_node()

    def lose_node(self) -> None:
        """The second node dies with all its processes."""
        _kill_tree(self.node.pid)
        self.node.wait()
        while len(self._alive()) > 1:
            time.sleep(0.5)

    def kill_node(self) -> None:
        """The second node dies with all its processes; another comes."""
        _kill_tree(self.node.pid)
        self.node.wait()
        self.node = self.second()

    def kill_worker(self, rng: np.random.Generator) -> bool:
        """One of the processes that work dies, as the kernel ends one when memory is short."""
        found = [p for top in (self.head, self.node) for p in _below(top.pid) if _is_worker(p)]
        if found:
            found[int(rng.integers(len(found)))].kill()
        return bool(found)

    def stop(self) -> None:
        """End both."""
        for node in (self.node, self.head):
            _kill_tree(node.pid)
            node.wait()
        os.environ.pop("RAY_ADDRESS", None)


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline())
        return words.startswith("ray::") and "IDLE" not in words and "Agent" not in words  # with an agent dies its node
    return False


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*_below(pid), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def empty_store() -> None:
    """Remove what is at `URL`."""
    from lenspipe.store.objects import listed, remove

    remove(URL, list(listed(URL)))
