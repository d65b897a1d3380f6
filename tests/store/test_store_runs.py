"""Runs in an object store: the rows of a run on the disk, whatever fails on the way, and one writer at a time."""

import io
import json
import os

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from s3_server import BUCKET
from sky import write_tile

from lenspipe.cli import group
from lenspipe.errors import ConfigError, DataError, StoreError
from lenspipe.rundir import read_json
from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.ledger import PARTS
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.store import lease, place
from lenspipe.store.lease import Lease, leased
from lenspipe.store.objects import PATIENCE, listed, read_bytes, write_bytes
from lenspipe.store.place import place_at
from lenspipe.survey.layout import read_layout

TABLES = ("candidates", "shards", "failures", "psf")
CONFIG = ScanConfig.model_validate(
    {"shard": {"core_px": 96, "halo_px": 64}, "score": {"model": "none", "shards_per_call": 1}}
)


def scan(tiles, url, *, resume=False):
    with place_at(url, writes=True) as folder:
        return scan_here(tiles, folder, resume=resume)


def scan_here(tiles, folder, *, resume=False):
    request = ScanRequest((str(tiles),), read_layout("generic"), CONFIG, None)
    return run_scan(request, folder, here(scan_local), Silent(), resume=resume)


def table(where, name):
    data = read_bytes(f"{where}/{name}.parquet") if "://" in str(where) else (where / f"{name}.parquet").read_bytes()
    return pq.read_table(io.BytesIO(data))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Tiles, and a run of them on the disk."""
    folder = tmp_path_factory.mktemp("whole")
    for k in range(2):
        write_tile(folder / "tiles", f"t{k}", shape=(100, 150), n_source=6, seed=k)
    scan_here(folder / "tiles", folder / "run")
    return folder


@pytest.fixture(autouse=True)
def kind(request, monkeypatch):
    monkeypatch.setenv(PATIENCE, "0.2")
    yield
    if "s3" in request.fixturenames:
        request.getfixturevalue("s3").fail = lambda method, path: False


def equal(url, whole):
    for name in TABLES:
        ours, theirs = table(url, name), table(whole / "run", name)
        for column in theirs.column_names:
            assert column.endswith("_s") or repr(ours[column].to_pylist()) == repr(theirs[column].to_pylist()), column


def test_a_store_that_fails_in_the_middle_of_a_run_keeps_its_parts_and_the_resumed_run_has_every_row_once(s3, whole):
    url = f"s3://{BUCKET}/runs/broken"
    seen = []

    def fail(method, path):
        if method == "PUT" and "/parts/" in path:
            seen.append(path)
        return len(seen) > 1

    s3.fail = fail
    with pytest.raises(StoreError, match="what was committed is kept"):
        scan(whole / "tiles", url)
    s3.fail = lambda method, path: False
    there = listed(url)
    assert sum(name.startswith(f"{PARTS}/") for name in there) == 1
    assert {"request.json", "plan.parquet", "run.json"} <= there.keys()
    write_bytes(f"{url}/{min(n for n in there if n.startswith(PARTS))}", b"PAR1 damaged")
    lease_of_the_dead(url)
    with pytest.raises(DataError, match="add --resume"):
        scan(whole / "tiles", url)
    result = scan(whole / "tiles", url, resume=True)
    assert result.exit_code == 0
    equal(url, whole)
    there = listed(url)
    assert not any(name.startswith(("attempts", ".lock")) for name in there)
    assert [name for name in there if name.endswith(".damaged")]


def lease_of_the_dead(url):
    gone = {"token": "x", "host": lease._host(), "process": os.getpid(), "began": "an earlier one of this number"}
    write_bytes(f"{url}/.lock", json.dumps(gone).encode())


def test_the_command_leaves_tables_and_catalogue_in_the_store_and_no_secret_anywhere(s3, whole):
    for path in (whole / "tiles").iterdir():
        write_bytes(f"s3://{BUCKET}/tiles/{path.name}", path.read_bytes())
    url = f"s3://{BUCKET}/runs/command"
    words = ["scan", f"s3://{BUCKET}/tiles", "--runner", "local", "--model", "none", "--shard-px", "96", "--out", url]
    found, again = (
        CliRunner().invoke(group, line, standalone_mode=False, catch_exceptions=False)
        for line in ([*words, "--no-catalog"], ["catalog", url, "--out", f"{url}-cat", "--match", "none"])
    )
    assert table(url, "candidates").drop(["candidate_id"]).num_rows == table(whole / "run", "candidates").num_rows
    assert f"{url}/candidates.parquet" in found.output and f"{url}-cat/provenance.json" in again.output
    record = json.loads(read_bytes(f"{url}-cat/provenance.json"))
    assert record["runs"][0]["folder"] == url
    said = found.output + again.output
    for root in (url, f"{url}-cat"):
        for name in listed(root):
            content = read_bytes(f"{root}/{name}")
            rows = str(pq.read_table(io.BytesIO(content)).to_pydict()) if name.endswith(".parquet") else ""
            said += content.decode("latin-1") + rows
    for secret in (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"], place.PREFIX):
        assert secret not in said


def test_a_run_may_be_at_any_url_of_fsspec(whole):
    scan(whole / "tiles", "memory://runs/any")
    equal("memory://runs/any", whole)


def test_one_process_at_a_time_writes_below_a_url(s3, monkeypatch):
    url = f"s3://{BUCKET}/locked"
    with leased(url), pytest.raises(ConfigError, match="another process is working in this folder"):
        Lease(url).take()
    assert not listed(url)
    write_bytes(f"{url}/.lock", json.dumps({"token": "x", "host": "elsewhere", "process": 1, "began": "1"}).encode())
    with pytest.raises(ConfigError, match="another process is working"):
        Lease(url).take()
    monkeypatch.setattr(Lease, "_age_s", lambda self, holder: lease.LEASE_S + 1)
    with leased(url) as mine:
        write_bytes(f"{url}/.lock", json.dumps({"token": "y"}).encode())  # of another, while this process slept
        with pytest.raises(StoreError, match="another process has taken the folder"):
            mine.demand()
    assert json.loads(read_bytes(f"{url}/.lock"))["token"] == "y"


def test_what_says_that_a_folder_is_whole_is_put_last(s3):
    url = f"s3://{BUCKET}/order"
    s3.fail = lambda method, path: method == "PUT" and path.endswith("b.parquet")
    with pytest.raises(StoreError), place_at(url, writes=True) as folder:
        folder.mkdir()
        for name in ("run.json", "a.parquet", "b.parquet"):
            (folder / name).write_text("1")
    s3.fail = lambda method, path: False
    assert set(listed(url)) - {".lock"} == {"a.parquet"}


def test_a_folder_that_is_not_there_is_one_line(s3):
    with pytest.raises(ConfigError, match="nothing at this URL"), place_at(f"s3://{BUCKET}/none", writes=False):
        pass


def test_a_run_on_the_disk_knows_nothing_of_stores(whole):
    assert read_json(whole / "run" / "run.json")["status"] == "done"
    assert place.location(whole / "run") == whole / "run" and place.place_of(whole / "run") is None
