# Ray's rows are the plain loop's rows: for any number of shards, batches and workers, through deaths of workers.

import contextlib
import os
import shutil
import signal
import threading
import time
from functools import partial

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from killing import tables
from sky import write_tile
from small_models import knowing_its_training_set, small_model

from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.survey.layout import read_layout

pytestmark = pytest.mark.usefixtures("ray_local")


local = here(scan_local)


@contextlib.contextmanager
def by_ray(plain_s=None, *, n_worker=2, separate_scorers=None):
    from lenspipe.distributed.scan import scan_ray

    yield partial(scan_ray, n_worker=n_worker, separate_scorers=separate_scorers)


def scan(tiles, out, models, runner, *, core_px=128, shards_per_call=4, batch_size=None):
    score = {"model": str(models / "tiny"), "shards_per_call": shards_per_call, "batch_size": batch_size}
    beside = {"embedder": str(models / "embed"), "anomalies": {"model": str(models / "ae")}}
    config = ScanConfig.model_validate({"shard": {"core_px": core_px, "halo_px": 64}, "score": score, **beside})
    return run_scan(
        ScanRequest((str(tiles),), read_layout("generic"), config, None), out, runner, Silent(), resume=False
    )


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    write_tile(folder, "a", shape=(512, 512), n_source=70)
    write_tile(folder, "b", shape=(300, 300), n_source=20, seed=1)
    (folder / "b_g.fits").write_bytes((folder / "b_g.fits").read_bytes()[:250_000])
    return folder


def tables_and_vectors(run):
    return (*tables(run), pq.read_table(run / "embeddings.parquet"))


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """A finder that knows its training set, an embedding and an autoencoder."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, folder / "tiny")
    knowing_its_training_set(folder / "tiny")
    small_model(folder / "embed", "embed", size=8, method="simclr")
    small_model(folder / "ae", "anomaly", errors=(0.001, 0.01, 0.1), n_normal=3)
    return folder


@pytest.fixture(scope="module")
def reference(tiles, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "local"
    result = scan(tiles, out, models, local, shards_per_call=1)
    assert result.totals.scored > 60
    assert result.totals.failures > 0
    return tables_and_vectors(out)


def test_the_plain_loop_does_not_depend_on_how_shards_share_calls(tiles, models, reference, tmp_path):
    scan(tiles, tmp_path / "seven", models, local, shards_per_call=7)
    for got, want in zip(tables_and_vectors(tmp_path / "seven"), reference, strict=True):
        assert got.equals(want)


def busy_workers():
    """Ray's worker processes that run a task or an actor: Ray writes that in place of their command line."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            title = process.cmdline()[0]
            if title.startswith(("ray::PoolWorker.call", "ray::Map")):
                yield process


DEADLY = "a_x128y256c128"


@pytest.fixture
def deadly_shard(monkeypatch):
    """A pixel value that ends the process: planted where a worker begins a shard."""
    from lenspipe.distributed import scan as dist_scan
    from lenspipe.distributed import scan_pools

    real = dist_scan.scan_shard

    def deadly(task, settings):
        if task.shard.shard_id == DEADLY:
            from lenspipe.scan import attempts

            if attempts.deaths(settings.attempts, "read", task.shard.shard_id) < attempts.MAX_DEATHS:
                attempts.begin(settings.attempts, "read", task.shard.shard_id)
                os._exit(139)
        return real(task, settings)

    for module, name in ((dist_scan, "ScanShards"), (scan_pools, "ReadShards")):  # pickled by value: workers get them

        class Deadly(getattr(module, name)):
            scan = staticmethod(deadly)

        monkeypatch.setattr(module, name, Deadly)


@contextlib.contextmanager
def killing(run, rng, *, at_most):
    """SIGKILL of busy workers while a scan goes on; yields the list of those killed."""
    stop, killed = threading.Event(), []

    def kill():
        while not stop.is_set() and len(killed) < at_most:
            time.sleep(0.6 + 0.6 * rng.random())
            busy = list(busy_workers())
            if busy and (run / "parts").is_dir():
                victim = busy[rng.integers(len(busy))]
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(signal.SIGKILL)
                    killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def check_all_but_the_deadly_shard(run, reference):
    """Rows of every other shard are the plain loop's; the deadly one is a failure row."""
    candidates, shards, failures, vectors = tables_and_vectors(run)
    want, want_shards, want_failures, want_vectors = reference
    others = pc.field("shard_id") != DEADLY
    assert want.filter(~others).num_rows > 0  # it has something to lose
    assert candidates.equals(want.filter(others))
    assert vectors.num_rows == candidates.num_rows, "a vector of each"
    assert vectors.equals(want_vectors.filter(pc.is_in(want_vectors["candidate_id"], candidates["candidate_id"])))
    assert shards.filter(others).equals(want_shards.filter(others))
    died = [row for row in failures.to_pylist() if row["error_type"] == "WorkerDied"]
    assert [row["shard_id"] for row in died] == [DEADLY]
    lost = pc.field("error_type") != "WorkerDied"
    assert failures.filter(lost).equals(want_failures)


@pytest.mark.usefixtures("deadly_shard")
def test_workers_that_are_killed_cost_no_row_and_a_shard_that_always_kills_them_is_a_failure_row(
    tiles, models, reference, tmp_path, rng
):
    """A shard may lose its worker once without harm: to the deadly one beside it, or to a signal from outside."""
    run = tmp_path / "ray"
    with killing(run, rng, at_most=1) as killed:
        result = scan(tiles, run, models, by_ray, shards_per_call=1)
    assert killed
    assert result.exit_code == 3
    check_all_but_the_deadly_shard(run, reference)


@pytest.mark.usefixtures("deadly_shard")
def test_readers_and_scorers_of_their_own_give_the_same_rows_and_outlive_a_deadly_shard(
    tiles, models, reference, tmp_path
):
    run = tmp_path / "ray"
    scan(tiles, run, models, partial(by_ray, n_worker=1, separate_scorers=True), shards_per_call=5)
    check_all_but_the_deadly_shard(run, reference)


def test_scores_vary(reference):
    scores = np.array(reference[0]["score"].to_pylist()[:50], float)
    assert len(np.unique(scores)) == len(scores)
    assert len(np.unique(reference[0]["anomaly_score"].drop_null())) > 50
    assert len(np.unique(reference[0]["ood_quantile"].drop_null())) > 1
