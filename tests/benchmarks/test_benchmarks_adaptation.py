import pytest

from benchmarks.studies.adaptation.figures import closed, short
from benchmarks.studies.adaptation.measure import SPACE, Space
from lenspipe.toml import read_toml


def cells(method, **areas):
    return [
        {"gap": "g", "family": "f", "method": method, "seed": int(seed[1:]), "auroc": area, "auc_3_classes": None}
        for seed, area in areas.items()
    ]


def test_the_part_of_a_gap_is_of_the_seeds_that_the_method_and_both_ends_have():
    all_cells = cells("source-only", s0=0.9, s1=0.5) + cells("target-trained", s0=1.0, s1=1.0) + cells("mmd", s0=0.85)
    row = {"gap": "g", "family": "f", "method": "mmd"}
    # below its own source, and above the mean of both seeds' sources
    assert round(closed(all_cells, row), 3) == -0.5
    assert closed(all_cells, row | {"method": "dann"}) is None


def test_changes_of_a_recipe_that_are_taken_apart_are_those_of_the_whole():
    gaps = read_toml(SPACE, Space).gaps()
    parts = [gap.recipe for name, gap in gaps.items() if name.startswith("sim-to-real-matched-")]
    assert sorted(map(len, parts)) == [0, 1, 1, 1]
    assert {key: value for part in parts for key, value in part.items()} == gaps["sim-to-real-matched"].recipe


@pytest.mark.parametrize(("value", "text"), [(0.8005396, ".80"), (-0.126, "-.13"), (20.3, "20.30"), (None, "")])
def test_numbers_of_tables_have_no_zero_before_their_point(value, text):
    assert short(value) == text
