"""
Studies of the sky: what a model does on given data. Each has scripts, settings and a page in `docs/results`.

Run one as `python -m benchmarks.studies.NAME.SCRIPT`; its record lies in `benchmarks/results`.
"""
