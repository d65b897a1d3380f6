"""Checkpoints: weights survive, and whatever does not belong together is refused."""

from __future__ import annotations

import json
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lenspipe.errors import ModelError
from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, ModelCard, Stretch, read_card
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.fold import fold_batch_norm
from lenspipe.nn.registry import build, families, register

CARD = ModelCard(
    name="tiny",
    family="small-cnn",
    settings={"width": 4},
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=33,
    stretch=Stretch(band_scales=(0.02, 0.01, 0.005), alpha=0.1, q=1.0),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    module = build(CARD.family, 3, CARD.stamp_px, **CARD.settings).train()
    module(torch.rand(16, 3, 33, 33))  # batch norms that have seen data
    save_model(tmp_path / "tiny", module, CARD)
    return tmp_path / "tiny"


def _reseal(folder: Path) -> None:
    import hashlib

    facts = json.loads((folder / CARD_FILE).read_text())
    facts["weights_sha256"] = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps(facts))


def test_a_saved_model_gives_the_same_logits_to_the_bit(folder: Path) -> None:
    first, card = load_model(folder)
    again, _ = load_model(folder)
    stamps = torch.rand(8, 3, 33, 33)
    with torch.inference_mode():
        assert torch.equal(first(stamps), again(stamps))
        assert first(stamps).std() > 0
    assert card == read_card(folder)
    assert not first.training


def test_a_truncated_file_is_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="truncated, or one of the two was replaced"):
        load_model(folder)
    _reseal(folder)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(folder)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    raw = bytearray((folder / WEIGHTS_FILE).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(ModelError, match="not the ones of the card"):
        load_model(folder)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("small-cnn", {"width": 8192}),
        ("small-cnn", {"width": 1600, "dropout": 0.0}),
        ("graph", {"width": 8192}),
        ("patch-transformer", {"width": 8192, "patch": 11}),
        ("acae", {"latent": 8192}),
        ("kernel-logistic", {"n_landmark": 8000, "pool": 1}),
    ],
)
def test_a_card_that_asks_for_far_more_than_its_weights_is_refused_before_it_is_allocated(
    folder: Path, family: str, settings: dict[str, int]
) -> None:
    facts = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(facts | {"family": family, "settings": settings}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="far larger than its weights"):
        load_model(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("settings", [{"width": -1}, {"width": "x"}, {"width": 0}, {"width": 3.5}])
def test_settings_that_are_no_sizes_are_one_error(folder: Path, settings: dict[str, object]) -> None:
    facts = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(facts | {"settings": settings}))
    with pytest.raises(ModelError, match=r"no network can be built|do not have the tensors"):
        load_model(folder)


@pytest.mark.parametrize("what", ["missing", "extra", "shape"])
def test_tensors_that_are_not_the_familys_are_refused(folder: Path, what: str) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    if what == "missing":
        del tensors["head.bias"]
    elif what == "extra":
        tensors["head.more"] = torch.zeros(1)
    else:
        tensors["head.bias"] = torch.zeros(2)
    save_file(tensors, folder / WEIGHTS_FILE)
    _reseal(folder)
    with pytest.raises(ModelError, match=r"do not have the tensors of family 'small-cnn'.*head\."):
        load_model(folder)


def test_a_pickle_in_the_place_of_weights_is_refused_and_not_run(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (folder / "was-run",))

    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Evil()))
    _reseal(folder)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(folder)
    (folder / WEIGHTS_FILE).rename(folder / "weights.pt")
    with pytest.raises(ModelError, match=r"the pickle weights\.pt is never loaded"):
        load_model(folder)
    with pytest.raises(ModelError, match="a pickle is never loaded"):
        load_model(folder / "weights.pt")
    assert not (folder / "was-run").exists()


def test_an_unknown_family_or_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="Did you mean 'small-cnn'"):
        build("smal-cnn", 3, 65)
    with pytest.raises(ModelError, match=r"does not have.*widht.*dropout,width"):
        build("small-cnn", 3, 65, widht=3)


def test_a_family_name_is_taken_once() -> None:
    families()
    with pytest.raises(ValueError, match="two network families are named 'small-cnn'"):
        register("small-cnn")(lambda n_band, stamp_px: torch.nn.Identity())


def test_the_small_network_has_the_parameters_its_docstring_says() -> None:
    module = build("small-cnn", 3, 65)
    assert sum(p.numel() for p in module.parameters()) == 205_177


@pytest.mark.parametrize("view", range(8))
def test_an_odd_stamp_turned_is_seen_at_the_same_places(view: int) -> None:
    """With symmetric kernels the whole network must not care for quarter turns and mirrors."""
    torch.manual_seed(0)
    module = build("small-cnn", 2, 65, width=4).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            kernel = layer.weight.data
            kernel = kernel + kernel.flip(-1)
            kernel = kernel + kernel.flip(-2)
            layer.weight.data = kernel + kernel.transpose(-1, -2)
    stamps = torch.rand(4, 2, 65, 65)
    turned = torch.rot90(stamps, view % 4, (-2, -1))
    turned = turned.flip(-1) if view >= 4 else turned
    with torch.inference_mode():
        torch.testing.assert_close(module(turned), module(stamps), rtol=1e-4, atol=1e-5)


def test_folding_the_batch_norms_changes_no_logit_beyond_rounding(folder: Path) -> None:
    module, _ = load_model(folder)
    folded = fold_batch_norm(module)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    stamps = torch.rand(32, 3, 33, 33)
    with torch.inference_mode():
        torch.testing.assert_close(folded(stamps), module(stamps), rtol=1e-5, atol=1e-5)
