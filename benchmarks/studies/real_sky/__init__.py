"""Finders on simulations, on painted arcs and on real lenses, side by side. The page: `docs/results/real_sky.md`."""
