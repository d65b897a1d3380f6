"""Statistics of scores, classes and values on arrays: counts that add up, curves, intervals, calibration, reports."""
