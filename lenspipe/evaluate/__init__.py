"""A model on a data set: infer, then evaluate."""
