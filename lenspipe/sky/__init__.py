"""Positions on the sky: WCS and HEALPix."""
