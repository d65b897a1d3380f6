"""Data sets of labelled stamps: the Parquet format, readers of other people's layouts, splits, checks."""
