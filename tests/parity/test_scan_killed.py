# The short form of benchmarks/kill_resume.py: a driver that is killed and resumed gives the rows of one that was not.

import pytest
from killing import KillPoint, command, kill_at, leftovers, resume, tables
from sky import write_tile

POINTS = [
    KillPoint("plan", 0, 0.0, "local"),
    KillPoint("score", 1, 0.0, "local"),
    KillPoint("commit", 2, 0.0, "local"),
    KillPoint("finalize", 0, 0.0, "local"),
    KillPoint("commit", 1, 0.0, "ray"),  # one by Ray: each starts it twice, a minute; the benchmark has ten
]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "tiles"
    write_tile(folder, "a", shape=(512, 512), n_source=60)
    write_tile(folder, "b", shape=(256, 256), n_source=15, seed=1)
    (folder / "b_r.fits").write_bytes((folder / "b_r.fits").read_bytes()[:100_000])
    return folder


@pytest.fixture(scope="module")
def whole(tiles, tiny_model, tmp_path_factory):
    import subprocess

    out = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(command(tiles, out, tiny_model, "local"), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert tables(out)[1].num_rows >= 16
    return tables(out)


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p.runner}-{p.moment}")
def test_a_killed_and_resumed_scan_has_the_rows_of_an_uninterrupted_one(point, tiles, tiny_model, whole, tmp_path):
    out = tmp_path / "run"
    assert kill_at(point, tiles, out, tiny_model)
    assert resume(tiles, out, tiny_model, point.runner) == 3
    for got, want in zip(tables(out), whole, strict=True):
        assert got.equals(want)
    assert leftovers(out) == []
