"""From cutouts to scores: prepare the input, run a checkpoint."""
