"""Rates of the stages of a scan, from shards whose numbers are known."""

import pyarrow as pa

from lenspipe.scan.provenance import stage_rates


def test_rates_are_pixels_of_the_cores_in_each_band_and_scored_candidates_per_second_of_all_workers():
    def shard(status, x1, n, read_s, detect_s, score_s):
        box = {"x0_px": 100, "x1_px": x1, "y0_px": 0, "y1_px": 50}
        times = {"read_s": read_s, "detect_s": detect_s, "score_s": score_s}
        return {"status": status, **box, "n_candidate": n, **times}

    shards = pa.Table.from_pylist(
        [
            shard("ok", 200, 30, 0.5, 2.0, 1.5),
            shard("ok", 140, 12, 0.5, 1.0, None),  # nothing scored them
            shard("ok", 110, 5, 0.0, 0.0, 0.0),  # nor these
            shard("failed", 900, 99, 1.0, None, None),  # cost time and gave nothing
        ]
    )
    assert stage_rates(shards, ("g", "r")) == {
        "read_s": 2.0,
        "detect_s": 3.0,
        "score_s": 1.5,
        "read_px_per_s": (100 + 40 + 10) * 50 * 2 / 2.0,
        "detect_px_per_s": round((100 + 40 + 10) * 50 * 2 / 3.0),
        "scored_per_s": 20.0,
    }
    nothing = stage_rates(shards.slice(0, 0), ("g",))
    assert (nothing["read_px_per_s"], nothing["detect_px_per_s"], nothing["scored_per_s"]) == (None, None, None)
