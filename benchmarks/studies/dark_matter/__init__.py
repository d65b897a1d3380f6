"""Dark matter in a lens: the comparison of networks, the bound, regressions. Page: `docs/results/dark-matter.md`."""
