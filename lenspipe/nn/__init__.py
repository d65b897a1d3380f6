"""Networks: their registry, their cards, their checkpoints. `card` reads without torch."""
