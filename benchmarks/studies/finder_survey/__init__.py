"""Finders that `lenspipe finder` makes of the KiDS tile alone: what they reach on the real sky."""
