"""What a network learns to expect of the fits that made a band of its stamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lenspipe.errors import ConfigError, DataError
from lenspipe.nn.fitted import CHI2, KEY, SmoothFit
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import JoinedStamps

QUANTILES = (0.01, 0.5, 0.99)


def fit_of(stamps: StampSet) -> SmoothFit | None:
    """
    How a data set says that its band of residuals was made; None where it does not.

    Raises
    ------
    DataError
        Data sets that are read as one were fitted in different ways, or what one says is damaged.
    """
    members = stamps.members if isinstance(stamps, JoinedStamps) else (stamps,)
    found = [_said(member) for member in members]
    first = found[0]
    if all(one == first for one in found):
        return first
    for one, member in zip(found, members, strict=True):
        if one is None or first is None or one.how != first.how:
            raise DataError(
                "two data sets were fitted in different ways, and what is left of their stamps is not alike: fit both "
                "--like one of them",
                one=members[0].title,
                other=member.title,
            )
    # exposures and telescopes may differ, what was expected of the lenses may not
    return None if first is None else first.model_copy(update={"fwhm_arcsec": None, "njy_per_electron": None})


def _said(stamps: StampSet) -> SmoothFit | None:
    if CHI2 not in stamps.schema.names:
        return None
    text = (stamps.schema.field(CHI2).metadata or {}).get(KEY)
    if text is None:
        return None
    try:
        return SmoothFit.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"what a data set says of its fits is damaged: {error.errors()[0]['msg']}", data=stamps.title
        ) from None


def learnt_fit(
    stamps: StampSet, bands: Sequence[str], features: Sequence[str], rows: NDArray[np.intp]
) -> SmoothFit | None:
    """
    The fit of a data set with the mean squares that it left in some rows, where a network is shown its band.

    Drawn signals are kept where the network reads what they tell.

    Parameters
    ----------
    stamps : StampSet
    bands : sequence of str
        Those that the network is shown.
    features : sequence of str
        Columns that it reads.
    rows : array
        Of the training split.

    Raises
    ------
    DataError
        As of `fit_of`.
    ConfigError
        Odds are read and no band of their fit is shown, so that nothing would say how they were made.
    """
    fit = fit_of(stamps)
    if fit is None:
        return None
    odds = sorted(set(features) & set(fit.compared))
    if not set(fit.made) & set(bands):
        if odds:
            raise ConfigError(
                "a network that reads odds of drawn signals is shown what their fit leaves, too: add it to input.bands",
                features=",".join(odds),
                band=fit.left,
            )
        return None
    if not odds:
        fit = fit.model_copy(update={"signals": None})
    chi2, label = stamps.column(CHI2)[rows].astype(np.float64), stamps.column("label")[rows]
    names = sorted({str(name) for name in label if name is not None})
    parts = {name: chi2[label == name] for name in names} or {"all": chi2}
    known = {name: tuple(float(f"{q:.5g}") for q in np.quantile(some, QUANTILES)) for name, some in parts.items()}
    return fit.model_copy(update={"chi2": known})
