import csv
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["result"]


def adapted(method, family="small-cnn"):
    """Mean area of three classes over the seeds."""
    with (RESULTS / "adaptation.csv").open() as stream:
        areas = [
            float(row["auc_3_classes"])
            for row in csv.DictReader(stream)
            if (row["gap"], row["family"], row["method"]) == ("instruments", family, method)
        ]
    return sum(areas) / len(areas)


NUMBERS = {
    "finding lenses": lambda: [
        result("real_sky_ground-gri_reserved")["models"][0]["ground"]["auc_spacewarps_good_against_kids"]["value"]
    ],
    "equivariant networks": lambda: [
        result(f"dark_matter_fitted_model-f_{name}-100_0")["test"]["auroc_micro"]
        for name in ("equivariant-c8", "timm-resnet18")
    ],
    "three classes on": lambda: [result("substructure_1")["classifiers"][0]["metrics"]["auroc_micro"]],
    "the same with": lambda: [result("substructure_strong")["classifiers"][0]["metrics"]["auroc_micro"]],
    "adaptation without": lambda: [
        *map(adapted, ("mmd", "source-only", "adda", "target-trained")),
        *(adapted(method, "equivariant-c4-wide") for method in ("dann", "source-only", "target-trained")),
    ],
    "anomalies": lambda: [max(row["auc"] for row in result("anomalies_substructure_strong")["rows"] if "auc" in row)],
}


@pytest.mark.parametrize("subject", NUMBERS)
def test_our_numbers_beside_earlier_work_are_those_of_the_records(subject):
    lines = (ROOT / "docs/results/earlier-work.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {subject}"))
    for number in NUMBERS[subject]():
        assert f"{number:.3f}".lstrip("0") in line.split("|")[3], number
