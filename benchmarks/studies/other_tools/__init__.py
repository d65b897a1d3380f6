"""Simulated lenses opened by other tools that are no dependencies of ours."""
