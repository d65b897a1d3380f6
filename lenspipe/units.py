"""Constants of the units that pixels and fluxes are kept in."""

NANOJANSKY_ZERO_POINT_AB = 31.4
"""AB magnitude of one nanojansky: m = 31.4 - 2.5 log10(f / nJy) (Oke & Gunn 1983, ApJ 266, 713)."""
