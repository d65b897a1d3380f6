"""Stamps of any positions of a survey: which tile shows a position, cut out of windows that are read once, written."""
