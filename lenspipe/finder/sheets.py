"""Contact sheets of a survey's hosts: what arcs are painted on, and what was refused and why."""

from __future__ import annotations

import numpy as np

from lenspipe.bands import colour_bands
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.report.picture import png_of
from lenspipe.stamps.format import StampSet

N_COLUMN, N_SHOWN = 12, 36


def host_sheets(hosts: StampSet, *, side_arcsec: float = 14.0) -> dict[str, bytes]:
    """
    PNG of up to 36 stamps of each kind of host, and of each reason to refuse one; north as in the tile's pixels.

    Returns
    -------
    dict
        By ``early``, ``source`` ..., and ``refused: REASON``.
    """
    label, refused = hosts.column("label"), hosts.column("refused")
    spec = hosts.images["image"]
    groups = {str(name): np.flatnonzero(label == name) for name in dict.fromkeys(label)}
    groups |= {f"refused: {text}": np.flatnonzero(refused == text) for text in dict.fromkeys(refused) if text}
    shown = [spec.bands.index(band) for band in colour_bands(spec.bands)]
    side = min(spec.size_px, int(side_arcsec / spec.pixel_scale_arcsec) | 1)
    cut = (spec.size_px - side) // 2
    out = {}
    for name in sorted(groups, key=lambda n: (n != "early", n)):
        rows = groups[name]
        if len(rows) > N_SHOWN:
            rows = np.sort(np.random.default_rng(1).choice(rows, N_SHOWN, replace=False))
        pixels = hosts.read_images("image", rows)[:, shown, cut : cut + side, cut : cut + side]
        pixels = np.concatenate([pixels, np.zeros((-len(rows) % N_COLUMN, *pixels.shape[1:]), np.float32)])
        out[name] = png_of(contact_sheet(colour_stamps(pixels), n_column=N_COLUMN))
    return out
