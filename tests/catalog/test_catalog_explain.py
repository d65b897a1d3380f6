import json
import shutil

import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from catalog_runs import scan
from click.testing import CliRunner
from pictures import drawn
from PIL import Image
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.cli import group
from lenspipe.errors import ConfigError, TileError
from lenspipe.scan.after.explain import explain


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("explain")
    write_tile(folder / "tiles", "a", shape=(300, 300), n_source=20)
    scan(folder / "tiles", folder / "run", model=tiny_model, shard={"core_px": 128, "halo_px": 64})
    return folder / "run"


@pytest.fixture
def red(run):
    """The tile's file in r, which is put back."""
    file = run.parent / "tiles" / "a_r.fits"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)


def ids(run):
    return pq.read_table(run / "candidates.parquet")["candidate_id"].to_pylist()


def test_every_candidate_comes_back_bit_for_bit(run):
    opened = open_run_folder(run)
    for candidate_id in ids(run)[::4]:
        found = explain(opened, candidate_id)
        assert found.same, found.differs
        assert found.again["score"] == found.stored["score"] is not None
        assert found.changed == ()


def test_a_tile_that_changed_is_named_with_the_values_that_differ(run, red):
    with fits.open(red, mode="update") as hdus:
        hdus[0].data *= 1.01
    found = explain(open_run_folder(run), ids(run)[0])
    assert not found.same
    assert "flux_r_njy" in found.differs
    assert any("a_r.fits" in line for line in found.changed)


def test_the_command_draws_a_picture_and_says_that_all_is_the_same(run, tmp_path):
    candidate_id = ids(run)[0]
    call = ["explain", candidate_id, "--run", str(run), "--out", str(tmp_path / "x.png")]
    with drawn():
        result = CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert result.return_value == 0
    assert "bit for bit" in result.output
    assert Image.open(tmp_path / "x.png").size[0] > 1000
    write_catalog(open_run_folder(run), tmp_path / "cat", radius_arcsec=1.0, acronym="LPC", matching=None)
    call = ["explain", candidate_id, "--run", str(tmp_path / "cat"), "--json"]
    result = CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert json.loads(result.output)["same"] is True


def test_a_candidate_that_is_not_there_is_refused(run):
    with pytest.raises(ConfigError, match="no such candidate"):
        explain(open_run_folder(run), "nobody")


def test_a_tile_that_is_gone_is_named(run, red):
    candidate_id = ids(run)[0]
    red.unlink()
    with pytest.raises(TileError, match=r"not there.*a_r\.fits"):
        explain(open_run_folder(run), candidate_id)


def test_a_file_whose_checksum_the_run_never_took_is_not_said_to_have_changed(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["inputs"] = [item for item in record["inputs"] if not item["file"].endswith("a_g.fits")]
    (run / "run.json").write_text(json.dumps(record))
    found = explain(open_run_folder(run), ids(run)[0])
    assert found.same
    assert len(found.changed) == 1 and "did not record" in found.changed[0]
