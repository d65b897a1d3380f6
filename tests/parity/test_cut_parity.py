from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sky import write_tile

from lenspipe.runner import here
from lenspipe.stamps.cut import parts
from lenspipe.stamps.cut.pixels import Cells, SkyMesh
from lenspipe.stamps.cut.run import PLAIN, cut_stamps, labelled, locate
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.layout import read_layout
from lenspipe.survey.request import requested_tiles


def test_ray_writes_the_parts_of_the_plain_loop(ray_local, tmp_path, rng, monkeypatch):
    from lenspipe.distributed.cut import cut_ray

    monkeypatch.setattr(parts, "PART_BYTES", 1)  # a part per window
    write_tile(tmp_path / "tiles", "a", n_source=3)
    write_tile(tmp_path / "tiles", "b", n_source=3, seed=1)
    layout = read_layout("generic")
    tiles = requested_tiles([str(tmp_path / "tiles")], layout)
    ra, dec = rng.uniform(29.99, 30.11, 60), rng.uniform(-5.006, -4.9, 60)
    positions = {
        "stamp_id": [f"p{i}" for i in range(60)],
        "ra_deg": ra,
        "dec_deg": dec,
        "size_px": pa.nulls(60, pa.int32()),
    }
    positions["ra_deg"][:20] = np.linspace(29.995, 30.005, 20)
    positions["dec_deg"][:20] = -5.0
    located = locate(tiles, layout, labelled(pa.table(positions), None), size_px=9, zero_point_ab=None)
    spec = ImageSpec(("g", "i"), 9, located.pixel_scale_arcsec)
    for name, runner in (("plain", PLAIN), ("ray", here(partial(cut_ray, n_worker=2)))):
        out = tmp_path / name
        task = parts.CutTask(layout, spec, SkyMesh(64, 3), Cells(64, 64, 64), None, "parquet", ("invvar",), str(out))
        result = cut_stamps(located, task, out, {}, runner=runner)
        assert result.n > 5 and result.left_out
    files = sorted(file.name for file in (tmp_path / "plain").glob("*.parquet"))
    assert len(files) > 1
    assert files == sorted(file.name for file in (tmp_path / "ray").glob("*.parquet"))
    assert all(pq.read_table(tmp_path / "plain" / f).equals(pq.read_table(tmp_path / "ray" / f)) for f in files)
    assert (tmp_path / "plain/left_out.csv").read_text() == (tmp_path / "ray/left_out.csv").read_text()
