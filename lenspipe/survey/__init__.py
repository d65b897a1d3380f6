"""From files of a survey to calibrated pixel windows: layouts, tiles, shards, reading."""
