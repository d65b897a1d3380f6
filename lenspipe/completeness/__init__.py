"""
What a survey's finder misses: lenses painted into its own pixels, searched by the scan's code, and counted.

`read` opens a selection function that ``lenspipe completeness`` wrote.
"""

from lenspipe.completeness.selection import read

__all__ = ["read"]
