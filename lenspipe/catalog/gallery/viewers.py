"""Links of the page: where else to look at a position, the survey's own viewer first."""

from __future__ import annotations

from collections.abc import Iterable

from lenspipe.survey.layout import SurveyLayout

_ALADIN = "https://aladin.cds.unistra.fr/AladinLite/?target={ra}%20{dec}&fov=0.02"
OF_SURVEY: dict[str, dict[str, str]] = {
    "legacysurvey": {"Legacy Surveys": "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&layer=ls-dr10&zoom=16"},
    "des": {"DES in Aladin": f"{_ALADIN}&survey=CDS%2FP%2FDES-DR2%2FColorIRG"},
    "hsc": {"HSC in Aladin": f"{_ALADIN}&survey=CDS%2FP%2FHSC%2FDR2%2Fwide%2Fcolor-i-r-g"},
    "ps1": {"Pan-STARRS": "https://ps1images.stsci.edu/cgi-bin/ps1cutouts?pos={ra}+{dec}&filter=color&size=240"},
    "2mass": {"2MASS in Aladin": f"{_ALADIN}&survey=CDS%2FP%2F2MASS%2Fcolor"},
    "wise": {"AllWISE in Aladin": f"{_ALADIN}&survey=CDS%2FP%2FallWISE%2Fcolor"},
}
"""Viewers of shipped layouts, by the layout's name; a layout of one's own has its ``viewers``. They are no part of the
shipped layouts' files, which are a part of every request: with another link a run could not be resumed."""
OF_ALL = {
    "Legacy Surveys": OF_SURVEY["legacysurvey"]["Legacy Surveys"],
    "Aladin": _ALADIN,
    "ESASky": "https://sky.esa.int/esasky/?target={ra}%20{dec}&fov=0.02&cooframe=J2000",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={ra}%20{dec}&CooFrame=ICRS&Radius=5&Radius.unit=arcsec",
}


def viewers_of(layouts: Iterable[SurveyLayout]) -> list[tuple[str, str]]:
    """
    Names and addresses with ``{ra}`` and ``{dec}``, each name once.

    Parameters
    ----------
    layouts : iterable of SurveyLayout
        Of the runs in a catalogue.
    """
    found: dict[str, str] = {}
    for layout in layouts:
        for name, address in {**layout.viewers, **OF_SURVEY.get(layout.name, {})}.items():
            found.setdefault(name, address)
    for name, address in OF_ALL.items():
        found.setdefault(name, address)
    return list(found.items())
