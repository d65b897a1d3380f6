"""Arrays of pixels: background, detection, photometry, cutouts, stretch."""
