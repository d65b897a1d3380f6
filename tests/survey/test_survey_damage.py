"""Damaged and crafted FITS files: noticed, in one error, in little time and memory."""

import gzip
import os
import time

import numpy as np
import pytest
from astropy.io import fits
from sky import write_tile

from lenspipe.catalog.votable import write_fits
from lenspipe.errors import TileError
from lenspipe.survey import structure
from lenspipe.survey.files import find_files, image_hdu, open_fits
from lenspipe.survey.layout import read_layout
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.structure import RECORD, structure_of
from lenspipe.survey.tile import group_tiles

GENERIC = read_layout("generic")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of one tile: plain, with checksums, compressed."""
    folder = tmp_path_factory.mktemp("whole")
    write_tile(folder, "a", bands="r", shape=(70, 80))
    plain = (folder / "a_r.fits").read_bytes()
    with fits.open(folder / "a_r.fits") as hdus:
        hdus.writeto(folder / "sums.fits", checksum=True)
    write_tile(folder, "b", bands="r", shape=(70, 80), suffix=".fits.fz", compress=True)
    return {"": plain, "sums": (folder / "sums.fits").read_bytes(), "fz": (folder / "b_r.fits.fz").read_bytes()}


def read(path, **layout):
    layout = GENERIC.model_copy(update=layout)
    (tile,) = group_tiles(find_files([str(path)]), layout)
    facts = read_facts(tile, layout, assumed_zero_point_ab=None)
    return read_window(tile, facts, layout, Box(0, 0, facts.shape[1], facts.shape[0])).image


def card(raw, key, text):
    """Bytes of a file in which a card has another value."""
    at = raw.index(f"{key:<8}=".encode())
    return raw[: at + 9] + f" {text}".ljust(71).encode()[:71] + raw[at + 80 :]


def flipped(raw, at, bit=2):
    return raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_flipped_bit_of_a_gzipped_file_is_an_error_wherever_it_is(tmp_path, whole, at):
    packed = gzip.compress(whole[""])
    (tmp_path / "a_r.fits.gz").write_bytes(flipped(packed, int(at * len(packed))))
    with pytest.raises(TileError, match="cannot be read"):
        read(tmp_path)


def test_a_flipped_bit_behind_the_last_row_that_is_read_is_an_error_too(tmp_path, whole):
    packed = gzip.compress(whole[""])
    (tmp_path / "a_r.fits.gz").write_bytes(flipped(packed, len(packed) - 6))  # of the CRC itself
    with pytest.raises(TileError, match="gzip says CRC"):
        read(tmp_path)


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("where", ["data", "header"])
def test_checksums_show_a_flipped_bit(tmp_path, whole, packing, where):
    raw = whole["sums"]
    at = len(raw) - RECORD - 1000 if where == "data" else raw.index(b"30.0", raw.index(b"CRVAL1  ="))
    raw = flipped(raw, at, 0)
    (tmp_path / f"a_r.fits{packing}").write_bytes(gzip.compress(raw) if packing else raw)
    with pytest.raises(TileError, match="DATASUM" if where == "data" else "CHECKSUM"):
        read(tmp_path)
    assert read(tmp_path, checksums="none").shape == (1, 70, 80)


def test_a_header_that_was_edited_since_is_not_damage_unless_one_says_so(tmp_path, whole):
    (tmp_path / "a_r.fits").write_bytes(card(whole["sums"], "BUNIT", "'nJy     '           / said anew by hand"))
    read(tmp_path)
    with pytest.raises(TileError, match=r"CHECKSUM does not agree .* edited"):
        read(tmp_path, checksums="any")


def test_the_sums_of_a_larger_image_in_a_cut_out_are_not_damage(tmp_path, whole):
    with fits.open(_write(tmp_path / "whole.fits", whole["sums"])) as hdus:
        header = hdus[0].header.copy()
        sums = {key: header[key] for key in ("DATASUM", "CHECKSUM")}
        cut = fits.PrimaryHDU(hdus[0].data[:50, :50], header)
    cut.header.update(sums)
    (tmp_path / "in").mkdir()
    cut.writeto(tmp_path / "in/a_r.fits")
    assert read(tmp_path / "in").shape == (1, 50, 50)


def test_our_own_tables_carry_checksums_that_astropy_finds_right(tmp_path, recwarn):
    import pyarrow as pa

    for n in (0, 1, 701):
        table = pa.table({"a": np.arange(n, dtype=np.int32), "b": [f"w{k}" for k in range(n)]})
        table = table.cast(pa.schema([("a", pa.int32()), ("b", pa.string())]))
        write_fits(table, tmp_path / "t.fits", name="t", facts={"run": "x"})
        with fits.open(tmp_path / "t.fits", checksum=True) as hdus:
            assert [hdu._checksum_valid for hdu in hdus] == [1, 1]
            assert len(hdus[1].data) == n
    assert not [w for w in recwarn if "hecksum" in str(w.message)]


def test_a_pipe_in_the_place_of_a_file_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "a_r.fits")
    with pytest.raises(TileError, match="it is not a file"):
        structure_of(str(tmp_path / "a_r.fits"))


def test_why_a_packed_file_is_damaged_is_found_once_until_it_changes(tmp_path, whole, monkeypatch):
    packed = gzip.compress(whole[""])
    file = str(_write(tmp_path / "a_r.fits.gz", packed[:-8]))
    opened = []
    monkeypatch.setattr(structure, "_unpacked", lambda *a, of=structure._unpacked: opened.append(1) or of(*a))
    for _ in range(3):
        with pytest.raises(TileError, match="gzip says"):
            structure_of(file)
    assert len(opened) == 1
    _write(tmp_path / "a_r.fits.gz", packed)
    assert structure_of(file).packed == "gzip"


def _write(path, raw):
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [
        ("", "NAXIS1", "1000000000"),
        ("", "NAXIS2", "99999999999999999999"),
        ("", "NAXIS1", "-5"),
        ("", "NAXIS", "98765432"),
        ("", "BITPIX", "7"),
        ("fz", "TTYPE1", "0"),
        ("fz", "ZTILE1", "0"),
        ("fz", "ZTILE1", "99999999999"),
        ("fz", "TFIELDS", "99999999999999999999"),
        ("fz", "ZNAXIS1", "2000000000"),
        ("fz", "ZNAXIS2", "0"),
        ("fz", "PCOUNT", "99999999999"),
        ("fz", "ZCMPTYPE", "'RICE_9  '"),
        ("fz", "ZBITPIX", "'a       '"),
        ("fz", "TFORM1", "'1Q(1)   '"),
        ("fz", "ZVAL1", "0"),
        ("fz", "ZNAME1", "99999999999999"),
        ("fz", "ZNAME2", "99999999999999999999999999999999999999"),
    ],
)
def test_a_header_that_says_what_cannot_be_is_one_error_at_once(tmp_path, whole, kind, key, text):
    raw = whole[kind]
    if f"{key:<8}=".encode() not in raw:
        raw = raw.replace(b"GCOUNT  =", f"{key:<8}=".encode(), 1) if kind else raw
    (tmp_path / f"a_r.fits{'.fz' if kind else ''}").write_bytes(card(raw, key, text))
    begun = time.perf_counter()
    with pytest.raises(TileError, match=r"cannot be read|no two-dimensional image|no pixels"):
        read(tmp_path)
    assert time.perf_counter() - begun < 2


def test_zeros_behind_an_image_are_not_searched(tmp_path, whole):
    path = tmp_path / "a_r.fits"
    path.write_bytes(whole[""])
    with path.open("r+b") as stream:
        stream.truncate(3 << 30)  # sparse
    begun = time.perf_counter()
    assert read(tmp_path).shape == (1, 70, 80)
    with open_fits(str(path)) as hdus:
        assert image_hdu(hdus, None, file="a").shape == (70, 80)
    assert time.perf_counter() - begun < 2


def test_a_bomb_ends_at_a_limit_that_can_be_raised(tmp_path, whole):
    packed = gzip.compress(whole[""]) + gzip.compress(bytes(60_000_000), 1)
    (tmp_path / "a_r.fits.gz").write_bytes(packed)
    with pytest.raises(TileError, match=r"more than 0.02 GB.*unpacked_gb_max"):
        read(tmp_path, unpacked_gb_max=0.02)
    assert read(tmp_path, unpacked_gb_max=0.1).shape == (1, 70, 80)
    huge = card(whole[""], "NAXIS2", "3000000000000")
    (tmp_path / "a_r.fits.gz").write_bytes(gzip.compress(huge))
    with pytest.raises(TileError, match="more than 8 GB"):
        read(tmp_path)


def test_a_header_that_speaks_of_far_more_than_the_file_holds_is_refused_when_it_is_planned(tmp_path, whole):
    (tmp_path / "a_r.fits").write_bytes(card(whole[""], "NAXIS2", "3000000"))
    with pytest.raises(TileError, match="bytes and its header speaks of"):
        read_facts(group_tiles(find_files([str(tmp_path)]), GENERIC)[0], GENERIC, assumed_zero_point_ab=None)


def test_a_layout_of_before_is_in_json_what_it_was_and_what_is_said_of_damage_is_there():
    before, said = read_layout("generic"), read_layout("generic").model_copy(update={"checksums": "none"})
    assert not {"checksums", "unpacked_gb_max"} & before.model_dump(mode="json").keys()
    assert said.model_dump(mode="json")["checksums"] == "none"
    assert type(before).model_validate(before.model_dump(mode="json")) == before


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """
    Compressed images that carry ZDATASUM and ZHECKSUM of what they were, as fpack leaves them, by kind of pixels.

    The cards are those of the convention: the sums that astropy writes of the plain image, under their other names.
    """
    folder, rng, made = tmp_path_factory.mktemp("z"), np.random.default_rng(3), {}
    for kind, codec in (("i4", "RICE_1"), ("i2", "GZIP_2"), ("f4", "GZIP_1")):
        image = rng.normal(0, 40, (70, 80)).astype(kind)
        write_tile(folder, "a", bands="r", shape=(70, 80))
        head = fits.getheader(folder / "a_r.fits")
        fits.PrimaryHDU(image, head).writeto(folder / "plain.fits", checksum=True)
        plain = fits.getheader(folder / "plain.fits")
        (folder / "plain.fits").unlink()
        (folder / "a_r.fits").unlink()
        image_hdu = fits.CompImageHDU(image, head, compression_type=codec, quantize_level=0 if kind == "f4" else 16)
        fits.HDUList([fits.PrimaryHDU(), image_hdu]).writeto(folder / "a.fz")
        with fits.open(folder / "a.fz", disable_image_compression=True) as hdus:
            table = hdus[1].header
            for key in [key for key in table if key in ("ZSIMPLE", "ZEXTEND", "ZTENSION", "ZPCOUNT", "ZGCOUNT")]:
                del table[key]
            for key, name in (("SIMPLE", "ZSIMPLE"), ("EXTEND", "ZEXTEND")):
                if key in plain:
                    table.set(name, plain[key], plain.comments[key])
            for key in ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2"):
                table[f"Z{key}"] = (plain[key], plain.comments[key])
            table["ZHECKSUM"] = (plain["CHECKSUM"], plain.comments["CHECKSUM"])
            table["ZDATASUM"] = (plain["DATASUM"], plain.comments["DATASUM"])
            hdus.writeto(folder / "b.fz")
        made[kind] = (folder / "b.fz").read_bytes()
        (folder / "a.fz").unlink()
        (folder / "b.fz").unlink()
    return made


@pytest.mark.parametrize("kind", ["i4", "i2", "f4"])
def test_the_sum_of_an_image_before_it_was_compressed_is_compared_where_nothing_else_guards_it(
    tmp_path, originals, kind
):
    raw = originals[kind]
    read(_write(tmp_path / "a_r.fits.fz", raw), checksums="any")
    told = raw.replace(b"ZDATASUM= '", b"ZDATASUM= '9", 1)  # another sum, as of a larger image
    at = told.index(b"ZDATASUM= '") + 80
    _write(tmp_path / "a_r.fits.fz", told[:at] + told[at + 1 :])
    read(tmp_path / "a_r.fits.fz")
    with pytest.raises(TileError, match="ZDATASUM"):
        read(tmp_path / "a_r.fits.fz", checksums="any")


def test_pixels_that_changed_below_the_header_that_their_sums_were_written_for_are_damage(tmp_path, originals):
    with fits.open(_write(tmp_path / "whole.fz", originals["i4"]), disable_image_compression=True) as hdus:
        header, rows = hdus[1].header.copy(), hdus[1].data
        image = np.asarray(fits.getdata(tmp_path / "whole.fz")).copy()
        image[30, 40] += 3
        other = fits.CompImageHDU(image, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), other]).writeto(tmp_path / "other.fz")
        assert len(rows) == 70
    (tmp_path / "whole.fz").unlink()
    with fits.open(tmp_path / "other.fz", disable_image_compression=True) as hdus:
        for key in ("PCOUNT", "TFORM1"):
            header[key] = hdus[1].header[key]
        fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(hdus[1].data, header)]).writeto(tmp_path / "a_r.fits.fz")
    with pytest.raises(TileError, match="ZDATASUM does not agree with the file: it was damaged"):
        read(tmp_path / "a_r.fits.fz")
    assert read(tmp_path / "a_r.fits.fz", checksums="none").shape == (1, 70, 80)
