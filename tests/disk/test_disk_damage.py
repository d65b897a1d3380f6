"""A run of which one file is damaged: noticed, named, and what can be made again is."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli.scan import command
from lenspipe.errors import ConfigError, DataError, LenspipeError
from lenspipe.scan.ledger import part_files


def scan(tiles, out, *args):
    arguments = [str(tiles), "--runner", "local", "--model", "none", "--no-catalog", "--out", str(out), *args]
    return CliRunner().invoke(command, arguments, standalone_mode=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    write_tile(folder / "tiles", "a", bands="r", shape=(90, 90), n_source=5)
    assert scan(folder / "tiles", folder / "run").return_value == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def flip(path, at):
    """A bit at a part of the file; at "page N", in the last byte of what the N-th column holds."""
    raw = bytearray(path.read_bytes())
    if isinstance(at, str):
        column = pq.read_metadata(path).row_group(0).column(int(at.split()[1]))
        first = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        place = first + column.total_compressed_size - 1
    else:
        place = int(at * len(raw))
    raw[place] ^= 4
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("at", ["page 0", "page 7", 0.05, 0.4, 0.97])
def test_a_part_with_a_flipped_bit_is_named_and_scanned_again_on_resume(finished, run, at):
    want = pq.read_table(finished / "run/candidates.parquet").drop_columns(["model"])
    (part,) = part_files(run / "parts")
    flip(part, at)
    again = scan(finished / "tiles", run, "--resume")
    assert again.return_value == 0, again.exception
    assert pq.read_table(run / "candidates.parquet").drop_columns(["model"]).equals(want)
    if isinstance(at, str):  # what no checksum covers, such as the bounds in a page's header, changes no row
        assert f"{part.name} is damaged" in again.output
        assert (run / "parts" / f"{part.name}.damaged").exists()


def test_a_damaged_plan_is_made_again_on_resume(finished, run):
    want = pq.read_table(run / "plan.parquet")
    flip(run / "plan.parquet", 0.2)
    assert scan(finished / "tiles", run, "--resume").return_value == 0
    assert pq.read_table(run / "plan.parquet").equals(want)


@pytest.mark.parametrize("name", ["request.json", "run.json"])
def test_damaged_json_of_a_run_is_made_again_on_resume(finished, run, name):
    want = json.loads((run / name).read_text())
    (run / name).write_bytes(json.dumps({"a": 1}).encode()[:-3])
    assert scan(finished / "tiles", run, "--resume").return_value == 0
    made = json.loads((run / name).read_text())
    assert made == want if name == "request.json" else made["request"] == want["request"]


def test_a_request_of_which_nothing_is_left_is_one_line_that_names_the_file(finished, run):
    for name in ("request.json", "run.json"):
        (run / name).write_text("{")
    found = scan(finished / "tiles", run, "--resume")
    assert isinstance(found.exception, LenspipeError), found.exc_info
    assert "request.json" in str(found.exception) and "\n" not in str(found.exception)


def test_a_record_that_is_json_and_says_nothing_is_one_line_that_names_what_is_missing(run):
    (run / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"damaged, or of another program: Field required.*key='status'"):
        open_run_folder(run)


def test_a_table_of_others_without_a_column_is_one_line(run):
    plan = pq.read_table(run / "plan.parquet")
    pq.write_table(plan.drop_columns(["window"]), run / "plan.parquet")
    with pytest.raises(DataError, match="lacks a column of boxes"):
        open_run_folder(run)
    pq.write_table(plan.drop_columns(["files"]), run / "plan.parquet")
    with pytest.raises(DataError, match=r"lacks a column.*column='files'"):
        open_run_folder(run)


def test_our_tables_carry_page_checksums(run):
    for path in (run / "candidates.parquet", run / "shards.parquet", run / "plan.parquet", *part_files(run / "parts")):
        chunk = pq.read_metadata(path).row_group(0).column(0)
        end = chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset
        flip(path, (end + chunk.total_compressed_size - 0.5) / path.stat().st_size)
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(path, page_checksum_verification=True)
