"""`lenspipe evaluate` on a denoiser: what changes nothing gains nothing; errors are those of the training's losses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from denoisers import write_denoiser
from evaluate_models_made import make_model
from pictures import drawn

from lenspipe.cli.calibrate import command as calibrate
from lenspipe.cli.evaluate import command
from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judges.denoise import DenoiseJudge
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.spec import ImageSpec, image_column, stamp_schema

N, SIZE, SIGMA = 30, 33, 5.0


def write_stamps(folder: Path, pixels: np.ndarray, order: np.ndarray | None = None) -> Path:
    rows = np.arange(len(pixels)) if order is None else order
    spec = ImageSpec(("g", "r", "i"), SIZE, 0.2)
    table = {
        "stamp_id": [f"s{k}" for k in rows],
        "image": image_column(pixels[rows], spec),
        "label": ["lens"] * len(rows),
        "recipe": ["made"] * len(rows),
        "seed": [0] * len(rows),
        "host": [f"h{k}" for k in rows],
        "split": ["test"] * len(rows),
    }
    write_part(pa.table(table, schema=stamp_schema({"image": spec})), folder, "part")
    return folder


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(3)
    axis = np.arange(SIZE) - SIZE // 2
    galaxy = 900 * np.exp(-(axis**2 + axis[:, None] ** 2) / 18)
    return (galaxy + rng.normal(0, SIGMA, (N, 3, SIZE, SIZE))).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    return write_stamps(tmp_path_factory.mktemp("stamps"), pixels)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("denoisers")
    made = {"odd": write_denoiser(folder / "odd"), "calm": folder / "calm"}
    module, card = load_model(made["odd"])
    torch.nn.init.zeros_(module.get_parameter("noise.weight"))
    save_model(made["calm"], module, card.model_copy(update={"name": "calm"}))
    return made


def run(*args: object) -> str:
    result = CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_errors_are_those_of_the_training_s_losses(data: Path, models: dict[str, Path]) -> None:
    from lenspipe.learn.denoise.losses import huber, l1

    stamps, rows = StampSet.open(data), []
    (member,) = open_members([models["odd"]], stamps, device="cpu")
    judge = judged([member], stamps, JudgeSettings(), on_rows=rows.append)
    found = judge.metrics()["tiny-denoiser"]
    assert found["ratio"] == 4
    assert isinstance(judge, DenoiseJudge)
    pairs = judge._pairs(stamps.read_images("image", np.arange(N)), np.array([f"s{k}" for k in range(N)], object))
    module, _ = load_model(models["odd"])
    with torch.inference_mode():
        seen = torch.from_numpy(np.concatenate([pairs.short, np.full((N, 1, SIZE, SIZE), 4, np.float32)], axis=1))
        batch = {"target": torch.from_numpy(pairs.deep), "gain": torch.full((N, 1, 1, 1), 0.75)}
        for name, loss in (("l1", l1), ("huber", huber)):
            assert found[name] == pytest.approx(float(loss(module(seen), batch)), rel=1e-5)
            assert found[f"{name}_of_input"] == pytest.approx(float(loss(seen[:, :3], batch)), rel=1e-5)
    table = pa.concat_tables(rows)
    assert table.num_rows == N and np.mean(table["l1"].to_numpy()) == pytest.approx(found["l1"], rel=1e-6)


def test_the_short_exposure_has_the_noise_that_its_ratio_says(data: Path, models: dict[str, Path]) -> None:
    """Noise added: variance (ratio - 1) times the stamp's own, and a ratio of it in units of the short one's."""
    stamps = StampSet.open(data)
    judge = judged(open_members([models["odd"]], stamps, device="cpu"), stamps, JudgeSettings())
    found = judge.metrics()["tiny-denoiser"]
    sigma = np.sqrt(3 / 4) / 0.75
    assert found["l1_of_input"] == pytest.approx(sigma * np.sqrt(2 / np.pi), rel=0.02)
    assert found["psnr_db_of_input"] == pytest.approx(40 - 10 * np.log10(3 / 4), abs=0.1)
    assert sum(row["n_pixel"] for row in found["by_snr"]) == N * 3 * SIZE**2
    assert found["by_snr"][-1]["n_pixel"] > 0 and found["by_snr"][-1]["high"] is None


def test_the_order_of_the_stamps_does_not_matter(
    pixels: np.ndarray, data: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    turned = write_stamps(tmp_path / "turned", pixels, np.arange(N)[::-1])
    found = []
    for folder in (data, turned):
        rows: list[pa.Table] = []
        stamps = StampSet.open(folder)
        judged(open_members([models["odd"]], stamps, device="cpu"), stamps, JudgeSettings(), on_rows=rows.append)
        found.append(pa.concat_tables(rows).sort_by("stamp_id"))
    np.testing.assert_allclose(found[0]["l1"].to_numpy(), found[1]["l1"].to_numpy(), rtol=1e-5)


def test_a_report_has_the_table_the_pictures_and_the_row(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    with drawn():
        said = run(models["odd"], models["calm"], "--data", data, "--out", tmp_path / "out")
    assert "gain, dB" in said and "30 stamps with 1/4 of their exposure" in said
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["task"] == "denoise" and "by_snr" not in record and "by_snr" in record["models"][1]["metrics"]
    odd, calm = (model["metrics"] for model in record["models"])
    assert calm["l1_over_input"]["value"] != odd["l1_over_input"]["value"]
    rows = list(csv.DictReader((tmp_path / "out" / "models.csv").open()))
    assert [row["model"] for row in rows] == ["tiny-denoiser", "calm"]
    assert float(rows[0]["huber_over_input"]) == pytest.approx(odd["huber_over_input"]["value"])
    assert sorted(path.name for path in (tmp_path / "out" / "plots").iterdir()) == ["errors.png", "stamps.png"]
    assert min(path.stat().st_size for path in (tmp_path / "out" / "plots").iterdir()) > 3000
    text = (tmp_path / "out" / "report.html").read_text()
    assert "By signal-to-noise of the pixel" in text and text.count("data:image/png;base64,") == 2
    table = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert table.num_rows == 2 * N and set(table.column_names) >= {"model", "stamp_id", "l1", "huber_of_input"}


def test_what_changes_nothing_gains_nothing(
    data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = StampSet.open(data)
    members = open_members([models["odd"]], stamps, device="cpu")
    monkeypatch.setattr(members[0].predictor, "denoise", lambda images, rms, *, ratio, mask: images)
    found: dict[str, Any] = judged(members, stamps, JudgeSettings()).metrics()["tiny-denoiser"]
    assert found["l1_over_input"]["value"] == 1 and found["l1_over_input"]["interval95"] == pytest.approx([1, 1])
    assert found["gain_db"] == 0 and found["huber"] == found["huber_of_input"]
    assert all(row["l1"] == row["l1_of_input"] for row in found["by_snr"])


def test_stamps_without_data_are_left_out_and_masked_pixels_do_not_count(
    pixels: np.ndarray, models: dict[str, Path], tmp_path: Path
) -> None:
    holes = pixels.copy()
    holes[0, 1] = 0
    holes[1, :, :4] = 0
    stamps = StampSet.open(write_stamps(tmp_path / "holes", holes))
    found = judged(open_members([models["odd"]], stamps, device="cpu"), stamps, JudgeSettings()).metrics()
    m = found["tiny-denoiser"]
    assert (m["n"], m["n_left_out"]) == (N - 1, 1)
    assert sum(row["n_pixel"] for row in m["by_snr"]) == (N - 1) * 3 * SIZE**2 - 3 * 4 * SIZE
    empty = StampSet.open(write_stamps(tmp_path / "empty", np.zeros_like(pixels)))
    with pytest.raises(DataError, match="no noise to measure"):
        judged(open_members([models["odd"]], empty, device="cpu"), empty, JudgeSettings()).metrics()


def test_what_is_of_finders_is_refused(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    one = [models["odd"], "--data", data, "--out", tmp_path / "out"]
    for options, message in ((["--audit"], "numbers per stamp"), (["--views", "mean"], "for finders")):
        with pytest.raises(ConfigError, match=message):
            run(*one[:-1], tmp_path / message, *options)
    other = write_denoiser(tmp_path / "two-bands", bands=("g", "r"))
    with pytest.raises(ConfigError, match="different bands"):
        run(models["odd"], other, *one[1:])
    finder = make_model(tmp_path / "finder", [[0, 1, 0, 0]], pixel_scale_arcsec=0.2, stamp_px=33)
    with pytest.raises(ConfigError, match="one task"):
        run(models["odd"], finder, *one[1:])
    with pytest.raises(ConfigError, match="fitted on held-out stamps"):
        CliRunner().invoke(calibrate, [str(models["odd"]), "--data", str(data)], catch_exceptions=False)
