import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lenspipe.stats.clusters import ByGroup, clustered_interval
from lenspipe.stats.intervals import clopper_pearson
from lenspipe.stats.survey_probe import SurveyProbe, warning_of


def test_the_probe_is_scikit_learns_area_between_the_others_of_two_surveys(rng):
    score, is_lens = rng.uniform(0, 1, 400), rng.random(400) < 0.3
    survey = np.array(rng.choice(["kids", "des", None], 400), dtype=object)
    score[survey == "des"] **= 2
    probe = SurveyProbe()
    for part in np.array_split(np.arange(400), 7):
        probe.add(score[part], is_lens[part], survey[part])
    found = probe.found()
    both = ~is_lens & (survey != None)  # noqa: E711
    want = roc_auc_score(survey[both] == "kids", score[both])
    (pair,) = found["pairs"]
    assert (pair["higher"], pair["lower"]) == ("kids", "des")
    assert pair["auroc"] == pytest.approx(want, rel=1e-12)
    assert pair["interval95"][0] < want < pair["interval95"][1]
    assert found["n"] == {name: int((both & (survey == name)).sum()) for name in ("kids", "des")}
    assert warning_of("m", found).startswith(
        "m tells surveys: of ordinary galaxies those of kids score above those of des"
    )


def test_the_probe_needs_two_surveys_and_is_silent_where_scores_are_alike(rng):
    probe = SurveyProbe()
    probe.add(rng.uniform(0, 1, 50), np.zeros(50, bool), np.array(["kids"] * 50, dtype=object))
    assert probe.found() is None and warning_of("m", None) is None
    probe.add(rng.uniform(0, 1, 500), np.zeros(500, bool), np.array(["des", "hsc"] * 250, dtype=object))
    assert len(probe.found()["pairs"]) == 3
    assert {pair["higher"] for pair in probe.found()["pairs"]} <= {"kids", "des", "hsc"}


def test_a_large_area_of_few_stamps_is_said_to_be_perhaps_chance():
    probe = SurveyProbe()
    score, survey = np.array([0.9, 0.2, 0.3, 0.1]), np.array(["a", "a", "b", "b"], dtype=object)
    probe.add(score, np.zeros(4, bool), survey)
    assert probe.found()["worst"]["auroc"] == 0.75
    assert warning_of("m", probe.found()).endswith("may be chance")


def test_the_surest_pair_is_named_and_not_the_largest_area_of_a_handful(rng):
    probe = SurveyProbe()
    for name, score in {"a": rng.uniform(0, 0.6, 300), "b": rng.uniform(0.2, 0.8, 300), "few": [0.99, 0.98]}.items():
        probe.add(np.asarray(score), np.zeros(len(score), bool), np.array([name] * len(score), dtype=object))
    found = probe.found()
    assert found["pairs"][0]["higher"] == "few"
    assert (found["worst"]["higher"], found["worst"]["lower"]) == ("b", "a")


def test_one_stamp_per_host_has_the_interval_of_clopper_and_pearson():
    k = np.r_[np.ones(30, int), np.zeros(370, int)]
    np.testing.assert_allclose(clustered_interval(k, np.ones(400, int)), clopper_pearson(30, 400), rtol=0.01)


def test_the_interval_over_hosts_holds_where_that_over_stamps_does_not(rng):
    """60 hosts of 20 stamps that pass or fail together."""
    held = {"hosts": 0, "stamps": 0}
    for _ in range(300):
        k, n = 20 * (rng.random(60) < 0.1), np.full(60, 20)
        for name, (low, high) in {
            "hosts": clustered_interval(k, n),
            "stamps": clopper_pearson(int(k.sum()), 1200),
        }.items():
            held[name] += low <= 0.1 <= high
    assert held["hosts"] >= 0.93 * 300  # 95 %, and 1.6 sigma of 300 trials less
    assert held["stamps"] < 0.6 * 300


@pytest.mark.parametrize(("k", "want"), [(np.zeros(5, int), (0.0, 0.5218)), (np.full(5, 3), (0.4782, 1.0))])
def test_where_nothing_passes_or_all_each_host_is_one_trial(k, want):
    np.testing.assert_allclose(clustered_interval(k, np.full(5, 3)), want, atol=1e-4)


def test_stamps_and_hosts_that_pass_are_counted_and_lenses_are_not():
    by_host = ByGroup()
    host = np.array(["a", "a", "b", "c", "c", None, "d"], dtype=object)
    score = np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.9, 0.95])
    by_host.add(score, np.array([0, 0, 0, 0, 0, 0, 1], bool), host)
    found = by_host.passing({"at": 0.5, "none": None})
    assert (found["n_group"], found["n_stamp"], found["part"]) == (3, 5, 1.0)
    assert (found["at"]["k"], found["at"]["value"]) == (3, 0.6)
    assert (found["at"]["groups"]["k"], found["at"]["groups"]["n"]) == (2, 3)
    assert found["none"]["value"] == 0.0
    assert ByGroup().passing({"at": 0.5}) is None


def test_many_stamps_are_thinned_by_host_the_same_in_any_order(rng):
    host = np.array([f"h{k}" for k in rng.integers(0, 400, 3000)], dtype=object)
    score = rng.uniform(0, 1, 3000)
    one, other = ByGroup(max_rows=500), ByGroup(max_rows=500)
    for rows in np.array_split(np.arange(3000), 9):
        one.add(score[rows], np.zeros(len(rows), bool), host[rows])
    for rows in np.array_split(np.arange(3000)[::-1], 4):
        other.add(score[rows], np.zeros(len(rows), bool), host[rows])
    assert one.passing({"at": 0.5}) == other.passing({"at": 0.5})
    found = one.passing({"at": 0.5})
    assert found["n_stamp"] <= 500 and found["part"] < 1
    kept = found["n_group"] / found["part"]
    assert 250 < kept < 600
