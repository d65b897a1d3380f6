"""Numbers of the page of measurements are those of its records, as they are or in another unit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)(?!\w)")
UNITS = (1.0, 100.0, 1e3, 1e-3, 1e6, 1e-6, 1e-9, 2.0**-20, 2.0**-30, 1 / 60)
WITHOUT_RECORD = {
    "scan_memory": {"320", "465"},  # shared libraries; a run of 80 shards
    "finder_speed": {"1,170", "1,280"},  # of several runs
    "cut_speed": {"4.9", "5.6", "20.8"},  # of another machine
    "finders_survey_cost": {"12"},  # epochs of the default, which was not timed
    "star_cut": {"20"},  # the magnitude to which stars are taken
    "dark_matter_fitted_model-f_equivariant-c8-100_0": {".9984", ".9942"},  # published
}
"""Numbers that a row gives beside those of its record."""


def numbers(found):
    """All numbers of a record, those in its words and names too."""
    if isinstance(found, bool) or found is None:
        return
    if isinstance(found, int | float):
        yield float(found)
    elif isinstance(found, str):
        yield from map(float, re.findall(r"\d+\.?\d*", found))
    else:
        entries = found if isinstance(found, list) else [*found, *found.values()]
        yield from (number for entry in entries for number in numbers(entry))


def rows():
    """Record's names and what is said of them, row by row; "the same" is the row above's."""
    above = []
    for line in (ROOT / "docs/measured.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 5 and set(cells[1].strip()) - set("-"):
            above = re.findall(r"`([\w-]+)`", cells[3]) if "the same" not in cells[3] else above
            if above and "--sample" not in above:
                yield above, cells[1] + cells[2]


def missing(names, said):
    records = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    known = np.array([n for record in records for n in numbers([record["result"], record.get("aims", [])])])
    known = np.concatenate([known * unit for unit in UNITS] + [100 - 100 * known, 100 * known - 100])
    beside = WITHOUT_RECORD.get(names[0], set())
    left = []
    for shown in NUMBER.findall(said):
        digits = len(shown.partition(".")[2])
        near = np.abs(known - float(shown.replace(",", ""))) <= 0.5 * 10.0**-digits + 1e-9
        if shown not in beside and not near.any():
            left.append(shown)
    return left


@pytest.mark.parametrize(("names", "said"), [pytest.param(*row, id="-".join(row[0])) for row in rows()])
def test_a_number_of_the_page_is_one_of_its_record(names, said):
    measured = re.sub(r"\((?:aim|limit)[^)]*\)|aim [\d.]+|aim of \d+|\d+ px|[A-Z]\w+\+\d+", "", said)
    assert not missing(names, measured)


def test_a_number_that_was_changed_is_noticed_in_most_rows():
    """The check compares with every number of a record, so that some changes escape it."""
    noticed = tried = 0
    for names, said in rows():
        for shown in set(re.findall(r"(?<![\w.])\d*\.\d\d+(?!\w)", said)):
            tried += 1
            noticed += bool(missing(names, f" {float(shown) * 1.13 + 0.003:.{len(shown.partition('.')[2])}f} "))
    assert noticed > 0.5 * tried > 20


def test_the_guide_to_completeness_shows_what_the_record_has():
    found = json.loads((RESULTS / "completeness.json").read_text())["result"]
    guide = (ROOT / "docs/guides/what-did-i-miss.md").read_text()
    for row in found["at"].values():
        value = f"{row['value']:.3f} [{row['interval95'][0]:.3f}, {row['interval95'][1]:.3f}]"
        assert f"  {row['at']:<12} {row['kind']:<5} {value}  ({row['k']} of {row['n']})" in guide
    assert all(f"Note: {note}\n" in guide for note in found["notes"])
    one, planted = found["theta_e_1.5_snr_40"], found["planted"]
    assert f"{one['completeness']:.3f} [{one['low']:.3f}, {one['high']:.3f}] ({one['what']})" in guide
    assert f"{planted['held']:.0%}".replace("%", " % of the points on average") in guide
    assert f"{planted['least_at_a_place']:.0%}".replace("%", " % of the time at the worst of") in guide
