"""The finder from space `space-vis`: recipes of its stamps, settings. Page: `docs/results/finder_space.md`."""
