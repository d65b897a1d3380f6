"""Training as plain functions: augmentation and the fit loop. No Ray, no paths in the loop."""
