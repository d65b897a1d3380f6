"""The finder `ground-grz`: hosts with a real z band, KiDS with i made up to z, training and judging."""
