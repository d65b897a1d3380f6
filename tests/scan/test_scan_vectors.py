"""A scan keeps a vector and an anomaly score per candidate, and a catalogue keeps them beside its rows."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from catalog.catalog_runs import scan, scan_request, write_overlapping_tiles
from click.testing import CliRunner
from small_models import knowing_its_training_set, small_model

from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.similar import most_similar, vector_at
from lenspipe.catalog.vectors import as_numbers, check_same_embedding, vectors_of
from lenspipe.catalog.write import read_tree, write_catalog
from lenspipe.cli.similar import command as similar_command
from lenspipe.cli.train import command as train_command
from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import read_card, write_card
from lenspipe.nn.outputs import Calibration
from lenspipe.rundir import read_json
from lenspipe.scan import finalize
from lenspipe.scan.after.context import context_of
from lenspipe.scan.after.explain import explain
from lenspipe.scan.models import choose_readers
from lenspipe.scan.plan import read_plan, tasks_of
from lenspipe.scan.readers.contract import CutoutKey
from lenspipe.scan.rows import unpack_cutouts
from lenspipe.scan.shard import scan_shard
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.spec import ImageSpec, image_column, stamp_schema
from lenspipe.survey.layout import read_layout

ERRORS = tuple(np.linspace(0.001, 0.5, 50).tolist())


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("vectors")
    write_overlapping_tiles(folder / "tiles")
    asked = {
        "embedder": str(small_model(folder / "embed", "embed", size=8, method="simclr")),
        "anomalies": {"model": str(small_model(folder / "ae", "anomaly", errors=ERRORS, n_normal=50))},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finalize, "GROUP_ROWS", 16)
        scan(folder / "tiles", folder / "run", model=tiny_model, **asked)
    return folder, asked


def test_every_candidate_has_the_vector_and_the_error_of_its_own_cutout(made):
    folder, _ = made
    run = open_run_folder(folder / "run")
    rows = pq.read_table(folder / "run/candidates.parquet")
    assert "embedding" not in rows.column_names and rows["anomaly_score"].null_count == 0
    kept = pq.ParquetFile(folder / "run/embeddings.parquet")
    assert kept.metadata.num_rows == rows.num_rows and kept.metadata.num_row_groups > 3
    vectors = as_numbers(vectors_of(folder / "run/embeddings.parquet", rows["candidate_id"].to_pylist()))
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=2e-3)
    context = context_of(run)
    readers = choose_readers(context.config, run.bands, context.layout).readers
    context = dataclasses.replace(context, attempts=folder / "attempts", models=readers)
    task = tasks_of(read_plan(folder / "run/plan.parquet")[0])[0]
    row = scan_shard(task, context)
    cutouts = unpack_cutouts(row, 0)[CutoutKey(("r", "g"), 21)]
    names = [c["candidate_id"] for c in row["candidates"][0].as_py()]
    place = pc.index_in(names, rows["candidate_id"].combine_chunks()).to_pylist()
    for name in ("embed", "ae"):
        predictor = Predictor(folder / name)
        said = predictor.predict(stamp_input(cutouts, bands=("r", "g"), pixel_scale_arcsec=0.2, card=predictor.card))
        if name == "embed":
            np.testing.assert_array_equal(vectors[place], said.embedding.astype(np.float16))
        else:
            np.testing.assert_array_equal(rows["anomaly_score"].to_numpy()[place], said.error.astype(np.float32))
            rate = rows["anomaly_false_positive_rate"].to_numpy()[place]
            np.testing.assert_allclose(rate, said.false_positive_rate, rtol=1e-6)
            assert 0 < rate.min() < rate.max() <= 1


def test_a_second_look_gives_the_same_bits_of_vector_and_anomaly(made):
    folder, _ = made
    name = pq.read_table(folder / "run/candidates.parquet")["candidate_id"][3].as_py()
    found = explain(open_run_folder(folder / "run"), name)
    assert found.same and len(found.again["embedding"]) == 8 and found.again["anomaly_score"] is not None


def test_a_catalogue_keeps_the_vectors_in_a_tree_of_the_same_pixels_beside_its_rows(made, tiny_model, tmp_path):
    hats = pytest.importorskip("hats")
    from hats.io.validation import is_valid_catalog

    folder, asked = made
    keep = {"radius_arcsec": 1.0, "acronym": "T", "matching": None}
    write_catalog(open_run_folder(folder / "run"), tmp_path / "cat", **keep, max_rows=40)
    write_overlapping_tiles(tmp_path / "more", ra_deg=0.02)
    scan(tmp_path / "more", tmp_path / "run2", model=tiny_model, **asked)
    write_catalog(open_run_folder(tmp_path / "run2"), tmp_path / "cat", **keep, max_rows=40, append=True)
    rows, vectors = tmp_path / "cat/hats", tmp_path / "cat/hats_embedding"
    assert read_pixels(rows) == read_pixels(vectors) and len(read_pixels(rows)) > 1
    catalogue = hats.read_hats(vectors)
    assert "embedding" in catalogue.schema.names and is_valid_catalog(vectors, strict=True)
    runs = {open_run_folder(f).run_id: f for f in (folder / "run", tmp_path / "run2")}
    seen = set()
    for pixel in read_pixels(rows):
        here, there = (pq.read_table(t / "dataset" / pixel.path, partitioning=None) for t in (rows, vectors))
        assert here["candidate_id"].equals(there["candidate_id"]) and here["run_id"].equals(there["run_id"])
        for run_id, run in runs.items():
            of_run = there.filter(pc.equal(there["run_id"], run_id))
            want = vectors_of(run / "embeddings.parquet", of_run["candidate_id"].to_pylist())
            np.testing.assert_array_equal(as_numbers(of_run["embedding"]), as_numbers(want))
            seen |= {run_id} if of_run.num_rows else set()
    assert seen == set(runs)
    flat = pq.read_schema(tmp_path / "cat/candidates.parquet").names
    assert "anomaly_score" in flat and "embedding" not in flat
    assert rows.stat() and sum(f.stat().st_size for f in vectors.rglob("Npix*")) > 0
    name, vector = vector_at(tmp_path / "cat", there["candidate_id"][0].as_py())
    at = f"{there['ra'][0].as_py():.7f},{there['dec'][0].as_py():.7f}"
    assert vector_at(tmp_path / "cat", at)[0] == name
    found = most_similar(tmp_path / "cat", vector, 30)
    everything = read_tree(vectors)
    numbers = as_numbers(everything["embedding"]).astype(float)
    cosine = numbers @ vector / np.linalg.norm(numbers, axis=1) / np.linalg.norm(vector)
    best = np.argsort(-cosine)[:30]
    np.testing.assert_allclose(found["similarity"].to_numpy(), cosine[best], atol=1e-5)
    assert found["candidate_id"][0].as_py() == name and found["similarity"][0].as_py() == pytest.approx(1)
    assert {*found["candidate_id"].to_pylist()} == {*everything["candidate_id"].take(best).to_pylist()}
    told = CliRunner().invoke(similar_command, [at, "--catalog", str(tmp_path / "cat"), "-k", "3"], prog_name="x")
    assert told.exit_code == 0 and name in told.output
    with pytest.raises(ConfigError, match="no row of this identifier"):
        vector_at(tmp_path / "cat", "nobody")
    with pytest.raises(ConfigError, match="has no vectors: scan with --embed"):
        vector_at(tmp_path, "nobody")
    with pytest.raises(ConfigError, match="of another embedding and cannot be compared"):
        check_same_embedding({"embedder": {"digest": "a"}}, [{"embedder": None}, {"embedder": {"digest": "b"}}])


def test_a_stamp_of_any_form_finds_the_candidate_that_it_shows_by_the_model_of_the_catalogue(made, tmp_path):
    folder, asked = made
    run = open_run_folder(folder / "run")
    write_catalog(run, tmp_path / "cat", radius_arcsec=1e-3, acronym="T", matching=None)
    readers = choose_readers(context_of(run).config, run.bands, context_of(run).layout).readers
    context = dataclasses.replace(context_of(run), attempts=tmp_path / "attempts", models=readers)
    row = scan_shard(tasks_of(read_plan(folder / "run/plan.parquet")[0])[0], context)
    stamp = unpack_cutouts(row, 0)[CutoutKey(("r", "g"), 21)][5]
    name = row["candidates"][0].as_py()[5]["candidate_id"]
    np.save(tmp_path / "stamp.npy", stamp * np.float32(10 ** (-0.4 * 31.4)))
    write_stamps(tmp_path / "set", stamp[None].repeat(2, 0) * np.array([1, -1], np.float32)[:, None, None, None])
    planes = [fits.ImageHDU(plane, name=band) for plane, band in zip(stamp, "rg", strict=True)]
    for plane in planes:
        plane.header.update({"BUNIT": "nJy", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -0.2 / 3600})
        plane.header.update({"CD2_2": 0.2 / 3600, "CRVAL1": 0.0, "CRVAL2": 0.0, "CRPIX1": 11.0, "CRPIX2": 11.0})
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "stamp.fits")

    def similar(file, *options):
        target = [str(tmp_path / file), "--catalog", str(tmp_path / "cat"), "--out", str(tmp_path / "found.csv")]
        said = CliRunner().invoke(similar_command, [*target, *options], prog_name="x", standalone_mode=False)
        if said.exception:
            raise said.exception
        return next(csv.DictReader((tmp_path / "found.csv").open()))

    arrays = ("--bands", "r,g", "--pixel-scale", "0.2", "--zero-point-ab", "0")
    for form in (("stamp.npy", *arrays), ("stamp.fits", "--bands", "r,g"), ("set/part-0.parquet", "--row", "s0")):
        best = similar(*form)
        assert best["candidate_id"] == name and float(best["similarity"]) == pytest.approx(1, abs=1e-3), form
    with pytest.raises(ConfigError, match="does not name its bands"):
        similar("stamp.npy")
    with pytest.raises(ModelError, match="needs bands r g; r not among u g"):
        similar("stamp.fits", "--bands", "u,g")
    with pytest.raises(ModelError, match="takes pixels of"):
        similar("stamp.npy", "--bands", "r,g", "--pixel-scale", "1.2")
    with pytest.raises(ConfigError, match="the file says its pixel scale, and it is another"):
        similar("stamp.fits", "--bands", "r,g", "--pixel-scale", "0.3")
    with pytest.raises(ConfigError, match=r"several stamps, or none: name one"):
        similar("set/part-0.parquet")
    with pytest.raises(ConfigError, match="not the model that the catalogue's vectors are of"):
        similar("stamp.fits", "--bands", "r,g", "--model", asked["anomalies"]["model"])
    with pytest.raises(ConfigError, match="these options are about the file of a stamp"):
        similar(name, "--bands", "r,g")


def write_stamps(folder, stamps):
    spec, n = ImageSpec(("r", "g"), stamps.shape[-1], 0.2), len(stamps)
    columns = {"stamp_id": [f"s{i}" for i in range(n)], "image": image_column(stamps, spec), "label": [None] * n}
    columns |= {"recipe": ["made"] * n, "seed": [None] * n, "host": ["h"] * n, "split": [None] * n}
    schema = stamp_schema({"image": spec})
    write_part(pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema), folder, "part-0")


def test_with_substructure_the_same_candidates_are_looked_at_for_anomalies(made, tiny_model, tmp_path):
    folder, asked = made
    calibration = Calibration(method="platt", slope=60.0, prior=0.4, n_lens=4, n_other=6, data="made")
    save = tmp_path / "finder"
    save.mkdir()
    for file in tiny_model.iterdir():
        (save / file.name).write_bytes(file.read_bytes())
    score = np.median(pq.read_table(folder / "run/candidates.parquet")["score"].to_numpy())
    write_card(
        save,
        read_card(save).with_outputs(
            calibration=calibration.model_copy(update={"intercept": -60 * float(np.log(score / (1 - score)))})
        ),
    )
    knowing_its_training_set(save)
    above = {"anomalies": asked["anomalies"] | {"above": 0.5}}
    scan(folder / "tiles", tmp_path / "run", model=save, **above)
    rows = pq.read_table(tmp_path / "run/candidates.parquet")
    all_rows = pq.read_table(folder / "run/candidates.parquet")
    looked = rows["anomaly_score"].is_valid().to_numpy()
    assert 0 < looked.sum() < rows.num_rows and looked[: looked.sum()].all(), "those that score highest"
    want = dict(zip(all_rows["candidate_id"].to_pylist(), all_rows["anomaly_score"].to_pylist(), strict=True))
    told = dict(zip(all_rows["candidate_id"].to_pylist(), all_rows["score"].to_pylist(), strict=True))
    assert [told[i] for i in rows["candidate_id"].to_pylist()] == rows["score"].to_pylist(), "the same bits"
    quantile, known = rows["ood_quantile"].to_numpy(), read_json(tmp_path / "run/run.json")["familiarity"]
    assert 0 < quantile.max() <= np.float32(100 / 101) and quantile.min() < quantile.max()
    assert known["n"] == rows.num_rows and known["n_beyond"] == (quantile >= np.float32(100 / 101)).sum()
    assert "ood_quantile" not in all_rows.column_names
    first = rows.slice(0, int(looked.sum()))
    assert [want[i] for i in first["candidate_id"].to_pylist()] == first["anomaly_score"].to_pylist()


def test_what_cannot_be_done_is_refused_and_an_older_request_stays_the_same(made, tiny_model):
    folder, asked = made
    layout = read_layout("generic")

    def readers(**config):
        request = scan_request(folder / "tiles", model=tiny_model, **config)
        return choose_readers(request.config, ("g", "r", "i"), layout)

    with pytest.raises(ConfigError, match="--embed takes a model of task embed"):
        readers(embedder=asked["anomalies"]["model"])
    with pytest.raises(ConfigError, match="no calibrated finder scores"):
        readers(anomalies=asked["anomalies"] | {"above": 0.5})
    with pytest.raises(ConfigError, match=r"anomalies\.above is about anomalies\.model"):
        readers(anomalies={"above": 0.5})
    plain = scan_request(folder / "tiles").to_json()["config"]
    assert "embedder" not in plain and "anomalies" not in plain


def test_a_training_takes_the_candidates_of_a_scan_as_its_stamps(made, tmp_path):
    folder, _ = made
    run = folder / "run"

    def asked(out, *options):
        always = ["--data", str(run), "--out", str(tmp_path / out), "--runner", "local"]
        return CliRunner().invoke(train_command, [*always, *options])

    embed = ["--task", "embed", "--model", "small-cnn", "--epochs", "1", "--batch-size", "4"]
    found = asked("x", *embed)
    assert found.exit_code != 0 and "say how wide the stamps of the scan are to be" in str(found.exception)
    sets = ("optim.threads=1", "sampling.steps_per_epoch=2", "model.width=2", "input.stamp_px=20")
    found = asked("embed", *embed, *(part for one in sets for part in ("--set", one)))
    assert found.exit_code == 0, found.output
    stamps = StampSet.open(run / "stamps/20px")
    rows = pq.read_table(run / "candidates.parquet", columns=["candidate_id"])["candidate_id"].to_pylist()
    run_id = open_run_folder(run).run_id
    assert set(stamps.column("stamp_id")) <= {f"{run_id}/{name}" for name in rows}
    assert stamps.n > 0.9 * len(rows) and stamps.images["image"].size_px == 20
    assert read_card(tmp_path / "embed").training["n_train"]["stamps"] > 0
    found = asked("knn", "--task", "anomaly", "--method", "knn", "--pretrained", str(tmp_path / "embed"))
    assert found.exit_code == 0, found.output
    outputs = read_card(tmp_path / "knn").outputs
    assert outputs.normal == () and outputs.n_normal > 0
