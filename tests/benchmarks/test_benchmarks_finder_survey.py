"""What lies between a finder and its fine-tuned self, and hosts with i made up to z: rules on made-up numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit

from benchmarks import record
from benchmarks.studies.finder_grz import judge, ship
from benchmarks.studies.finder_grz.hosts import FOLDS, ZOfI, fold_of, made_up, to_grz, z_of_i
from benchmarks.studies.finder_grz.make_stamps import without_fold
from benchmarks.studies.finder_survey.between import by_survey, on_the_line, table, two_stages
from benchmarks.studies.finder_survey.others import probe_table
from lenspipe.nn.card import find_model, read_card
from lenspipe.nn.checkpoint import load_model
from lenspipe.simulate.paint import Host


def host(name: str, mags: list[float]) -> Host:
    """A source whose central pixel holds all of its light."""
    pixels = np.zeros((len(mags), 21, 21), np.float32)
    pixels[:, 10, 10] = 10 ** (0.4 * (31.4 - np.array(mags)))
    ones = np.ones(len(mags))
    return Host(name, "early", pixels, 0.25, ones, 2 * ones, mags[2], 0.8, 0.0)


def colours(rng: np.random.Generator, n: int) -> list[Host]:
    """Hosts in g r i z whose i - z is 0.2 + 0.3 (r - i), a few of them far off."""
    out = []
    for k, r_i in enumerate(rng.uniform(0.2, 1.2, n)):
        off = 1.5 if k % 25 == 0 else rng.normal(0, 0.02)
        out.append(host(f"des-early-{k}", [22.0, 20.0 + r_i, 20.0, 20.0 - (0.2 + 0.3 * r_i) - off]))
    return out


def test_z_follows_from_r_minus_i_whatever_a_few_sources_do() -> None:
    line = z_of_i(colours(np.random.default_rng(1), 100))
    assert line.intercept == pytest.approx(0.2, abs=0.02) and line.slope == pytest.approx(0.3, abs=0.03)
    assert line.scatter == pytest.approx(0.02, abs=0.01)


def test_i_made_up_to_z_keeps_its_signal_to_noise_and_other_bands() -> None:
    before = host("kids-1", [22.0, 20.8, 20.0])
    (after,) = made_up([before], ZOfI(0.2, 0.3, 0.0))
    gained = 10 ** (0.4 * (0.2 + 0.3 * 0.8))
    np.testing.assert_allclose(after.pixels_njy[2], before.pixels_njy[2] * gained, rtol=1e-5)
    np.testing.assert_array_equal(after.pixels_njy[:2], before.pixels_njy[:2])
    np.testing.assert_allclose(after.sky_rms_njy, before.sky_rms_njy * [1, 1, gained], rtol=1e-5)
    assert after.mag == pytest.approx(20.0 - 0.44, abs=1e-4)


def test_a_host_with_z_loses_its_i() -> None:
    before = host("hsc-lrg-1", [22.0, 20.8, 20.0, 19.5])
    after = to_grz(before)
    np.testing.assert_array_equal(after.pixels_njy, before.pixels_njy[[0, 1, 3]])
    assert after.mag == pytest.approx(19.5, abs=1e-4)


def test_folds_share_no_host_and_each_has_its_part_of_every_survey(tmp_path: Path) -> None:
    one = host("", [22.0, 20.8, 20.0, 19.5])
    hosts = [replace(one, name=f"{kind}-{k}") for kind in ("des-early", "hsc-lrg") for k in range(8)]
    fold = np.array([fold_of(h.name, hosts) for h in hosts])
    assert [int((fold[:8] == k).sum()) for k in range(FOLDS)] == [int((fold[8:] == k).sum()) for k in range(FOLDS)]
    (tmp_path / "all").mkdir()
    names = [h.name for h in hosts] + ["kids-1"]
    pq.write_table(pa.table({"host": names}), tmp_path / "all/train-0.parquet")
    without_fold(tmp_path / "all", tmp_path / "less", 1, hosts)
    kept = pq.read_table(tmp_path / "less/train-0.parquet")["host"].to_pylist()
    assert kept == [name for name, k in zip(names, [*fold, -1], strict=True) if k != 1]


def test_the_card_and_the_page_of_ground_grz_say_what_the_record_says() -> None:
    card = read_card(find_model("ground-grz"))
    assert ship.told(card, card.training["hosts"], ship.judged()) == card
    found = json.loads((record.RESULTS / "finders_grz.json").read_text())["result"]
    page = (record.RESULTS.parents[1] / "docs/results/finder_survey.md").read_text()
    for line in judge.table(found).splitlines():
        assert line in page
    arcs = {
        name: sum(one[survey]["arcs_above_the_1_percent_of_kids"]["k"] for survey in ("kids", "des", "hsc"))
        for name, one in found["finders"].items()
    }
    assert f"{arcs['ground-grz']} of {found['arcs']} in all where `ground-gri` finds {arcs['ground-gri']}" in page
    assert f"as it is, finds {arcs['ground-gri-graded']}, and lets one pass too" in page
    for words in (("good_against_0.3",), ("good_above_the_1_percent_of_kids",)):
        for name in ("ground-gri", "ground-grz"):
            one = found["finders"][name]["spacewarps_with_z_made_up"][words[0]]
            said = f"{one['k']}/{one['n']}" if "k" in one else f"{one['value']:.3f}"[1:]
            assert f"| {said}" in page
    seen = card.training["hosts"]["train"]
    assert f"DES early types ({seen['des']}) and HSC galaxies ({seen['hsc']})" in page


def test_the_page_has_the_rows_of_what_lies_between() -> None:
    found = json.loads((record.RESULTS / "finders_survey_line.json").read_text())["result"]
    page = (record.RESULTS.parents[1] / "docs/results/finder_survey.md").read_text()
    rows = {line.split(" |")[0][2:]: line for line in table(found).splitlines()[2:]}
    shown = [row for way, row in rows.items() if way.startswith(("line", "kept", "by survey", "mean of"))]
    assert len(shown) == 16
    for row in [*shown, *(rows[f"two stages, {part}"] for part in ("0.01", "0.05", "0.2"))]:
        assert row in page
    stages = found["ways"]["two stages, 0.01"]
    assert stages["gain"]["value"] == pytest.approx(
        stages["auc_of_mean_of_seeds"]["value"] - found["alone"]["spacewarps_good_against_0.3"]["value"]
    )
    assert f"gain {stages['gain']['value']:.3f}".replace("0.", ".") in page
    assert f"{found['rehearsed']:,} sources and painted arcs" in page


def test_the_page_has_the_survey_probe_of_all_ordinary_galaxies() -> None:
    models = json.loads((record.RESULTS / "finders_survey_others.json").read_text())["result"]["models"]
    page = (record.RESULTS.parents[1] / "docs/results/finder_survey.md").read_text()
    assert probe_table(models) in page
    for kind, words in (("all", "among all of these ordinary galaxies"), ("early", "among early types of the five")):
        pairs = [max(one["survey_probe"][kind]["pairs"], key=lambda p: p["auroc"]) for one in models.values()]
        (row,) = (line for line in page.splitlines() if words in line)
        assert [f"{pair['auroc']:.3f}"[1:] for pair in pairs] == [cell.split()[0] for cell in row.split(" | ")[1:]]
    for survey, (k, n) in {"hsc": (48, 163), "kids": (56, 220), "cfhtls": (18, 224)}.items():
        probe = models["ground-gri"]["survey_probe"]
        assert (probe["early"]["n"][survey], probe["all"]["n"][survey]) == (k, n) and f"{k} of {n} of" in page


def test_the_ends_of_the_line_are_the_finder_and_what_was_taught() -> None:
    folder = find_model("ground-gri")
    base = load_model(folder)[0].state_dict()
    state = {k: v + 1 if v.is_floating_point() else v for k, v in base.items()}
    for part in (0.0, 0.25, 1.0):
        for name, tensor in on_the_line(folder, state, part).state_dict().items():
            expected = base[name] + part if tensor.is_floating_point() else base[name]
            torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5)


def test_the_second_stage_orders_only_what_the_first_lets_pass() -> None:
    rng = np.random.default_rng(2)
    first, then = ({k: rng.normal(size=200) for k in ("warps", "galaxies", "arcs")} for _ in range(2))
    first["arcs"][0], then["arcs"][0] = 9.0, 7.0
    first["arcs"][1], then["arcs"][1] = -9.0, 8.0
    out = two_stages(first, then, 0.1)
    passed = np.argsort(-first["galaxies"])[:20]
    assert set(np.argsort(-out["galaxies"])[:20]) == set(passed)
    np.testing.assert_array_equal(out["galaxies"][passed], then["galaxies"][passed])
    below = np.setdiff1d(np.arange(200), passed)
    assert out["galaxies"][below].max() < min(values.min() for values in then.values())
    np.testing.assert_array_equal(np.argsort(out["galaxies"][below]), np.argsort(first["galaxies"][below]))
    assert out["arcs"][0] == 7.0 and out["arcs"][1] < out["galaxies"].min()
    assert len(np.unique(expit(out["warps"]))) == 200, "areas are counted on these"
    held_back = first["arcs"] <= first["galaxies"][below].max()
    order = np.argsort(np.r_[first["arcs"][held_back], first["galaxies"][below]])  # one scale for all that is scored
    np.testing.assert_array_equal(np.argsort(np.r_[out["arcs"][held_back], out["galaxies"][below]]), order)


def test_scores_by_survey_keep_their_order_and_have_one_spread() -> None:
    scores = {k: np.random.default_rng(3).normal(5, 3, 50) for k in ("warps", "galaxies", "arcs")}
    out = by_survey(scores)
    assert out["warps"].std() == pytest.approx(1) and np.median(out["warps"]) == pytest.approx(0)
    np.testing.assert_array_equal(np.argsort(out["warps"]), np.argsort(scores["warps"]))
    assert out["galaxies"] is scores["galaxies"]
