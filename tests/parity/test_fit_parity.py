from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest

from lenspipe.errors import DataError
from lenspipe.infer import fitted_run
from lenspipe.infer.fitted_run import PLAIN, drawn_signals, write_fitted
from lenspipe.infer.fitted_set import priors_of
from lenspipe.runner import here
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.simulate.signals import draw_signals, lenses_of
from lenspipe.stamps.format import StampSet, write_part

PARTS = {"part_rows": 6, "image.0.supersampling": 2}
SMALL = {"image.0.pixel_scale_arcsec": 0.2, "image.0.size_px": 20, "part_rows": 5}


def on_ray(n_worker):
    from lenspipe.distributed.fit import fit_ray

    return here(partial(fit_ray, n_worker=n_worker))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "s"
    simulate(read_recipe("model-j", changes=SMALL), count=23, seed=3, out=out)
    return StampSet.open(out)


def test_ray_fits_what_the_plain_loop_fits(ray_local, simulated, tmp_path):
    for name, runner in (("plain", PLAIN), ("ray", on_ray(3))):
        said = write_fitted(simulated, priors_of(simulated), tmp_path / name, band="I", runner=runner)
        assert said["new_rows"] == 23
    files = sorted(path.name for path in (tmp_path / "plain").glob("*.parquet"))
    assert len(files) == 5
    assert files == sorted(path.name for path in (tmp_path / "ray").rglob("*.parquet"))
    assert all(pq.read_table(tmp_path / "plain" / f).equals(pq.read_table(tmp_path / "ray" / f)) for f in files)
    assert not (tmp_path / "ray" / fitted_run.WAITING).exists()


def test_ray_tells_the_odds_that_the_plain_loop_tells(ray_local, tmp_path):
    recipe = read_recipe("substructure-1", changes={"image.0.size_px": 40, "image.0.pixel_scale_arcsec": 0.1} | PARTS)
    simulate(recipe, count=12, seed=3, out=tmp_path / "s")
    data = StampSet.open(tmp_path / "s")
    table = draw_signals(recipe, lenses_of(data), n=1024, seed=0)
    drawn = drawn_signals("substructure-1", "", table, seed=0)
    for name, runner in (("plain", PLAIN), ("ray", on_ray(2))):
        how = {"signals": drawn, "clumps": 1, "rounds": 2, "runner": runner}
        write_fitted(data, priors_of(data, light=False), tmp_path / name, band="F814W", **how)
    for part in (tmp_path / "plain").glob("*.parquet"):
        one = pq.read_table(part)
        assert {"fitted_vortex_log_odds", "fitted_vortex_length_arcsec"} <= set(one.column_names)
        assert one.equals(pq.read_table(tmp_path / "ray" / part.name))


def test_a_stamp_that_cannot_be_fitted_ends_ray_with_a_line_and_the_others_stay(ray_local, simulated, tmp_path):
    for number, part in enumerate(simulated.parts):
        rows, name = pq.read_table(part), "sky_rms_I_njy"
        if number == 4:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), [np.zeros(len(rows))])
        write_part(rows, tmp_path / "bad", part.stem)
    bad = StampSet.open(tmp_path / "bad")
    with pytest.raises(DataError, match=r"noise of the sky must be positive.*n=3"):
        write_fitted(bad, priors_of(simulated), tmp_path / "out", band="I", runner=on_ray(1))
    waiting = tmp_path / "out" / fitted_run.WAITING
    assert len(list(waiting.glob("*.parquet"))) == 4 and not list((tmp_path / "out").glob("*.parquet"))
    # mended with columns of the same size, it is resumed by the plain loop
    with pytest.raises(DataError, match="must be positive"):
        write_fitted(bad, priors_of(simulated), tmp_path / "out", band="I", resume=True)


def test_stamps_that_kill_their_process_are_given_up(ray_local, simulated, tmp_path, monkeypatch):
    from lenspipe.distributed.fit import UnitFitter
    from lenspipe.scan.attempts import begin

    waiting = tmp_path / "w"
    work = fitted_run.FitUnits(None, str(waiting))
    unit = fitted_run.plan_units(simulated)[0]
    for _ in range(2):
        begin(waiting / ".attempts", "fit", unit.name)
    with pytest.raises(DataError, match=r"died again and again.*deaths=2"):
        UnitFitter(work)(unit)
