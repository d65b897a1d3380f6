"""lenspipe: find strong gravitational lenses in whole imaging surveys."""

__version__ = "0.1.0"
