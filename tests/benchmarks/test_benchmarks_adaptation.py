from benchmarks.studies.adaptation.figures import closed


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
