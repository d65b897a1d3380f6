"""A model as ONNX: ONNX Runtime gives torch's scores, by the file alone and as the engine of a scan."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli import group
from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.engine import OnnxSession
from lenspipe.infer.prepare import prepare_stamps
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import ModelCard, digest, find_model
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.export import plain_card
from lenspipe.nn.registry import build
from lenspipe.scan.after.explain import explain

RNG = np.random.default_rng(8)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(group, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def card_of(family: str, settings: dict[str, Any], px: int = 33) -> ModelCard:
    return ModelCard(
        name=family, family=family, settings=settings, bands=("g", "r"), pixel_scale_arcsec=0.2, scale_tolerance=0.1,
        min_scale_arcsec=0.1, max_scale_arcsec=0.4, stamp_px=px,
        stretch={"band_scales": (0.01, 0.01), "alpha": 0.1, "q": 1.0},
    )  # fmt: skip


def model_of(folder: Path, family: str, **settings: Any) -> Path:
    torch.manual_seed(2)
    module = build(family, 2, 33, **settings).eval()
    save_model(folder, module.plain(), plain_card(card_of(family, settings), module))
    return folder


def read_file(path: Path) -> tuple[onnxruntime.InferenceSession, ModelCard, str]:
    """The file by itself: what another program knows of a model."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    return session, ModelCard.model_validate_json(said["lenspipe.card"]), said["lenspipe.digest"]


@pytest.mark.parametrize("name", ["ground-gri", "space-vis"])
def test_the_exported_file_alone_gives_the_scores_of_a_shipped_finder(name: str, tmp_path: Path) -> None:
    out = call("export", name, "--out", tmp_path / "m.onnx")
    assert "outputs (n)" in out
    session, card, checkpoint = read_file(tmp_path / "m.onnx")
    assert checkpoint == digest(find_model(name))
    cutouts = RNG.gamma(0.3, 400, (20, len(card.bands), 65, 65)).astype(np.float32)
    stamps = prepare_stamps(cutouts, cutout_scale_arcsec=card.pixel_scale_arcsec, card=card)
    (logit,) = session.run(["outputs"], {"stamps": stamps})
    want = Scorer(find_model(name), device="cpu").score(cutouts, pixel_scale_arcsec=card.pixel_scale_arcsec)
    np.testing.assert_allclose(1 / (1 + np.exp(-logit.astype(float))), want, rtol=0, atol=1e-5)
    assert np.ptp(logit) > 1


def test_scored_exported_or_by_onnx_a_stamp_less_its_blur_is_what_the_network_is_shown(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = build("small-cnn", 2, 33, width=2).eval()
    with torch.no_grad():
        list(module.parameters())[-2].mul_(500)  # as it is, all scores are alike
    rule = {"name": "asinh", "band_scales": (0.01, 0.02), "alpha": 0.5, "q": 1.0, "high_pass_px": 1.5}
    seen = card_of("small-cnn", {"width": 2}).model_dump() | {"stretch": rule | {"standardise": True}}
    save_model(tmp_path / "m", module, ModelCard.model_validate(seen))
    cutouts = RNG.gamma(0.3, 400, (6, 2, 41, 41)).astype(np.float32)

    sky = cutouts[:, :, 4:37, 4:37].astype(float) / 0.2**2 * np.array([0.01, 0.02])[:, None, None]
    stretched, sigma = np.arcsinh(0.5 * sky), (0, 0, 1.5, 1.5)
    inside = gaussian_filter(np.ones_like(stretched), sigma, mode="constant", truncate=12)
    left = stretched - gaussian_filter(stretched, sigma, mode="constant", truncate=12) / inside
    shown = left - left.mean(axis=(1, 2, 3), keepdims=True)
    shown /= left.std(axis=(1, 2, 3), keepdims=True)
    with torch.inference_mode():
        want = torch.sigmoid(module(torch.from_numpy(shown.astype(np.float32))).double()).numpy().ravel()

    assert np.ptp(want) > 0.02
    for engine in ("torch", "onnx"):
        got = Scorer(tmp_path / "m", device="cpu", engine=engine).score(cutouts, pixel_scale_arcsec=0.2)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    call("export", tmp_path / "m", "--out", tmp_path / "m.onnx")
    session, card, _ = read_file(tmp_path / "m.onnx")
    stamps = prepare_stamps(cutouts, cutout_scale_arcsec=0.2, card=card)
    (logit,) = session.run(["outputs"], {"stamps": stamps})
    np.testing.assert_allclose(1 / (1 + np.exp(-logit.astype(float).ravel())), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("equivariant-c4", {"width": 1, "depth": 2}),
        ("equivariant-so2", {"width": 1, "depth": 2, "nonlinearity": "gated"}),
        ("ae", {"width": 2}),
    ],
)
def test_other_families_give_the_same_by_onnx(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m", family, **settings)
    stamps = RNG.normal(size=(5, 2, 33, 33)).astype(np.float32)
    one, two = (Scorer(folder, device="cpu", engine=engine) for engine in ("torch", "onnx"))
    np.testing.assert_allclose(two.outputs(stamps), one.outputs(stamps), rtol=1e-5, atol=1e-5)


def test_a_family_without_an_onnx_form_is_refused_and_so_is_one_that_gives_other_numbers(monkeypatch) -> None:
    with pytest.raises(ModelError, match=r"no ONNX form.*family='wsi-net'"):
        OnnxSession(build("wsi-net", 2, 33).eval(), card_of("wsi-net", {}))
    module = build("small-cnn", 2, 33, width=2).eval()
    monkeypatch.setattr("lenspipe.infer.engine.TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="other numbers than torch"):
        OnnxSession(module, card_of("small-cnn", {"width": 2}))


def test_by_onnx_too_a_score_does_not_hang_on_its_neighbours(tiny_model: Path) -> None:
    scorer = Scorer(tiny_model, engine="onnx")
    stamps = RNG.normal(size=(40, 3, 33, 33)).astype(np.float32)
    whole, features = scorer.score_with_features(stamps)
    np.testing.assert_array_equal(whole, scorer.score_prepared(stamps))
    np.testing.assert_array_equal(features, scorer.features(stamps))
    for some in (slice(7, 8), slice(3, 39, 5)):
        np.testing.assert_array_equal(scorer.score_prepared(stamps[some]), whole[some])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The same tile scanned with both engines."""
    folder = tmp_path_factory.mktemp("engines")
    write_tile(folder / "tiles", "a", shape=(160, 160), n_source=10)
    for engine in ("torch", "onnx"):
        asked = ("scan", folder / "tiles", "--model", tiny_model, "--engine", engine, "--shard-px", 128)
        call(*asked, "--runner", "local", "--out", folder / engine, "--no-catalog")
    return folder


def test_both_engines_give_the_same_scores_to_1e_5_and_everything_else_to_the_bit(runs: Path) -> None:
    one, two = (pq.read_table(runs / e / "candidates.parquet").sort_by("candidate_id") for e in ("torch", "onnx"))
    assert one.num_rows > 5
    np.testing.assert_allclose(two["score"].to_numpy(), one["score"].to_numpy(), rtol=0, atol=1e-5)
    measured = [name for name in one.column_names if name != "score"]
    assert one.select(measured).equals(two.select(measured))


def test_explain_says_which_engine_a_row_had_and_gives_the_same_bits_by_it(runs: Path) -> None:
    for engine, said in (("torch", f"torch {torch.__version__}"), ("onnx", f"ONNX Runtime {onnxruntime.__version__}")):
        run = open_run_folder(runs / engine)
        found = explain(run, pq.read_table(runs / engine / "candidates.parquet")["candidate_id"][0].as_py())
        assert found.same and not found.changed, found.differs
        assert found.engine == said.partition("+")[0] or found.engine == said


def test_a_run_by_torch_is_asked_for_as_before_there_were_engines_and_is_not_resumed_by_another(
    runs: Path, tiny_model: Path
) -> None:
    request = json.loads((runs / "torch" / "request.json").read_text())
    assert "engine" not in request["config"]["score"]
    assert "engine" not in json.loads((runs / "torch" / "run.json").read_text())["model"]
    with pytest.raises(ConfigError, match=r"config\.score\.engine was not set and is"):
        call("scan", runs / "tiles", "--model", tiny_model, "--engine", "onnx", "--shard-px", 128, "--runner", "local",
             "--out", runs / "torch", "--resume", "--no-catalog")  # fmt: skip


def test_without_onnx_runtime_and_on_a_gpu_the_engine_is_refused_before_any_work(
    runs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("scan", runs / "tiles", "--model", tiny_model, "--engine", "onnx")
    words = (*asked, "--runner", "local", "--out", tmp_path / "r")
    with pytest.raises(ConfigError, match="on CPUs"):
        call(*words, "--set", "score.device=cuda")
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(ConfigError, match=r"pip install 'lenspipe\[onnx\]'"):
        call(*words)
    assert not (tmp_path / "r").exists() or not any((tmp_path / "r").iterdir())
