import io

import numpy as np
from PIL import Image

from lenspipe.evaluate.extremes import KEPT, Extremes, extremes_section


def test_the_worst_of_all_batches_are_kept_in_order_with_their_stamps(rng):
    n, bands = 300, ("g", "r", "i")
    score, is_lens = rng.integers(0, 40, n) / 40, rng.uniform(size=n) < 0.4
    pixels = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 3, 21, 21))
    ids = [f"s{i:03d}" for i in range(n)]
    extremes = Extremes()
    for rows in np.array_split(np.arange(n), 7):
        some = [ids[i] for i in rows]
        extremes.add(score[rows], is_lens[rows], some, [None] * len(rows), pixels[rows], bands)
    for kept, sign, of in ((extremes.missed, 1, is_lens), (extremes.false_alarms, -1, ~is_lens)):
        want = sorted(sign * score[of])[:KEPT]
        assert [sign * one.score for one in kept] == want
        for one in kept:
            i = int(one.stamp_id[1:])
            assert of[i] and score[i] == one.score and (one.stamp == i).all() and one.stamp.shape == (3, 21, 21)
    section = extremes_section({"a": extremes, "b": Extremes()})
    assert [name for name, _ in section.pictures] == ["missed_1.png", "false_alarms_1.png"]
    assert Image.open(io.BytesIO(section.pictures[0][1])).width == 6 * (126 + 2)
    assert [len(rows) for _, rows in section.tables] == [KEPT, KEPT]
    assert section.tables[0][1][0][:3] == ["a", "missed 1", extremes.missed[0].stamp_id]
