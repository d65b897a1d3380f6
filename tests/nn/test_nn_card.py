"""Cards: what is refused, what fits, how models are found. None of it needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lenspipe.errors import ConfigError, ModelError
from lenspipe.nn.card import (
    CARD_FILE,
    WEIGHTS_FILE,
    ModelCard,
    Stretch,
    digest,
    find_model,
    fits,
    read_card,
    shipped_models,
    write_card,
)


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="a-model",
        family="small-cnn",
        bands=("g", "r", "i"),
        pixel_scale_arcsec=0.27,
        scale_tolerance=0.1,
        min_scale_arcsec=0.15,
        max_scale_arcsec=0.36,
        stamp_px=65,
        stretch=Stretch(band_scales=(0.02, 0.01, 0.005), alpha=0.1, q=1.0),
    )


def test_a_written_card_reads_back_the_same(card: ModelCard, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card


def test_reading_a_card_does_not_import_torch(card: ModelCard, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    code = "import sys; from lenspipe.nn.card import read_card; read_card(sys.argv[1]); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "regress"}, "not valid: targets: Field required"),
        ({"targets": ["theta_e_arcsec"]}, "targets does not belong to the task find"),
        ({"task": "guess"}, "does not match any of the expected tags"),
        ({"bands": ["g", "r"]}, "band_scales needs one value per band"),
        ({"min_scale_arcsec": 0.3}, "must lie between"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    card: ModelCard, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (tmp_path / CARD_FILE).write_text(json.dumps(card.model_dump(mode="json") | change))
    with pytest.raises(ModelError, match=message):
        read_card(tmp_path)


def test_a_broken_card_names_its_file(tmp_path: Path) -> None:
    (tmp_path / CARD_FILE).write_text('{"name": "cut o')
    with pytest.raises(ModelError, match=r"not valid.*card\.json"):
        read_card(tmp_path)
    with pytest.raises(ModelError, match=r"not a model: card\.json cannot be read"):
        read_card(tmp_path / "nowhere")


def test_more_bands_in_any_order_fit_and_missing_ones_do_not(card: ModelCard) -> None:
    assert fits(card, ("i", "u", "r", "g"), 0.2) is None
    assert "i not among g r z" in (fits(card, ("g", "r", "z"), 0.2) or "")


@pytest.mark.parametrize(("scale", "fine"), [(0.1499, False), (0.15, True), (0.36, True), (0.361, False)])
def test_pixel_scales_fit_within_the_limits_and_at_them(card: ModelCard, scale: float, fine: bool) -> None:
    assert (fits(card, card.bands, scale) is None) == fine


def test_the_digest_changes_with_one_bit_of_card_or_weights(card: ModelCard, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"\x00\x01")
    first = digest(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"\x00\x00")
    second = digest(tmp_path)
    write_card(tmp_path, card.model_copy(update={"licence": "MIT"}))
    assert len({first, second, digest(tmp_path)}) == 3
    assert len(first) == 16


def test_a_folder_is_found_by_its_path_and_a_shipped_model_by_its_name(card: ModelCard, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    assert find_model(tmp_path) == tmp_path
    for name in shipped_models():
        assert find_model(name).name == name


def test_an_unknown_name_lists_or_suggests_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenspipe.nn.card.shipped_models", lambda: ["ground-gri"])
    with pytest.raises(ConfigError, match="Did you mean 'ground-gri'"):
        find_model("ground-gir")
    with pytest.raises(ConfigError, match="Shipped models: ground-gri"):
        find_model("zzz")


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "NET.PT"])
def test_a_pickle_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match="a pickle is never loaded"):
        find_model(name)


@pytest.mark.parametrize("settings", [{"width": 10**12}, {"depths": [3, 10**9]}, {"depths": [1] * 10**4}])
def test_sizes_in_a_card_are_bounded_before_anything_is_allocated(tiny_model, tmp_path, settings):
    raw = json.loads((tiny_model / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps({**raw, "settings": settings}))
    with pytest.raises(ModelError, match="a size above"):
        read_card(tmp_path)


def test_a_task_that_is_no_word_is_refused_in_one_error(card: ModelCard, tmp_path: Path) -> None:
    raw = json.loads(card.model_dump_json()) | {"task": {}}
    (tmp_path / "card.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError):
        read_card(tmp_path)
