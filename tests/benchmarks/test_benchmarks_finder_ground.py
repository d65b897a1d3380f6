"""Hosts of the ground finder on real pixels: nothing serves two purposes. Skipped where the pixels are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.data import KIDS_SCALE_ARCSEC
from benchmarks.studies.finder_ground import hosts as ground_hosts
from benchmarks.studies.finder_ground.hosts import field_hosts, hosts_by_scene, split_hosts
from benchmarks.studies.finder_survey.card import judged, tested
from benchmarks.studies.finder_survey.hard import hardest
from lenspipe.errors import ConfigError
from lenspipe.nn.card import find_model, read_card
from lenspipe.simulate.paint import Host

CARD = read_card(find_model("ground-gri"))


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Host]]:
    real = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not real.is_dir():
        pytest.skip(f"real survey pixels are not beside this checkout ({real})")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground_hosts, "FIELDS", {})
        return split_hosts(real, CARD, seed=1)


def test_no_host_is_in_two_splits(splits: dict[str, list[Host]]) -> None:
    names = [host.name for hosts in splits.values() for host in hosts]
    assert len(names) == len(set(names))
    early = {split: sum(host.kind == "early" for host in hosts) for split, hosts in splits.items()}
    assert early["train"] > 80
    assert early["test"] > 30
    assert early["validation"] > 10


def test_stamps_of_two_splits_of_the_tile_share_no_pixel(splits: dict[str, list[Host]]) -> None:
    rows = {
        split: np.array([float(host.name.split("-")[2]) for host in hosts if host.name.startswith("kids")])
        for split, hosts in splits.items()
    }
    stamp_px = CARD.stamp_px * CARD.pixel_scale_arcsec / KIDS_SCALE_ARCSEC
    assert rows["validation"].min() - rows["train"].max() > stamp_px - 2
    assert rows["test"].min() - rows["validation"].max() > stamp_px - 2


def test_hosts_are_centred_and_their_noise_is_the_pixels_noise(splits: dict[str, list[Host]]) -> None:
    early = [host for host in splits["train"] if host.kind == "early" and host.name.startswith("kids")]
    for host in early:
        centre = host.pixels_njy.shape[-1] // 2
        core = host.pixels_njy[1, centre - 4 : centre + 5, centre - 4 : centre + 5]
        peak = np.unravel_index(core.argmax(), core.shape)
        assert np.hypot(peak[0] - 4, peak[1] - 4) < 5
    quiet = min(early, key=lambda host: float(np.abs(host.pixels_njy).sum()))
    mad = 1.4826 * np.median(np.abs(quiet.pixels_njy - np.median(quiet.pixels_njy)))
    assert mad == pytest.approx(quiet.sky_rms_njy.mean(), rel=0.35)


def test_the_candidate_tile_is_never_read(splits: dict[str, list[Host]]) -> None:
    assert not [host.name for hosts in splits.values() for host in hosts if "cfhtls" in host.name.lower()]
    assert {host.name.split("-")[0] for hosts in splits.values() for host in hosts} == {"kids", "des"}


def test_arcs_and_look_alikes_go_on_early_types_only(splits: dict[str, list[Host]]) -> None:
    kinds = hosts_by_scene(splits["train"])
    for kind in ("lens", "companions", "young_ring", "spiral_disc"):
        assert {host.kind for host in kinds[kind]} == {"early"}
    assert {host.kind for host in kinds["plain"]} == {"early", "source", "star"}


def test_a_folder_without_the_tile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder tiles/kids_viking"):
        split_hosts(tmp_path, CARD, seed=1)


@pytest.mark.long
def test_a_simulated_field_gives_its_lenses_and_only_bright_sources() -> None:
    hosts = field_hosts(101, CARD)
    assert sum(host.kind == "parametric-lens" for host in hosts) == 24
    assert max(host.mag for host in hosts) < 22.5
    assert len({host.name for host in hosts}) == len(hosts) > 60


def test_the_card_of_the_graded_finder_says_what_the_record_of_the_test_stamps_says() -> None:
    card = read_card(find_model("ground-gri-graded"))
    assert judged(card, tested()) == card
    found = {one["model"]: one["simulated"]["ordinary"] for one in tested()["models"]}
    assert card.metrics["test"]["auroc"] == found["ground-gri-graded"]["auroc"]
    note = card.training["note"]
    for name in ("ground-gri", "ground-gri-graded"):
        assert f"{found[name]['tpr_at_fpr']['1e-2']['value']:.3f}" in note


def test_the_hardest_are_those_of_each_kind_with_the_highest_scores() -> None:
    rng = np.random.default_rng(3)
    score, is_real = rng.normal(size=400), rng.uniform(size=400) < 0.7
    taken = hardest(score, is_real, 0.1)
    assert len(set(taken)) == 40 and is_real[taken].sum() == 20
    for kind in (True, False):
        own = taken[is_real[taken] == kind]
        assert score[own].min() > np.delete(score, taken)[np.delete(is_real, taken) == kind].max()
