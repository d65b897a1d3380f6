"""The PSFs that a scan has measured, read from its run folder: one for every shard and band."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.schema import FROM_NOTHING, FROM_STARS, PSF_SIDE_PX
from lenspipe.tables import read_parquet

PSF_FILE = "psf.parquet"


@dataclasses.dataclass(frozen=True, eq=False)
class BandPsf:
    """
    The PSF of one shard in one band.

    Attributes
    ----------
    shard_id, tile, band : str
    psf_from : str
        ``stars`` of the shard's window, ``layout`` of the survey (then only the FWHM is known), or ``none``.
    pixel_scale_arcsec : float
    fwhm_arcsec : float
        NaN where neither stars nor layout tell.
    ellipticity, angle_deg : float
        1 - minor / major axis; major axis from +x towards +y. NaN where not measured.
    n_star : int
        Stars in the stack.
    snr, scatter : float
        Quality: signal-to-noise of the stack, and the relative standard deviation of the FWHM of its stars. NaN where
        not measured.
    stack : float32 array (y, x) or None
        The PSF in the shard's pixels, odd sides, centred, its sum 1; None where not measured.
    """

    shard_id: str
    tile: str
    band: str
    psf_from: str
    pixel_scale_arcsec: float
    fwhm_arcsec: float
    ellipticity: float
    angle_deg: float
    n_star: int
    snr: float
    scatter: float
    stack: NDArray[np.float32] | None

    @property
    def psf(self) -> float | NDArray[np.float32]:
        """
        What `lenspipe.simulate.paint` takes as a PSF: the stack where there is one, else the FWHM in arcsec.

        Raises
        ------
        ConfigError
            Neither is known.
        """
        if self.stack is not None:
            return self.stack
        if not np.isfinite(self.fwhm_arcsec):
            raise ConfigError(
                "the PSF is not known: the shard has too few stars and the survey's layout states none; "
                "add psf_fwhm_arcsec to the layout",
                shard_id=self.shard_id,
                band=self.band,
            )
        return self.fwhm_arcsec


@dataclasses.dataclass(frozen=True, eq=False)
class RunPsf:
    """PSFs of a run."""

    rows: tuple[BandPsf, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in the order of the tiles."""
        return tuple(dict.fromkeys(row.band for row in self.rows))

    def of(self, shard_id: str) -> dict[str, BandPsf]:
        """PSFs of a shard by band; empty for a shard that was not searched."""
        return {row.band: row for row in self.rows if row.shard_id == shard_id}

    def of_tile(self, tile: str) -> dict[str, list[BandPsf]]:
        """PSFs of a tile's shards by band."""
        return {b: [row for row in self.rows if row.tile == tile and row.band == b] for b in self.bands}

    def typical(self, band: str) -> BandPsf | None:
        """
        The PSF of median width among those measured from stars in a band; without any, one that a layout states.

        None where nothing is known.
        """
        known = sorted(
            (row for row in self.rows if row.band == band and row.psf_from != FROM_NOTHING),
            key=lambda row: (row.fwhm_arcsec, row.shard_id),
        )
        known = [row for row in known if row.psf_from == FROM_STARS] or known
        return known[len(known) // 2] if known else None


def read_psf(run: Path, *, shard_id: str | None = None, tile: str | None = None) -> RunPsf:
    """
    Read the PSFs of a scan.

    Parameters
    ----------
    run : Path
        Run folder.
    shard_id, tile : str, optional
        Only those of this shard, or tile; the file is sorted by shard, so little of it is read.

    Raises
    ------
    ConfigError
        The folder has no table of PSFs.
    """
    path = Path(run) / PSF_FILE
    if not path.exists():
        raise ConfigError(
            f"the run has no {PSF_FILE}: it has not ended, or was made before PSFs were measured; scan again",
            run=str(run),
        )
    filters = [(name, "=", value) for name, value in (("shard_id", shard_id), ("tile", tile)) if value is not None]
    names = [f.name for f in dataclasses.fields(BandPsf)]
    table = read_parquet(path, columns=names, filters=filters or None)
    stacks = table["stack"].combine_chunks().flatten().to_numpy().reshape(-1, PSF_SIDE_PX, PSF_SIDE_PX)
    rows: list[dict[str, Any]] = table.drop_columns("stack").to_pylist()
    measured: list[dict[str, Any]] = [{k: np.nan if v is None else v for k, v in row.items()} for row in rows]
    found = zip(measured, stacks, strict=True)
    return RunPsf(tuple(BandPsf(**row, stack=s if row["psf_from"] == FROM_STARS else None) for row, s in found))
