"""Classifiers and regressions of substructure, and how much a lens shows. Page: `docs/results/substructure.md`."""
