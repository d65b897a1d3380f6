"""A survey teaches its own finder: hosts and negatives from its rows, stamps, training, grades, calibration, page."""
