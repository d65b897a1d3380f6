"""Generators of stamps compared by their gates, and by what they add to a classifier."""
