"""
Measurements of the machine: speed, memory and exactly-once. Run one as `python -m benchmarks.NAME [--help]`.

Each writes its record into `benchmarks/results` (`record`), with one timer (`timing`), one watcher of memory (`memory`)
and one form of an aim, and ends with exit code 1 where an aim is missed. `benchmarks.studies` are of the sky.
"""
