import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord
from mocpy import MOC

from lenspipe.catalog.footprint import footprint, inside, read_footprint, write_footprint

DEG2 = 41252.96125


def shards(boxes, status=None):
    ra = [[a, b, b, a] for a, b, _, _ in boxes]
    dec = [[c, c, d, d] for _, _, c, d in boxes]
    return pa.table(
        {
            "status": status or ["ok"] * len(boxes),
            "corner_ra_deg": pa.array([[x % 360 for x in r] for r in ra], pa.list_(pa.float64(), 4)),
            "corner_dec_deg": pa.array(dec, pa.list_(pa.float64(), 4)),
        }
    )


def test_the_footprint_covers_what_was_searched_and_little_more():
    moc = footprint(shards([(150.0, 150.1, 2.0, 2.1), (150.1, 150.2, 2.0, 2.1)]))
    area = 0.2 * 0.1 * np.cos(np.radians(2.05))
    assert area < moc.sky_fraction * DEG2 < 1.08 * area
    assert inside(moc, np.array([150.001, 150.199]), np.array([2.001, 2.099])).all()


def test_failed_shards_are_not_in_the_footprint():
    moc = footprint(shards([(150.0, 150.1, 2.0, 2.1), (160.0, 160.1, 2.0, 2.1)], ["ok", "failed"]))
    assert inside(moc, np.array([150.05, 160.05]), np.array([2.05, 2.05])).tolist() == [True, False]


def test_a_shard_over_ra_0_does_not_go_around_the_sky():
    moc = footprint(shards([(-0.05, 0.05, -0.05, 0.05)]))
    assert moc.sky_fraction * DEG2 < 0.012
    assert inside(moc, np.array([359.99, 0.01, 180.0]), np.zeros(3)).tolist() == [True, True, False]


def test_nothing_searched_is_an_empty_moc_that_is_written_and_read(tmp_path):
    moc = footprint(shards([(1.0, 2.0, 1.0, 2.0)], ["failed"]))
    write_footprint(moc, tmp_path / "m.fits")
    assert read_footprint(tmp_path / "m.fits").sky_fraction == 0


def test_the_file_is_a_moc_that_mocpy_reads(tmp_path):
    moc = footprint(shards([(150.0, 150.1, 2.0, 2.1)]))
    write_footprint(moc, tmp_path / "m.fits")
    read = MOC.load(tmp_path / "m.fits", format="fits")
    assert read == moc
    assert read.contains_skycoords(SkyCoord([150.05], [2.05], unit="deg")).all()
