"""
What Python sees of lenspipe: ``import lenspipe as lp``. Thin functions over those that the commands call.

A file here is about one thing that a user holds: a run, a model, a stamp, a picture.
"""

from lenspipe.api.cut import cutouts
from lenspipe.api.lens import paint, simulate_lens
from lenspipe.api.likeness import similar
from lenspipe.api.model import Model, score
from lenspipe.api.picture import rgb
from lenspipe.api.run import Run, scan_survey
from lenspipe.api.stamp import Stamp

__all__ = ["Model", "Run", "Stamp", "cutouts", "paint", "rgb", "scan_survey", "score", "similar", "simulate_lens"]
