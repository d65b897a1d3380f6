"""Simulated lenses, what looks like them, and arcs painted on real pixels. Arrays in, arrays out; no Ray, no torch."""
