"""What the shipped ground finder misses in a KiDS tile, how much it costs to know, and whether intervals hold."""
