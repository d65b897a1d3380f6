"""The g r i finder `ground-gri`: its stamps, its settings, its tolerance. The page: `docs/results/finder_ground.md`."""
