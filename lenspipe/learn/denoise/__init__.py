"""Pairs of a short and a deep exposure, and losses on them: what a denoiser learns from."""
