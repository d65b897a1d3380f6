"""Files as earlier versions wrote them are read as they were meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lenspipe.nn.card import CARD_FILE, ModelCard, read_card
from lenspipe.nn.outputs import Classify, Denoise, Find, Regress
from lenspipe.stamps.format import StampSet

OLD_STAMPS = Path(__file__).parent / "old_form"
# every card once stated the facts of every task, those of other tasks empty
OLD_CARD = {
    "format_version": 1,
    "name": "old",
    "family": "small-cnn",
    "settings": {"width": 4},
    "task": "find",
    "bands": ["g", "r"],
    "pixel_scale_arcsec": 0.2,
    "scale_tolerance": 0.1,
    "min_scale_arcsec": 0.1,
    "max_scale_arcsec": 0.4,
    "stamp_px": 33,
    "stretch": {"name": "humvi", "band_scales": [1.0, 1.0], "mix": None, "alpha": 0.1, "q": 1.0, "standardise": False},
    "classes": ["nonlens", "lens"],
    "targets": [],
    "target_means": [],
    "target_spreads": [],
    "uncertainty": "none",
    "features": [],
    "feature_means": [],
    "feature_spreads": [],
    "exposure_ratios": None,
    "sees": "raw",
    "training": {},
    "metrics": {},
    "calibration": None,
    "abstention": None,
    "licence": "BSD-3-Clause",
    "weights_sha256": "",
    "created": "2026-11-20",
}
ABSTENTION = {
    "least_snr": 5.0,
    "least_radius_arcsec": 0.4,
    "widest_psf_arcsec": {},
    "least_confidence": 0.6,
    "accuracy": 0.8,
    "n": 9,
    "data": "made",
}
OF_TASK = {
    "find": ({}, Find()),
    "classify": (
        {"classes": ["a", "b", "c"], "abstention": ABSTENTION},
        Classify(classes=("a", "b", "c"), abstention=ABSTENTION),
    ),
    "regress": (
        {"targets": ["x"], "target_means": [1.0], "target_spreads": [0.5], "uncertainty": "gaussian"},
        Regress(targets=("x",), target_means=(1.0,), target_spreads=(0.5,), uncertainty="gaussian"),
    ),
    "denoise": ({"exposure_ratios": [1.25, 8.0]}, Denoise(exposure_ratios=(1.25, 8.0))),
}


@pytest.mark.parametrize("task", OF_TASK)
def test_a_card_of_the_old_form_is_read_and_written_without_the_facts_of_other_tasks(task, tmp_path):
    own, outputs = OF_TASK[task]
    (tmp_path / CARD_FILE).write_text(json.dumps(OLD_CARD | {"task": task} | own))
    card = read_card(tmp_path)
    assert card.outputs == outputs
    written = card.model_dump(mode="json")
    assert set(written) <= set(OLD_CARD)
    assert all(written[name] == (OLD_CARD | {"task": task} | own)[name] for name in written)
    assert ModelCard.model_validate(written) == card


def test_a_data_set_of_the_old_form_is_read():
    stamps = StampSet.open(OLD_STAMPS)
    spec = stamps.images["image"]
    assert (stamps.n, spec.bands, spec.unit) == (2, ("g", "r", "i"), "nJy")
    pixels = stamps.read_images()
    assert pixels.shape == (2, *spec.shape) and np.isfinite(pixels).all()
    assert set(stamps.column("split")) <= {"train", "validation", "test"} and set(stamps.column("label"))
