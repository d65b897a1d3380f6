"""Stamps of any recipe painted on the sources and the sky of a run: `lenspipe simulate --hosts RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lenspipe.catalog.records import run_record
from lenspipe.errors import ConfigError
from lenspipe.finder.recipe import HOSTS, survey_recipe
from lenspipe.finder.request import FinderRequest, Runners
from lenspipe.finder.run import make_finder
from lenspipe.finder.settings import FinderSettings
from lenspipe.runner import Progress
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet
from lenspipe.survey.layout import SurveyLayout
from lenspipe.toml import validate


def paint_on_run(
    run: Path,
    recipe: Recipe | None,
    *,
    count: int,
    seed: int,
    out: Path,
    resume: bool,
    progress: Progress,
    runners: Runners | None = None,
) -> dict[str, Any]:
    """
    Paint stamps on a run's own pixels; its hosts go beside them, into ``OUT-hosts``.

    Parameters
    ----------
    run : Path
        Folder of a scan.
    recipe : Recipe or None
        Classes, deflectors, sources and bands; those of `lenspipe.finder.recipe` where None. Pixel scale, PSF and noise
        are the run's.
    count, seed, out, resume
        As of `lenspipe.simulate.run.simulate`.
    progress : Progress
    runners : Runners, optional

    Returns
    -------
    dict
        As of `simulate`, with ``hosts``, the record of the hosts.

    Raises
    ------
    ConfigError, DataError
        The run has no hosts, or the recipe more than one image.
    """
    runners = runners or Runners()
    layout = validate(run_record(run / "run.json")["request"]["survey"], SurveyLayout, origin="run.json")
    bands: tuple[str, ...] = ()
    if recipe is not None:
        if len(recipe.image) > 1 or recipe.kind != "finder":
            raise ConfigError("hosts of a run need a recipe for finders with one image", recipe=recipe.name)
        bands = recipe.image[0].bands
    folder = out.with_name(f"{out.name}-hosts")
    request = FinderRequest((str(run.absolute()),), layout, FinderSettings(), bands=bands, seed=seed)
    record = make_finder(request, folder, progress=progress, runners=runners, until="hosts").record
    spec = StampSet.open(folder / "hosts").images["image"]
    own = survey_recipe(
        record["survey"],
        record["bands"],
        size_px=recipe.image[0].size_px if recipe else stamp_side_px(spec.pixel_scale_arcsec),
        pixel_scale_arcsec=spec.pixel_scale_arcsec,
        psf_fwhm_arcsec=list(record["psf_fwhm_arcsec"].values()),
        sky_rms_njy=list(record["sky_rms_njy"].values()),
        survey_scale_arcsec=spec.pixel_scale_arcsec,
    )
    if recipe is not None:
        hosts = recipe.hosts or HOSTS.model_copy(update={"theta_e_arcsec": None, "arc_snr_min": None})
        own = recipe.model_copy(update={"image": own.image, "survey": own.survey, "hosts": hosts})
    done = simulate(
        own,
        count=count,
        seed=seed,
        out=out,
        runner=runners.simulate,
        host_folder=folder / "hosts",
        resume=resume,
        progress=progress,
    )
    return done | {"hosts": record}


def stamp_side_px(pixel_scale_arcsec: float) -> int:
    """Odd side of the stamps that `lenspipe.finder.settings.StampSettings` asks for by default."""
    return 2 * round(FinderSettings().stamps.side_arcsec / pixel_scale_arcsec / 2) + 1
