import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.survey.shards import cut_into_shards

SIZES = st.integers(1, 700)


@given(
    height=SIZES, width=SIZES, core=st.integers(40, 300), halo=st.integers(0, 100), align=st.sampled_from([1, 8, 64])
)
def test_cores_cover_each_pixel_once_and_windows_hold_their_cores(height, width, core, halo, align):
    seen = np.zeros((height, width), int)
    for shard in cut_into_shards("T", (height, width), core_px=core, halo_px=halo, align_px=align):
        seen[shard.core.slices] += 1
        window = np.zeros((height, width), bool)
        window[shard.window.slices] = True
        assert window[shard.core.slices].all()
        assert window.sum() == shard.window.n_px
    assert (seen == 1).all()


@given(st.lists(st.tuples(st.floats(-0.5, 499.49), st.floats(-0.5, 299.49)), min_size=1, max_size=50))
def test_each_position_of_a_tile_belongs_to_exactly_one_core(positions):
    x_px, y_px = np.array(positions).T
    shards = cut_into_shards("T", (300, 500), core_px=128, halo_px=64, align_px=64)
    assert (sum(s.core.contains(x_px, y_px).astype(int) for s in shards) == 1).all()


def test_ids_are_unique_and_depend_on_corner_and_core_only():
    wide = cut_into_shards("T", (300, 500), core_px=128, halo_px=64)
    narrow = cut_into_shards("T", (300, 500), core_px=128, halo_px=0)
    assert [s.shard_id for s in wide] == [s.shard_id for s in narrow]
    assert len({s.shard_id for s in wide}) == len(wide)
    assert [s.first_of_tile for s in wide] == [True] + [False] * (len(wide) - 1)


def test_a_negative_halo_is_refused():
    with pytest.raises(ValueError, match="halo_px not negative"):
        cut_into_shards("T", (10, 10), core_px=5, halo_px=-1)
