"""Measurements of speed, memory and exactly-once; run one as `python -m benchmarks.NAME`."""
