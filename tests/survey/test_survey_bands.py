"""One line in `lenspipe.bands.TABLE` makes a band known to everything that asks about bands."""

import dataclasses

import numpy as np
import pytest

from lenspipe import bands
from lenspipe.schema import measured_fields
from lenspipe.simulate.photometry import BANDS, band_fluxes_njy, early_type_colours
from lenspipe.survey.layout import read_layout
from lenspipe.survey.tile import Tile, group_tiles

NEW = bands.Band(name="F129", ucd="em.IR.J", selection=1, flux_of=("Y", "J"), in_file_names=True)


@pytest.fixture
def with_a_new_band(monkeypatch):
    table = [band for band in bands.TABLE for band in ((NEW, band) if band.name == "J" else (band,))]
    for band in table:
        if band.selection is not None and band is not NEW:
            table[table.index(band)] = dataclasses.replace(band, selection=band.selection + 1)
    monkeypatch.setattr(bands, "TABLE", tuple(table))


def all_that_is_known_of(band: str) -> dict[str, object]:
    names = [f"/data/field_{b}.fits" for b in ("H", band, "u")]
    (tile,) = [t for t in group_tiles(names, read_layout("generic")) if t.name == "field"]
    assert isinstance(tile, Tile)
    ucd = {f.name: (f.metadata or {}).get(b"ucd", b"").decode() for f in measured_fields((band,))}
    return {
        "order of a tile's bands": [b.band for b in tile.bands],
        "ucd of its magnitude": ucd[f"mag_{band}"],
        "band of the selection": bands.selection_band(("g", "r", band)),
        "colours of a gallery": bands.colour_bands(["Y", "H", band]),
        "flux of a simulated galaxy": float(band_fluxes_njy(20.0, early_type_colours(0.3), (band,))[0]),
    }


def test_a_band_that_is_added_to_the_table_is_known_to_all_its_users(with_a_new_band):
    y, j = band_fluxes_njy(20.0, early_type_colours(0.3), ("Y", "J"))
    assert all_that_is_known_of("F129") == {
        "order of a tile's bands": ["u", "F129", "H"],
        "ucd of its magnitude": "phot.mag;em.IR.J",
        "band of the selection": "F129",
        "colours of a gallery": ("H", "F129", "Y"),
        "flux of a simulated galaxy": pytest.approx((y + j) / 2),
    }


def test_a_band_that_is_not_in_the_table_is_named_and_comes_last():
    with pytest.raises(Exception, match=r"no colour is known for these bands \[bands='F129'"):
        band_fluxes_njy(20.0, early_type_colours(0.3), ("F129",))
    assert sorted(["F129", "Ks", "u"], key=bands.by_wavelength) == ["u", "Ks", "F129"]
    assert bands.selection_band(("F129", "F2100W")) == "F129"
    assert bands.known_band("F129") is None


def test_names_and_places_of_selection_occur_once_and_simulated_bands_exist():
    names = [band.name for band in bands.TABLE]
    ranks = [band.selection for band in bands.TABLE if band.selection is not None]
    assert len(set(names)) == len(names)
    assert sorted(ranks) == list(range(1, len(ranks) + 1))
    assert {part for band in bands.TABLE for part in band.flux_of} == set(BANDS)


def test_orders_that_stood_in_the_code_before_the_table_are_kept():
    order = ("u", "g", "r", "i", "VIS", "z", "y", "Y", "J", "H", "K", "Ks")
    assert tuple(sorted(set(order), key=bands.by_wavelength)) == order
    ranked = [(band.selection, band.name) for band in bands.TABLE if band.selection]
    want = ("i", "I", "VIS", "F814W", "r", "z", "Y", "y", "J", "H", "Ks", "K", "g", "u")
    assert tuple(name for _, name in sorted(ranked)) == want
    assert bands.file_name_pattern() == "(?P<band>[ugrizyYJHK]|Ks|VIS)"  # stands in the request of earlier runs
    r, i, z, vis = band_fluxes_njy(20.0, early_type_colours(0.3), ("r", "i", "z", "VIS"))
    assert vis == np.float64((r + i + z) / 3)
