"""Arrow schemas of what a scan writes; unit, UCD and description stand on every field."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lenspipe.bands import known_band

VERSION = "1"
PSF_SIDE_PX = 41
"""Side of a stacked PSF, pixels; odd."""
FROM_STARS, FROM_LAYOUT, FROM_NOTHING = "stars", "layout", "none"
"""Where a PSF, or a star cut, comes from: the window's own stars, the survey's layout, or nowhere."""


def field(name: str, kind: pa.DataType, description: str, *, unit: str = "", ucd: str = "") -> pa.Field:
    """A field with its description, unit (VOUnits) and UCD (IVOA UCD1+) in the metadata."""
    metadata = {"description": description, "unit": unit, "ucd": ucd}
    return pa.field(name, kind, metadata={k: v for k, v in metadata.items() if v})


def _em(band: str) -> str:
    """Spectral part of a UCD; empty for bands without one in the IVOA's list."""
    known = known_band(band)
    return f";{known.ucd}" if known and known.ucd else ""


SUBSTRUCTURE_CLASSES = ("no_substructure", "subhalo", "vortex")
"""Classes that a candidate's columns can hold a probability of."""
SUBSTRUCTURE_TARGETS = {
    "theta_e_arcsec": ("Einstein radius", "arcsec", "phys.angSize"),
    "subhalo_mass_fraction": ("Projected mass fraction in subhalos", "", "phys.mass;arith.ratio"),
    "vortex_mass_msun": ("Mass of the vortex", "solMass", "phys.mass"),
    "vortex_density_msun_kpc": ("Mass of the vortex per length", "solMass/kpc", "phys.density"),
    "axion_mass_ev": ("Mass of the axion", "eV", "phys.mass"),
}
"""Quantities that a candidate's columns can hold an estimate of."""


def score_fields() -> list[pa.Field]:
    """What a finder says of a candidate."""
    return [
        field(
            "score",
            pa.float64(),
            "Raw score of the model, not a probability; null where none applies",
            ucd="stat.value",
        ),
        field(
            "probability",
            pa.float64(),
            "Calibrated probability to be a lens at the run's prior; null without a calibration",
            ucd="stat.probability",
        ),
    ]


def substructure_fields() -> list[pa.Field]:
    """What the stage ``--substructure`` of a scan says of a candidate; `nothing` where it did not run."""
    fields = [
        field(
            "substructure_class",
            pa.string(),
            "Most probable class of dark matter, or abstained; empty where not asked",
            ucd="meta.code.class",
        ),
        field(
            "substructure_reason",
            pa.string(),
            "Why it abstained: psf, masked, fit, snr, radius or confidence; else empty",
            ucd="meta.code.qual",
        ),
    ]
    for name in SUBSTRUCTURE_CLASSES:
        text = f"Probability of the class {name}, by the classifier's softmax"
        fields.append(field(f"probability_{name}", pa.float32(), text, ucd="stat.probability"))
    for name, (text, unit, ucd) in SUBSTRUCTURE_TARGETS.items():
        fields.append(field(name, pa.float32(), f"{text}, estimated by a network", unit=unit, ucd=ucd))
        error = f"Standard deviation that the network states for {name}"
        fields.append(field(error_column(name), pa.float32(), error, unit=unit, ucd=f"stat.error;{ucd}"))
    return fields


def fitted_fields(noise: str) -> list[pa.Field]:
    """What smooth lenses that are fitted for a network of substructure say of a candidate; ``noise`` in words."""
    left = f"Mean square that the fitted smooth lens leaves in units of the noise, {noise}; null where none was fitted"
    return [
        field(
            "fitted_theta_e_arcsec",
            pa.float32(),
            "Einstein radius of the fitted smooth lens, whatever substructure there is; null where none was fitted",
            unit="arcsec",
            ucd="phys.angSize",
        ),
        field("fitted_chi2", pa.float32(), left, ucd="stat.fit.chi2"),
    ]


EMBEDDING = "embedding"
"""Column of the vectors of ``--embed``."""


def embedding_field(size: int) -> pa.Field:
    """The vector that describes a candidate."""
    text = "Vector of length 1 that describes the image: alike images have alike directions"
    return field(EMBEDDING, pa.list_(pa.float16(), size), text, ucd="stat.value")


def anomaly_fields() -> list[pa.Field]:
    """What the model of ``--anomaly`` says of a candidate."""
    return [
        field(
            "anomaly_score",
            pa.float32(),
            "How unlike the normal stamps of the model's training the image is",
            ucd="stat.value",
        ),
        field(
            "anomaly_false_positive_rate",
            pa.float32(),
            "Part of held-out normal stamps that are as unlike",
            ucd="stat.probability",
        ),
    ]


def ood_field() -> pa.Field:
    """How unlike its finder's training set a candidate is."""
    text = "Part of held-out stamps of the finder's training set that are more like it than this image"
    return field("ood_quantile", pa.float32(), text, ucd="stat.probability")


def nothing(of: pa.Field, n: int) -> pa.Array:
    """``n`` values of a column where nothing was found out: null, and of words the empty one (astropy reads no null text)."""
    return pa.array([""] * n, of.type) if pa.types.is_string(of.type) else pa.nulls(n, of.type)


def error_column(target: str) -> str:
    """
    Column of the error of an estimate: ``err`` stands before the unit.

    Examples
    --------
    >>> error_column("vortex_mass_msun"), error_column("subhalo_mass_fraction")
    ('vortex_mass_err_msun', 'subhalo_mass_fraction_err')
    """
    for unit in ("_msun_kpc", "_msun", "_arcsec", "_ev"):
        if target.endswith(unit):
            return f"{target.removesuffix(unit)}_err{unit}"
    return f"{target}_err"


def added_fields(bands: tuple[str, ...], fields: Sequence[pa.Field]) -> list[pa.Field]:
    """Those of a candidate's fields that not every scan has."""
    known = {f.name for f in measured_fields(bands)}
    return [f for f in fields if f.name not in known]


def measured_fields(bands: tuple[str, ...], added: Sequence[pa.Field] = ()) -> list[pa.Field]:
    """
    What is measured of one candidate; nested in a shard's row, and columns of the catalogue.

    ``added`` are columns of models that not every scan has.
    """
    fields = [
        field("candidate_id", pa.string(), "Identifier: shard and number of the source in it", ucd="meta.id;meta.main"),
        field("ra", pa.float64(), "Right ascension, ICRS", unit="deg", ucd="pos.eq.ra;meta.main"),
        field("dec", pa.float64(), "Declination, ICRS", unit="deg", ucd="pos.eq.dec;meta.main"),
        field("x_px", pa.float64(), "Column in the full tile, 0-based", unit="pix", ucd="pos.cartesian.x;instr.det"),
        field("y_px", pa.float64(), "Row in the full tile, 0-based", unit="pix", ucd="pos.cartesian.y;instr.det"),
    ]
    for band in bands:
        em = _em(band)
        fields += [
            field(f"flux_{band}_njy", pa.float32(), f"Kron flux in {band}", unit="nJy", ucd=f"phot.flux.density{em}"),
            field(
                f"flux_err_{band}_njy",
                pa.float32(),
                f"Error of the Kron flux in {band}, sky noise only",
                unit="nJy",
                ucd=f"stat.error;phot.flux.density{em}",
            ),
            field(f"mag_{band}", pa.float32(), f"AB magnitude in {band}", unit="mag", ucd=f"phot.mag{em}"),
            field(
                f"mag_err_{band}",
                pa.float32(),
                f"Error of the magnitude in {band}",
                unit="mag",
                ucd=f"stat.error;phot.mag{em}",
            ),
        ]
    return [
        *fields,
        field(
            "half_light_radius_arcsec",
            pa.float32(),
            "Radius that holds half of the Kron flux, detection image",
            unit="arcsec",
            ucd="phys.angSize",
        ),
        field("axis_ratio", pa.float32(), "Minor over major axis, second moments", ucd="phys.angSize;arith.ratio"),
        field("angle_deg", pa.float32(), "Major axis, from +x towards +y of the tile", unit="deg", ucd="pos.posAng"),
        field("flags", pa.int32(), "1 blended, 2 edge, 4 masked pixels, 8 no flux in a band", ucd="meta.code"),
        field("mask_fraction", pa.float32(), "Masked part of the Kron ellipse", ucd="phys.angArea;arith.ratio"),
        field(
            "covered_fraction",
            pa.float32(),
            "Part of the cutout that holds data, null without a model",
            ucd="phys.angArea;arith.ratio",
        ),
        *score_fields(),
        *added,
    ]


def candidates_schema(bands: tuple[str, ...], added: Sequence[pa.Field] = ()) -> pa.Schema:
    """Columns of ``candidates.parquet``; ``added`` as in `measured_fields`."""
    head, *tail = measured_fields(bands, added)
    return pa.schema(
        [
            head,
            field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
            field("shard_id", pa.string(), "Shard of the tile", ucd="meta.id;meta.dataset"),
            *tail,
            field(
                "model",
                pa.string(),
                "Digest of the model that scored, empty where none did",
                ucd="meta.id;meta.modelled",
            ),
        ],
        metadata={"lenspipe.table": "candidates", "lenspipe.schema": VERSION},
    )


def shards_schema(bands: tuple[str, ...]) -> pa.Schema:
    """Columns of ``shards.parquet``: one row for every shard of the plan."""
    per_band = [
        item
        for band in bands
        for item in (
            field(
                f"sky_rms_{band}_njy",
                pa.float32(),
                f"Median sky noise per pixel in {band}",
                unit="nJy",
                ucd="instr.skyLevel;stat.stdev",
            ),
            field(
                f"depth_{band}_mag",
                pa.float32(),
                f"5 sigma in a 2 arcsec aperture in {band}, AB",
                unit="mag",
                ucd=f"phot.mag{_em(band)};stat.max",
            ),
            field(f"masked_{band}", pa.float32(), f"Masked part of the core in {band}", ucd="phys.angArea;arith.ratio"),
            field(
                f"zero_point_{band}_ab",
                pa.float64(),
                f"AB magnitude of one pixel unit of the tile's image in {band}",
                unit="mag",
                ucd=f"phot.mag{_em(band)};arith.zp",
            ),
            field(f"zero_point_source_{band}", pa.string(), f"Who states the zero-point in {band}", ucd="meta.note"),
            field(f"bunit_{band}", pa.string(), f"BUNIT of the image in {band}, empty without", ucd="meta.unit"),
            field(
                f"grid_shift_{band}_px",
                pa.float32(),
                f"Most by which the grid of {band} lies off that of the tile's first band",
                unit="pix",
                ucd="pos.cartesian.x;arith.diff",
            ),
            field(
                f"sentinel_{band}_px",
                pa.int64(),
                f"Pixels of the core in {band} that held a number in place of no data; masked",
                ucd="meta.number",
            ),
            field(
                f"psf_fwhm_{band}_arcsec",
                pa.float32(),
                f"Full width at half maximum of the PSF in {band}, as psf_from_{band} says",
                unit="arcsec",
                ucd=f"instr.obsty.seeing{_em(band)}",
            ),
            field(
                f"psf_ellipticity_{band}",
                pa.float32(),
                f"1 - minor / major axis of the PSF in {band}; null where not measured",
                ucd="src.ellipticity",
            ),
            field(
                f"psf_variation_{band}",
                pa.float32(),
                f"Largest less smallest FWHM in {band} over the window, by a plane through its stars, as a fraction",
                ucd="stat.variance;instr.obsty.seeing",
            ),
            field(f"psf_n_star_{band}", pa.int32(), f"Stars that show the PSF in {band}", ucd="meta.number"),
            field(
                f"psf_from_{band}",
                pa.string(),
                f"Who states the PSF in {band}: stars of this window, layout of the survey, or none",
                ucd="meta.note",
            ),
        )
    ]
    corners = pa.list_(pa.float64(), 4)
    return pa.schema(
        [
            field("shard_id", pa.string(), "Identifier of the shard", ucd="meta.id;meta.main"),
            field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
            field("status", pa.string(), "ok or failed", ucd="meta.code.status"),
            field("x0_px", pa.int32(), "First column of the core", unit="pix", ucd="pos.cartesian.x;instr.det"),
            field("y0_px", pa.int32(), "First row of the core", unit="pix", ucd="pos.cartesian.y;instr.det"),
            field("x1_px", pa.int32(), "Column after the core", unit="pix", ucd="pos.cartesian.x;instr.det"),
            field("y1_px", pa.int32(), "Row after the core", unit="pix", ucd="pos.cartesian.y;instr.det"),
            field("n_source", pa.int64(), "Sources detected and measured in the core", ucd="meta.number"),
            field("n_candidate", pa.int64(), "Sources that passed the selection", ucd="meta.number"),
            field(
                "n_star_cut", pa.int64(), "Sources that passed the selection but were cut as stars", ucd="meta.number"
            ),
            field(
                "n_galaxy_cut",
                pa.float32(),
                "Galaxies expected among those cut as stars; null where the cut goes by the layout",
                ucd="meta.number;stat.mean",
            ),
            field(
                "star_cut_from",
                pa.string(),
                "What the star cut goes by: stars of the window, layout of the survey, or none",
                ucd="meta.note",
            ),
            field("n_star", pa.int32(), "Stars of the window on the measured locus of sizes", ucd="meta.number"),
            field(
                "star_radius_arcsec",
                pa.float32(),
                "Half-light radius of bright stars, measured as that of the sources; null where stars are too few",
                unit="arcsec",
                ucd="phys.angSize;stat.median",
            ),
            field(
                "pixel_scale_arcsec",
                pa.float64(),
                "Pixel scale in the middle of the tile",
                unit="arcsec/pix",
                ucd="instr.scale",
            ),
            field("area_deg2", pa.float64(), "Area of the core that was searched", unit="deg**2", ucd="phys.angArea"),
            field(
                "corner_ra_deg",
                corners,
                "Corners of the core, counter-clockwise in pixels from x0, y0",
                unit="deg",
                ucd="pos.eq.ra",
            ),
            field("corner_dec_deg", corners, "Corners of the core", unit="deg", ucd="pos.eq.dec"),
            *per_band,
            field("read_s", pa.float32(), "Time to read the window", unit="s", ucd="time.duration"),
            field(
                "detect_s",
                pa.float32(),
                "Time for background, detection, photometry and cutouts",
                unit="s",
                ucd="time.duration",
            ),
            field(
                "score_s",
                pa.float32(),
                "Time to score, shared among the shards of a call",
                unit="s",
                ucd="time.duration",
            ),
        ],
        metadata={"lenspipe.table": "shards", "lenspipe.schema": VERSION},
    )


def psf_fields() -> list[pa.Field]:
    """What is known of the PSF of a shard in one band; nested in the ledger, and columns of ``psf.parquet``."""
    return [
        field("band", pa.string(), "Band", ucd="meta.id;instr.bandpass"),
        field("psf_from", pa.string(), "stars of the window, layout of the survey, or none", ucd="meta.note"),
        field("n_star", pa.int32(), "Stars in the stack", ucd="meta.number"),
        field("snr", pa.float32(), "Signal-to-noise of the stack: its quality", ucd="stat.snr"),
        field(
            "scatter",
            pa.float32(),
            "Standard deviation of the FWHM of single stars, as a fraction: how well one PSF stands for the window",
            ucd="stat.stdev;instr.obsty.seeing",
        ),
        field("fwhm_arcsec", pa.float32(), "Full width at half maximum", unit="arcsec", ucd="instr.obsty.seeing"),
        field("beta", pa.float32(), "Exponent of the fitted Moffat function", ucd="stat.fit.param"),
        field("ellipticity", pa.float32(), "1 - minor / major axis", ucd="src.ellipticity"),
        field("angle_deg", pa.float32(), "Major axis, from +x towards +y of the tile", unit="deg", ucd="pos.posAng"),
        field(
            "variation",
            pa.float32(),
            "Largest less smallest FWHM over the window, by a plane through its stars, as a fraction",
            ucd="stat.variance;instr.obsty.seeing",
        ),
        field("pixel_scale_arcsec", pa.float64(), "Pixel scale of the stack", unit="arcsec/pix", ucd="instr.scale"),
        field(
            "stack",
            pa.list_(pa.float32(), PSF_SIDE_PX**2),
            f"The PSF, {PSF_SIDE_PX} x {PSF_SIDE_PX} pixels row by row, centred, its sum 1; NaN where not measured",
            ucd="instr.det.psf",
        ),
    ]


PSF = pa.schema(
    [
        field("shard_id", pa.string(), "Shard", ucd="meta.id;meta.dataset"),
        field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
        *psf_fields(),
    ],
    metadata={"lenspipe.table": "psf", "lenspipe.schema": VERSION},
)
"""Columns of ``psf.parquet``: one row per searched shard and band."""

FAILURES = pa.schema(
    [
        field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
        field("shard_id", pa.string(), "Shard; empty where the tile failed before it was cut up", ucd="meta.id"),
        field("file", pa.string(), "File that the failure is about", ucd="meta.ref"),
        field("stage", pa.string(), "plan, read, detect or score", ucd="meta.code"),
        field("error_type", pa.string(), "Kind of error", ucd="meta.code.error"),
        field("message", pa.string(), "What is wrong, which value, what to do", ucd="meta.note"),
    ],
    metadata={"lenspipe.table": "failures", "lenspipe.schema": VERSION},
)


def part_schema(bands: tuple[str, ...], added: Sequence[pa.Field] = ()) -> pa.Schema:
    """
    A shard's row in the ledger: its `shards_schema` columns, its failure if any, its candidates nested.

    ``added`` as in `measured_fields`.
    """
    return pa.schema(
        [
            *shards_schema(bands),
            field("file", pa.string(), "File that the failure is about"),
            field("stage", pa.string(), "Stage that failed"),
            field("error_type", pa.string(), "Kind of error"),
            field("message", pa.string(), "What went wrong"),
            field("inputs", pa.string(), "JSON list of the tile's files with size and checksum, in its first shard"),
            field("model", pa.string(), "Digest of the model that scored"),
            field("noted", pa.large_binary(), "Arrow table of what changed the pixels, if anything did"),
            field("psf", pa.list_(pa.struct(psf_fields())), "PSF of each band"),
            field("candidates", pa.list_(pa.struct(measured_fields(bands, added))), "Candidates of the core"),
        ]
    )
