"""The card of a plain form: what the network was trained as stays in it, whole."""

from __future__ import annotations

from typing import Any

from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.export import plain_card
from lenspipe.nn.registry import build

TINY: dict[str, Any] = {"width": 1, "depth": 2}
SETTINGS = {"model": TINY, "optim": {"learning_rate": 0.003}, "sampling": {"batch_size": 32}}


def card_of(family: str, **training: Any) -> ModelCard:
    return ModelCard(
        name="c4",
        family=family,
        settings=TINY,
        bands=("g",),
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.1,
        min_scale_arcsec=0.1,
        max_scale_arcsec=0.4,
        stamp_px=17,
        stretch=Stretch(band_scales=(1.0,), alpha=0.1, q=1.0),
        training=training,
    )


def test_settings_of_the_training_stay_whole_in_the_plain_card(tmp_path):
    module = build("equivariant-c4", 1, 17, **TINY).eval()
    card = card_of("equivariant-c4", seed=3, settings=SETTINGS)
    save_model(tmp_path / "c4", module.plain(), plain_card(card, module))
    _, stored = load_model(tmp_path / "c4")
    assert stored.family == "plain-equivariant"
    assert stored.training == {"seed": 3, "settings": SETTINGS, "family": "equivariant-c4"}


def test_settings_of_the_family_are_kept_where_the_card_has_none_of_a_training():
    module = build("equivariant-c4", 1, 17, **TINY)
    written = plain_card(card_of("equivariant-c4", seed=3), module)
    assert written.training == {"seed": 3, "family": "equivariant-c4", "family_settings": TINY}
    assert build(written.training["family"], 1, 17, **written.training["family_settings"]).plan == module.plan


def test_the_card_of_an_ordinary_network_is_its_own():
    card = card_of("small-cnn", settings=SETTINGS)
    assert plain_card(card, build("small-cnn", 1, 17)) is card
