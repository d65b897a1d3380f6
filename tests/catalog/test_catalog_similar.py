"""Likeness in a catalogue: exact by all vectors, or by an index whose recall is measured."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from lenspipe.catalog.columns import HEALPIX, RUN_ID
from lenspipe.catalog.gallery.likeness import likeness_of
from lenspipe.catalog.hats import Pixel, write_metadata, write_pixel
from lenspipe.catalog.index import build_index, facts_of, files_of, most_similar_by_index
from lenspipe.catalog.similar import blocks_of, most_similar, nearest, vector_at
from lenspipe.catalog.write import read_tree
from lenspipe.cli.similar import command as similar_command
from lenspipe.errors import ConfigError
from lenspipe.schema import embedding_field, measured_fields
from lenspipe.sky.healpix import healpix29

SIZE, PER_PIXEL, PIXELS = 16, 700, (Pixel(1, 3), Pixel(1, 4), Pixel(1, 9))


def write_catalogue(folder, vectors, pixels=PIXELS):
    keys = [f for f in measured_fields(("r",)) if f.name in ("candidate_id", "ra", "dec", "score")]
    schema = pa.schema([pa.field(HEALPIX, pa.int64()), *keys, RUN_ID])
    with_vectors = schema.append(embedding_field(SIZE))
    for tree in ("hats", "hats_embedding"):
        for k, pixel in enumerate(pixels):
            n, first = PER_PIXEL, k * PER_PIXEL
            columns = {
                HEALPIX: pixel.span[0] + np.arange(n),
                "candidate_id": [f"c{first + i}" for i in range(n)],
                "ra": np.full(n, 10.0),
                "dec": np.linspace(-1, 1, n),
                "score": np.linspace(0, 1, n),
                "run_id": ["r"] * n,
            }
            rows = pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
            if tree == "hats_embedding":
                flat = pa.array(vectors[first : first + n].ravel())
                rows = rows.append_column(with_vectors.field(-1), pa.FixedSizeListArray.from_arrays(flat, SIZE))
            write_pixel(folder / tree / "dataset", pixel, rows)
        write_metadata(folder / tree, with_vectors if "_" in tree else schema, list(pixels), name="t")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    rng, n = np.random.default_rng(3), PER_PIXEL * len(PIXELS)
    vectors = np.tanh(rng.normal(size=(n, 4)) @ rng.normal(size=(4, SIZE))) + rng.normal(0, 0.1, (n, SIZE))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[[5, 900]] = np.nan
    vectors[[1200, 30, 31]] = vectors[7]
    folder = tmp_path_factory.mktemp("cat") / "cat"
    write_catalogue(folder, vectors)
    return folder, vectors, build_index(folder, threads=1)


def test_the_nearest_are_those_of_all_pairs_whatever_the_blocks_and_of_equals_the_earlier(sky):
    folder, vectors, _ = sky
    asked = vectors[[7, 400]].astype(np.float32)
    whole = vectors.astype(np.float64)
    cosine = asked @ whole.T / np.linalg.norm(whole, axis=1) / np.linalg.norm(asked, axis=1, keepdims=True)
    want = np.sort(np.nan_to_num(cosine, nan=-2), axis=1)[:, ::-1][:, :50]
    for block in (64, 699, 10_000):
        rows, cosines = nearest(blocks_of(folder, block=block), asked, 50)
        np.testing.assert_allclose(cosines, want, atol=1e-6)
        assert rows[0, :4].tolist() == [7, 30, 31, 1200] and not {5, 900} & set(rows.ravel())
    every, _ = nearest(blocks_of(folder), asked, len(vectors))
    assert every.shape == (2, len(vectors) - 2), "those without a vector are no neighbours"
    assert most_similar(folder, vectors[400], 2)["candidate_id"][0].as_py() == "c400"


def test_an_index_gives_nearly_the_same_rows_with_exact_cosines_and_says_how_nearly(sky):
    folder, vectors, facts = sky
    assert facts_of(folder) == json.loads((folder / "hats_embedding_index/index.json").read_text()) == facts
    assert facts["rows"] == len(vectors) and facts["vectors"] == len(vectors) - 2
    assert 0.98 < facts["recall"] <= 1 and facts["recall_of"] == 100
    exact, near = (ask(folder, vectors[400], 40).to_pylist() for ask in (most_similar, most_similar_by_index))
    ids = [row["candidate_id"] for row in exact]
    assert near[0]["candidate_id"] == "c400" and len({row["candidate_id"] for row in near} & set(ids)) >= 38
    told = {row["candidate_id"]: row["similarity"] for row in exact}
    assert all(row["similarity"] == pytest.approx(told.get(row["candidate_id"], row["similarity"])) for row in near)
    arguments = ["c400", "--catalog", str(folder), "-k", "3"]
    said = CliRunner().invoke(similar_command, [*arguments, "--approximate"], prog_name="x").output
    assert "of the true" in said and "c400" in said
    assert "of the true" not in CliRunner().invoke(similar_command, arguments, prog_name="x").output


def test_recall_is_that_of_a_graph_that_lacks_half_of_the_rows(sky, tmp_path, monkeypatch):
    from usearch.index import Index

    add = Index.add
    monkeypatch.setattr(Index, "add", lambda self, keys, rows, **how: add(self, keys[::2], rows[::2], **how))
    write_catalogue(tmp_path / "cat", sky[1])
    facts = build_index(tmp_path / "cat", threads=1)
    assert facts["recall"] == pytest.approx(0.5, abs=0.06)


def test_an_index_of_other_vectors_is_refused_and_one_that_was_only_copied_is_read_once(sky, tmp_path, monkeypatch):
    folder, vectors, facts = sky
    write_catalogue(tmp_path / "cat", vectors)
    (tmp_path / "cat/hats_embedding_index").mkdir()
    for file in ("graph.usearch", "index.json"):
        (tmp_path / "cat/hats_embedding_index" / file).write_bytes(
            (folder / "hats_embedding_index" / file).read_bytes()
        )
    checksums = [{name: file["sha256"] for name, file in found.items()} for found in (facts["files"], files_of(folder))]
    assert checksums[0] == checksums[1], "only the times differ"
    assert facts_of(tmp_path / "cat") == facts | {"files": files_of(tmp_path / "cat")}
    with monkeypatch.context() as patched:
        patched.setattr("lenspipe.catalog.index._sha256", lambda path: pytest.fail("read again"))
        assert facts_of(tmp_path / "cat")["recall"] == facts["recall"]
    write_catalogue(tmp_path / "cat", np.where(np.arange(SIZE) == 3, np.float16(-0.5), vectors))
    with pytest.raises(ConfigError, match="of other vectors than the catalogue has now; build it anew by --reindex"):
        facts_of(tmp_path / "cat")


def test_a_position_is_looked_for_in_the_pixels_around_it_alone(tmp_path):
    pixels = (Pixel(1, 4), Pixel(1, 9), Pixel(1, 17))
    assert (healpix29(np.array([10.0, 10.0]), np.array([-1.0, 1.0])) >> 56).tolist() == [17, 17]
    write_catalogue(tmp_path / "cat", np.ones((PER_PIXEL * 3, SIZE), np.float16), pixels)
    for pixel in pixels[:2]:
        (tmp_path / "cat/hats_embedding/dataset" / pixel.path).write_bytes(b"not read")
    assert vector_at(tmp_path / "cat", "10.0,0.0", radius_arcsec=6.0)[0] in ("c1749", "c1750")
    with pytest.raises(ConfigError, match="no row within 6 arcsec"):
        vector_at(tmp_path / "cat", "10.0,45.0", radius_arcsec=6.0)


def test_a_page_knows_the_nearest_of_its_own_rows_and_where_they_lie_on_the_map(sky):
    folder, vectors, _ = sky
    chosen = np.random.default_rng(1).permutation(len(vectors))[:300]
    chosen[:2] = 5, 900  # without a vector
    rows = read_tree(folder / "hats").take(chosen)
    said = likeness_of(folder, rows, method="pca")
    whole = vectors[chosen].astype(np.float64)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    cosine = np.nan_to_num(whole @ whole.T, nan=-3) - 9 * np.eye(300)
    best = np.sort(cosine, axis=1)[:, ::-1][2:, :24]
    np.testing.assert_allclose(np.take_along_axis(cosine, said.near, 1)[2:], best, atol=1e-6)
    assert (said.near[:2] == -1).all() and np.isnan(said.place[:2]).all()
    centred = whole[2:] - whole[2:].mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[0][:, :2]
    there = said.place[2:]
    inside = ((there > 0.001) & (there < 0.999)).all(axis=1)
    for k in (0, 1):
        assert abs(np.corrcoef(there[inside, k], axes[inside, k])[0, 1]) > 0.9999
    with pytest.raises(ConfigError, match=r"pip install 'lenspipe\[map\]'"), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openTSNE", None)
        likeness_of(folder, rows, method="tsne")


def test_without_the_extra_one_line_says_what_to_install(sky, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    with pytest.raises(ConfigError, match=r"pip install 'lenspipe\[index\]'"):
        build_index(sky[0])
