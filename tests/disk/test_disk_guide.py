"""The page on trust says what was measured, by the records."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guides" / "trust.md").read_text()


def record(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["result"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kills", lambda r: f"{r['hit']} kills of {r['commands']} commands"),
        ("kills", lambda r: f"{r['rounds_with_faults']} of {r['rounds']} results differed"),
        ("full_disks", lambda r: f"{r['tries']} tries of {r['commands']} commands"),
        ("fuzz", lambda r: f"{r['inputs']:,} damaged inputs"),
        ("fuzz", lambda r: f"| {len(r['faults'])} faults |"),
        ("soak", lambda r: f"{r['faults']} random faults"),
        ("soak", lambda r: f"{r['with_ray_on_two_nodes']} of them on a Ray cluster"),
        (
            "soak",
            lambda r: (
                f"{r['hit_a_running_command']} hit; {len(r['ends_that_differ'])} of {r['faults']} results differed"
            ),
        ),
        ("checksum_cost", lambda r: f"{r['files']['lossless, both']['damage']['added_part']:.0%} for one that was"),
        ("checksum_cost", lambda r: f"{r['files']['lossless']['damage']['added_part']:.0%} for one that has ZDATASUM"),
        ("checksum_cost", lambda r: f"({r['files']['lossless']['damage']['cpu_s_per_gb']:.0f} CPU s per GB"),
    ],
)
def test_the_numbers_of_the_page_are_those_of_the_records(name, said):
    assert said(record(name)) in PAGE.replace("\n", " ")
