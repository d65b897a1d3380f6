"""Workers of Ray commit to an object store what the plain loop commits to a disk, though the store fails at first."""

import os
from functools import partial

import pyarrow.parquet as pq
import pytest
from killing import tables
from s3_server import BUCKET
from sky import write_tile

from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.store.objects import listed
from lenspipe.store.place import place_at
from lenspipe.survey.layout import read_layout

pytestmark = pytest.mark.usefixtures("ray_local")
CONFIG = ScanConfig.model_validate(
    {"shard": {"core_px": 96, "halo_px": 64}, "score": {"model": "none", "shards_per_call": 1}}
)


@pytest.fixture
def with_credentials(s3, monkeypatch):
    """Workers know the store, as those of a cluster do: the Ray of the session is older than it."""
    from lenspipe.distributed import scan as dist_scan

    known = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} | {"NO_PROXY": "127.0.0.1"}

    class Knowing(dist_scan.ScanShards):
        def __init__(self, *settings):
            os.environ.update(known)
            super().__init__(*settings)

    monkeypatch.setattr(dist_scan, "ScanShards", Knowing)
    return partial(dist_scan.scan_ray, n_worker=2)


def test_a_scan_with_ray_into_a_store_has_the_rows_of_the_plain_loop_on_a_disk(tmp_path, s3, with_credentials):
    for k in range(2):
        write_tile(tmp_path / "tiles", f"t{k}", shape=(100, 150), n_source=6, seed=k)
    request = ScanRequest((str(tmp_path / "tiles"),), read_layout("generic"), CONFIG, None)
    run_scan(request, tmp_path / "plain", here(scan_local), Silent(), resume=False)
    url, refused = f"s3://{BUCKET}/runs/by-ray", set()

    def fail(method, path):  # the first attempt to commit each of two parts
        first = method == "PUT" and "/parts/" in path and path not in refused and len(refused) < 2
        refused.update([path] if first else [])
        return first

    s3.fail = fail
    try:
        with place_at(url, writes=True) as folder:
            run_scan(request, folder, here(with_credentials), Silent(), resume=False)
    finally:
        s3.fail = lambda method, path: False
    assert len(refused) == 2
    with place_at(url, writes=False) as folder:
        for got, want in zip(tables(folder), tables(tmp_path / "plain"), strict=True):
            assert got.equals(want)
        assert pq.read_metadata(folder / "candidates.parquet").num_rows > 5
    assert not any(name.startswith(("attempts", ".lock")) for name in listed(url))
